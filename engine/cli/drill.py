"""`drill`: break an environment on purpose, bring it back, and measure what that cost. Taking one up is here too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options as o
from engine.cli.opening import Work, journal_events, opened
from engine.cli.output import Output
from engine.core.drill import FAULT, GO
from engine.core.events import Event
from engine.core.history import RunView, runs
from engine.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from engine.core.model import StepId
    from engine.run.steps import Settlement

DrillName = Annotated[str, typer.Argument(metavar="NAME", help="A file of the runbook's drills/, without its ending.")]
List = Annotated[bool, typer.Option("--list", help="Only say which drills there are, and how they ended last.")]
Go = Annotated[bool, typer.Option("--go", help="The word to recover, given beforehand: nobody is asked for it.")]


@o.speaking
def drill(
    output: Output,
    environment: o.Environment,
    name: DrillName = "",
    show: List = False,
    extra: o.Extra = None,
    runbook: o.RunbookName = "",
    go: Go = False,
    no_input: o.NoInput = False,
    yes: o.Yes = False,
) -> int:
    """Break an environment on purpose and recover it: what is lost, how long it takes. --yes also gives the word."""
    if show:
        return _list(output, environment, runbook)
    if not name:
        raise UsageError(f"which drill? Those there are: runbook drill {environment} --list")
    from engine.run import drill as run
    from engine.run.deploy import may_begin
    from engine.run.rehearsal import refuse_forbidden

    with opened(output, environment, extra=extra or (), runbook=runbook, no_input=no_input, drill=name) as work:
        session, given = work.session, go or yes
        plan = session.drill
        if plan is None:
            raise UsageError(f"no drill {name}")
        refuse_forbidden(session)
        may_begin(session)
        _refuse_undecidable(work, given)
        work.confirm(
            f"{plan.title}. This breaks {environment} on purpose, and what is written meanwhile may be lost. Go on?",
            yes=yes,
            default=False,
        )
        work.stop_if_asked("opening the environment")
        work.console.doing(f"rehearsing {plan.id}")
        return work.finish(run.drill(session, plan, go=given))


def take_up(
    output: Output,
    views: Mapping[str, RunView],
    view: RunView,
    past: Sequence[Event],
    settled: Mapping[StepId, Settlement],
    *,
    go: bool,
    no_input: bool,
) -> int:
    """Go on with a drill that is open, or from which the platform is not back."""
    from engine.run import drill as run

    name, struck = str(view.drill["id"]), view.steps[FAULT].intents > 0
    with opened(output, view.environment, view=view, past=past, no_input=no_input, drill=name) as work:
        plan = work.session.drill
        if plan is None:
            raise UsageError(f"no drill {name} in the kept inputs of run {view.id}")
        later = run.later_deploys(views, view)
        if struck and later:
            runs_since = ", ".join(v.id for v in later)
            work.confirm(
                f"The platform did not come back from drill {name} (run {view.id}); {runs_since} deployed it since. "
                f"Going on carries out {', '.join(s.id for s in plan.recover)}: what was written since may be lost. "
                "Go on?",
                yes=go,
                default=False,
                option="--go",
            )
        if struck and not view.steps[GO].status.done:
            _refuse_undecidable(work, go or bool(view.drill.get("go")))
        work.stop_if_asked("opening the run's kept inputs")
        work.console.doing(f"taking up run {view.id}; what it left running ends first")
        return work.finish(run.resume_drill(work.session, plan, view, go=go, settled=settled))


def _refuse_undecidable(work: Work, given: bool) -> None:
    if not given and not work.interactive:
        raise RefusedError("nobody can be asked here for the word to recover: give --go. Nothing was changed.")


def _list(output: Output, environment: str, runbook: str) -> int:
    from engine import wiring
    from engine.report.drill import last_runs, list_document, list_lines

    drills, allowed = wiring.drills(wiring.find_root(Path.cwd()), runbook or None, environment)
    last = last_runs(runs(journal_events()).values(), environment)
    lines = list_lines(drills, last, datetime.now(UTC), width=output.width)
    note = [] if allowed else [f"! {environment} does not allow drills: its inventory does not say `drills: allowed`"]
    output.answer(list_document(drills, last, allowed=allowed), [*lines, *note])
    return 0
