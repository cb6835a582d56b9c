"""`readiness`, `attest` and `checklist`: whether an environment may go into production, and by whose word."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import options as o
from engine.cli.opening import journal_events
from engine.cli.output import Output
from engine.errors import UsageError

Criterion = Annotated[str, typer.Argument(metavar="CRITERION", help="An attestation or criterion of readiness.yml.")]
Statement = Annotated[str, typer.Option("--statement", metavar="TEXT", help="What you state, in your words.")]
By = Annotated[str, typer.Option("--by", metavar="NAME", help="Your name in allowed_signers; default: by your key.")]
ValidFor = Annotated[str, typer.Option("--valid-for", metavar="90d", help="How long it counts; default: the longest.")]
Evidence = Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Evidence: a file of the project.")]
Key = Annotated[Path, typer.Option("--key", metavar="FILE", help="Your SSH key, or its .pub when the agent holds it.")]
OutFile = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there instead.")]

_NOT_READY = 1


@o.speaking
def readiness(output: Output, environment: o.Environment, runbook: o.RunbookName = "") -> int:
    """GO or NO-GO: each criterion with its evidence, or with what is missing and the command that would bring it."""
    from engine import wiring
    from engine.readiness import readiness as judged
    from engine.report.readiness import readiness_document, readiness_lines

    found = judged(wiring.find_root(Path.cwd()), environment, runbook or None, journal_events())
    lines = readiness_lines(found, datetime.now(UTC), width=output.width)
    output.answer(readiness_document(found), lines)
    return 0 if found.ready else _NOT_READY


@o.speaking
def attest(
    output: Output,
    environment: o.Environment,
    criterion: Criterion,
    statement: Statement,
    by: By = "",
    valid_for: ValidFor = "",
    file: Evidence = None,
    key: Key = Path("~/.ssh/id_ed25519"),
    runbook: o.RunbookName = "",
) -> int:
    """State what no system can show, signed with your SSH key. It is journaled, and counts for a time."""
    from engine import wiring
    from engine.readiness import attest as state
    from engine.report.readiness import attested_lines

    said = state(
        wiring.find_root(Path.cwd()),
        environment,
        runbook or None,
        criterion,
        statement=statement,
        by=by,
        valid_for=valid_for,
        file=file,
        key=key,
    )
    output.answer({"schema": 1, "attestation": said.to_json()}, attested_lines(said))
    return 0


@o.speaking
def checklist(output: Output, runbook: o.RunbookName = "", out: OutFile = None) -> int:
    """The runbook's checklist: each line with the step, check or attestation that shows it, or why none does."""
    from engine import wiring
    from engine.readiness import checklist as read
    from engine.report.checklist import checklist_document, render_checklist

    found = read(wiring.find_root(Path.cwd()), runbook or None)
    text = render_checklist(found)
    if out is None:
        output.answer(checklist_document(found), text.rstrip("\n").split("\n"))
        return 0
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"checklist {out}: {error.strerror}") from error
    output.answer({"schema": 1, "file": str(out)}, [f"✓ {out}   {len(found.lines)} lines"])
    return 0
