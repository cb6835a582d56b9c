"""The `runbook` program: which commands there are, and how every end of one becomes an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from engine.cli import doctor, drift, drill, files, journal, readiness, recovery, report, runs
from engine.cli.opening import unforeseen
from engine.cli.output import Output
from engine.errors import CancelledError, RunbookError, UsageError

app = typer.Typer(
    name="runbook",
    help="Ansible-style runbooks for a platform's deployment: planned, journaled, verified, rolled back on failure.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    *(runs.deploy, runs.plan, runs.diff, recovery.resume, recovery.rollback, recovery.adopt, runs.verify),
    *(drift.drift, drill.drill),
    *(journal.status, journal.history, journal.show, journal.why, report.report),
    *(readiness.readiness, readiness.attest, readiness.checklist),
    *(files.lint, files.schema, files.graph, doctor.doctor),
):
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code; a user's mistake or an outside trouble never ends in a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # not a stream that a test put there
            stream.reconfigure(errors="replace")
    output = Output("--json" in given, bool({"-v", "--verbose"} & set(given)), "--no-color" in given)
    try:
        os.getcwd()
    except OSError:
        return _failed(output, UsageError("the working directory is gone: go to a folder that exists"))
    try:
        code = get_command(app).main(args=given, prog_name="runbook", standalone_mode=False)
    except typer.Abort:
        return _failed(output, CancelledError("stopped"))
    except TyperException as error:
        return _misused(output, error)
    except RunbookError as error:
        return _failed(output, error)
    except Exception as error:  # noqa: BLE001 (the last place: nothing else may end in a bare traceback)
        return _failed(output, _defect(error))
    return code if isinstance(code, int) else 0


def _standard_streams() -> None:
    """Python leaves out those that were closed (`>&-`): then nobody reads, and there is nothing to be read."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (as long as the process)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"runbook {version('runbook')}")
        except PackageNotFoundError:
            typer.echo("runbook (not installed: run from its sources)")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Ansible-style runbooks for a platform's deployment: planned, journaled, verified, rolled back on failure."""


def _failed(output: Output, error: RunbookError) -> int:
    """Say what happened; with --json as a document, with -v with where it happened."""
    from engine.report.documents import error_document

    if output.as_json:
        output.document(error_document(type(error).__name__, str(error), error.exit_code, error))
    else:
        output.aside(_message(error))
    if output.verbose:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    return error.exit_code


def _defect(error: Exception) -> RunbookError:
    kind, what = unforeseen(error)
    crash = kind(f"{what}; nothing was begun. With -v: where")
    crash.__cause__ = error
    return crash


def _message(error: RunbookError) -> list[str]:
    """A sign before the first line; files' mistakes stand for themselves."""
    lines = str(error).splitlines() or [type(error).__name__]
    if getattr(error, "diagnostics", None):
        return lines
    return [f"{'!' if isinstance(error, CancelledError) else '✗'} {lines[0]}", *lines[1:]]


def _misused(output: Output, error: TyperException) -> int:
    """The CLI library's own errors: bad options and arguments. Its exit code 2 means something else here."""
    if output.as_json:
        from engine.report.documents import error_document

        tell = getattr(error, "format_message", None)
        message = (tell() if tell else str(error)) or "no command given"
        output.document(error_document(UsageError.__name__, message, UsageError.exit_code))
    else:
        show = getattr(error, "show", None)
        if show is not None:
            show(file=sys.stderr)
        else:
            output.aside([f"✗ {error}"])
    return UsageError.exit_code
