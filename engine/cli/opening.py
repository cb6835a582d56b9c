"""Opening an environment for a command: the display, the signals, the last word, and what an unexpected end says."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from engine.cli.output import Output
from engine.core.events import Event
from engine.core.history import RunView, runs
from engine.core.model import Step
from engine.errors import CancelledError, RefusedError, RunbookError

if TYPE_CHECKING:
    from engine.report.console import Console
    from engine.run.session import Session

_FAILED_AND_LEFT = 5
_SHOW_CURSOR = b"\x1b[?25h\n"


class CrashError(RunbookError):
    """A defect of the engine. What was begun is in the journal; `-v` shows where it happened."""


class MachineError(RunbookError):
    """This machine refuses: a file that may not be read, a full disk. No defect, and nothing of it is secret."""


def unforeseen(error: Exception) -> tuple[type[RunbookError], str]:
    """What an error that nobody translated is. Of a defect only its kind: its text passed no redactor."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{os.fsdecode(error.filename)}: " if error.filename and not isinstance(error.filename, int) else ""
        return MachineError, f"{place}{error.strerror}"
    return CrashError, f"the engine made a mistake ({type(error).__name__})"


@dataclass(frozen=True, slots=True)
class Work:
    """An opened environment, who shows it, and whether a person can be asked."""

    session: Session
    console: Console
    output: Output
    cancelled: threading.Event
    interactive: bool

    def stop_if_asked(self, doing: str) -> None:
        """Raise CancelledError when the user asked to stop before anything was begun."""
        if self.cancelled.is_set():
            raise CancelledError(f"stopped while {doing}: nothing was changed")

    def confirm(self, question: str, *, yes: bool, default: bool, option: str = "--yes") -> None:
        """Ask. RefusedError on no, and where nobody can be asked unless `default` says that silence is consent.

        `option` answers yes beforehand.
        """
        self.console.close()
        if yes or (not self.interactive and default):
            return
        if not self.interactive:
            raise RefusedError(f"{question}\nNobody can be asked here: give {option}. Nothing was changed.")
        if not _asked(question):
            raise RefusedError("not confirmed: nothing was changed")

    def finish(self, view: RunView, *, read_seconds: float = 0.0, coverage: str = "", wanted_back: bool = False) -> int:
        """The last word of a run, and its exit code. A rollback that was asked for has succeeded when all came back.

        `read_seconds` and `coverage` tell of the plan the run carried out, where this command made or read one.
        """
        from engine.report.documents import run_document
        from engine.report.summary import summary_lines

        self.console.close()
        self.output.answer(
            run_document(view),
            summary_lines(
                view,
                datetime.now(UTC),
                width=self.output.width,
                read_seconds=read_seconds,
                coverage=coverage,
                position=self._position(view.failed_step),
                earlier=self._drills(view),
            ),
        )
        code = _FAILED_AND_LEFT if view.exit_code is None else view.exit_code
        return 0 if wanted_back and code == 1 else code

    def _drills(self, view: RunView) -> list[RunView]:
        """The environment's drills, to compare a drill with."""
        if view.kind != "drill":
            return []
        views = runs(self.session.journal.events()).values()
        return [v for v in views if v.kind == "drill" and v.environment == view.environment]

    def _position(self, step: str) -> str:
        """Where a step is written; empty when the runbook as kept does not have it."""
        try:
            return str(self._step(step).position) if step else ""
        except KeyError:
            return ""

    def _step(self, step: str) -> Step:
        """Of the runbook, or of the drill that is carried out. KeyError."""
        plan = self.session.drill
        own = (plan.sentinels, *plan.prepare, plan.fault, *plan.recover) if plan else ()
        found = next((s for s in own if s.id == step), None)
        return found or self.session.runbook.step(step.removeprefix("verify/") if plan else step)


def journal_events() -> list[Event]:
    """The project's journal, read and closed again: a session opens its own."""
    from engine import wiring

    journal = wiring.open_journal(wiring.find_root(Path.cwd()))
    try:
        return journal.events()
    finally:
        journal.close()


@contextmanager
def opened(
    output: Output,
    environment: str,
    *,
    extra: Sequence[str] = (),
    runbook: str = "",
    drill: str = "",
    view: RunView | None = None,
    past: Sequence[Event] = (),
    no_input: bool = False,
) -> Iterator[Work]:
    """The environment, ready for work; with `view`, on that run's kept inputs and with its `past` events shown; with
    `drill`, for that drill."""
    from engine import wiring

    console, cancelled = output.console(), threading.Event()
    console.replay(past)
    interactive = not (no_input or output.as_json) and _at_a_terminal()
    with _stopped_by_signals(cancelled, console):
        try:
            console.doing(f"opening run {view.id} of {environment}" if view else f"opening {environment}")
            with wiring.open_session(
                wiring.find_root(Path.cwd()),
                environment,
                extra=extra,
                observer=console,
                interactive=interactive,
                run=view,
                cancelled=cancelled,
                runbook=runbook or None,
                drill=drill,
            ) as session:
                yield Work(session, console, output, cancelled, interactive)
        except (RunbookError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except Exception as error:
            kind, what = unforeseen(error)
            raise kind(_crash(what, environment, console.view)) from error
        finally:
            console.close()


def _at_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _crash(what: str, environment: str, view: RunView | None) -> str:
    place = f"run {view.id} of {environment}" if view else environment
    go_on = f"  go on   runbook resume {environment}\n" if view else ""
    return (
        f"{place}: {what}. What was begun is in the journal.\n"
        f"{go_on}  where   the same command with -v shows a traceback"
    )


def _asked(question: str) -> bool:
    """A yes from the terminal. Ctrl-C and the end of input mean no and stop: CancelledError."""
    import typer

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        raise CancelledError("stopped at a question: nothing was changed") from None
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _stopped_by_signals(cancelled: threading.Event, console: Console) -> Iterator[None]:
    """The first Ctrl-C, SIGTERM or hang-up asks to stop; a second Ctrl-C leaves at once.

    Leaving at once is safe: every event is on disk before its effect, and `resume` waits for children left behind.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        if cancelled.is_set() and number == signal.SIGINT:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), _SHOW_CURSOR)
            os._exit(130)
        if not cancelled.is_set():
            cancelled.set()
            console.stopping()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
