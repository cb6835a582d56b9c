"""Commands that only read the journal: status, history, show, why. They load no client library."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from engine.cli import options as o
from engine.cli.opening import journal_events
from engine.cli.output import Output
from engine.core.events import Event
from engine.core.history import RunView, runs
from engine.errors import UsageError
from engine.load.document import guess
from engine.report import documents
from engine.report import status as pages
from engine.report.why import find_step, why_document, why_lines


@o.speaking
def status(output: Output, environment: o.MaybeEnvironment = "") -> int:
    """Where each environment stands: its last run, who holds it, what to do next."""
    views, now = runs(journal_events()), datetime.now(UTC)
    named = [environment] if environment else o.environment_names()
    found = pages.environments(views.values(), named, _held(views.values(), named))
    if environment:
        found = [s for s in found if s.name == environment]
        if found[0].run is None and environment not in o.environment_names():
            raise _no_environment(environment, views.values())
        lines = pages.environment_lines(found[0], now, width=output.width)
    else:
        lines = pages.status_lines(found, now, width=output.width)
    output.answer(documents.status_document(found), lines)
    return 0


@o.speaking
def history(output: Output, environment: o.MaybeEnvironment = "") -> int:
    """Every run, newest first."""
    every = runs(journal_events()).values()
    views = [v for v in every if v.environment and environment in ("", v.environment)]
    if environment and not views and environment not in o.environment_names():
        raise _no_environment(environment, every)
    held = _held(views, [])
    output.answer(documents.history_document(views), pages.history_lines(views, held, width=output.width))
    return 0


@o.speaking
def show(output: Output, run: o.RunId) -> int:
    """Every step of a run: what was to be done, where it stands, what proved it."""
    view, _ = found_run(run)
    held = view.environment in _held([view], [])
    output.answer(
        documents.run_document(view, held=held),
        pages.show_lines(view, held=held, width=output.width, verbose=output.verbose),
    )
    return 0


@o.speaking
def why(output: Output, run: o.RunId, step: o.StepName) -> int:
    """Why a step of a run did what it did: planned, seen, decided, done, proved, taken back."""
    view, events = found_run(run)
    found = find_step(view, step)
    output.answer(why_document(view, found, events), why_lines(view, found, events, width=output.width))
    return 0


def found_run(name: str) -> tuple[RunView, list[Event]]:
    """A run by its id or by how its id begins. UsageError names the last ones there are."""
    events = journal_events()
    views = {k: v for k, v in runs(events).items() if v.environment}
    found = [v for k, v in views.items() if k == name] or [v for k, v in views.items() if k.startswith(name)]
    if len(found) != 1:
        known = ", ".join(list(views)[-5:]) or "none"
        what = "several runs begin with" if found else "no run"
        raise UsageError(f'{what} "{name}"{"" if found else guess(name, views)} (the last ones: {known})')
    return found[0], [e for e in events if e.run == found[0].id]


def _no_environment(name: str, views: Iterable[RunView]) -> UsageError:
    """Neither a folder nor a run of the journal has that name."""
    known = sorted({*o.environment_names(), *(v.environment for v in views if v.environment)})
    return UsageError(f'no environment "{name}"{guess(name, known)}; there are: {", ".join(known) or "none"}')


def _held(views: Iterable[RunView], named: list[str]) -> list[str]:
    """The environments that a living process holds."""
    from engine import wiring
    from engine.run.lease import is_held

    state = wiring.find_root(Path.cwd()) / wiring.STATE
    names = {*named, *(v.environment for v in views)}
    return [name for name in names if name and is_held(state, name)]
