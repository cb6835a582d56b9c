"""Commands on runs that were begun already: resume, rollback (on the inputs those kept), adopt (another journal's)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import drill as drills
from engine.cli import options as o
from engine.cli.opening import journal_events, opened
from engine.cli.output import Output
from engine.core.history import RunView, runs
from engine.core.model import StepId
from engine.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from engine.run.steps import Settlement

Done = Annotated[
    list[str] | None, typer.Option("--done", metavar="STEP", help="I looked: this step in doubt did happen.")
]
Again = Annotated[
    list[str] | None, typer.Option("--again", metavar="STEP", help="I looked: it did not happen; do it again.")
]


@o.speaking
def resume(
    output: Output,
    environment: o.Environment,
    done: Done = None,
    again: Again = None,
    go: drills.Go = False,
    no_input: o.NoInput = False,
) -> int:
    """Go on with a run that was stopped or killed, from the inputs it kept; with a drill until the platform is back."""
    from engine.run import deploy as run
    from engine.run.drill import broken

    events = journal_events()
    views = runs(events)
    view = run.unfinished(views, environment) or broken(views, environment)
    if view is None:
        return _nothing_to_resume(output, environment, views)
    settled = _settled(view, done or (), again or ())
    past = [e for e in events if e.run == view.id]
    if view.kind == "drill":
        return drills.take_up(output, views, view, past, settled, go=go, no_input=no_input)
    with opened(output, environment, view=view, past=past, no_input=no_input) as work:
        work.stop_if_asked("opening the run's kept inputs")
        work.console.doing(f"taking up run {view.id}; what it left running ends first")
        return work.finish(run.resume(work.session, view, settled))


@o.speaking
def rollback(
    output: Output, environment: o.Environment, run_id: o.MaybeRun = "", no_input: o.NoInput = False, yes: o.Yes = False
) -> int:
    """Take a finished run back, in reverse order, to what was before it. What the plan named as residue stays."""
    from engine.run import deploy as run

    events = journal_events()
    view = _to_take_back(runs(events), environment, run_id)
    past = [e for e in events if e.run == view.id]
    with opened(output, environment, view=view, past=past, no_input=no_input) as work:
        undo = [s for s in view.steps.values() if s.stands]
        kept = [obj for s in undo if s.change for obj in s.change.residue]
        stays = f" Stays on purpose: {', '.join(kept)}." if kept else ""
        names = ", ".join(s.id for s in reversed(undo))
        work.confirm(f"Run {view.id} of {environment}: take back {names}.{stays} Go on?", yes=yes, default=False)
        work.stop_if_asked("opening the run's kept inputs")
        return work.finish(run.rollback_run(work.session, view), wanted_back=True)


@o.speaking
def adopt(output: Output, environment: o.Environment, no_input: o.NoInput = False, yes: o.Yes = False) -> int:
    """Take an environment over from another journal whose run died. Explains first."""
    from engine.run import deploy as run

    with opened(output, environment, no_input=no_input) as work:
        record = work.session.record.look()
        if record is None:
            output.answer(
                {"schema": 1, "adopted": None, "next": [f"runbook deploy {environment}"]},
                [f"✓ nothing to adopt: {environment} has no record", f"  next   runbook deploy {environment}"],
            )
            return 0
        output.aside(
            [
                f"environment {environment} belongs to run {record.run} of journal {record.journal}",
                f"  held by   {record.holder}, since {record.since}, {record.state}",
                "  its unfinished steps are in doubt: the next plan reads everything afresh",
                "  its way back is in the other journal: what that run had begun cannot be rolled back from here",
                "  make sure that its process is dead: two at once would undo each other's work",
            ]
        )
        work.confirm("Take it over?", yes=yes, default=False)
        was = run.adopt(work.session)
        output.answer(
            {"schema": 1, "adopted": was, "next": [f"runbook plan {environment}"]},
            [f"✓ {environment} is yours now. It was {was}.", f"  next   runbook plan {environment}"],
        )
        return 0


def _settled(view: RunView, done: Sequence[str], again: Sequence[str]) -> dict[StepId, Settlement]:
    """What the user says of steps in doubt. UsageError when one of them is not in doubt."""
    from engine.run.steps import Settlement

    said = {StepId(s): Settlement.DONE for s in done} | {StepId(s): Settlement.AGAIN for s in again}
    for step in said:
        if step not in view.steps or not view.steps[step].open_intent:
            doubtful = ", ".join(s.id for s in view.steps.values() if s.open_intent) or "none"
            raise UsageError(f"step {step} of run {view.id} is not in doubt (in doubt: {doubtful})")
    return said


def _nothing_to_resume(output: Output, environment: str, views: dict[str, RunView]) -> int:
    last = next((v for v in reversed(views.values()) if v.kind == "deploy" and v.environment == environment), None)
    if last is None:
        raise RefusedError(f"no run of {environment} to resume.\n  begin   runbook deploy {environment}")
    if last.exit_code:
        raise RefusedError(
            f"no unfinished run of {environment}: the last, {last.id}, is {last.status.value}.\n"
            f"  look    runbook show {last.id}\n  again   runbook deploy {environment}"
        )
    output.answer(
        {"schema": 1, "run": None, "next": [f"runbook status {environment}"]},
        [f"✓ nothing to resume   run {last.id} of {environment} {last.status.value}"],
    )
    return 0


def _to_take_back(views: dict[str, RunView], environment: str, run_id: str) -> RunView:
    """The run a rollback means. RefusedError when it is unfinished or changed nothing that stands."""
    mine = [v for v in views.values() if v.kind == "deploy" and v.environment == environment]
    standing = [v for v in mine if any(s.stands for s in v.steps.values())]
    if run_id and run_id not in {v.id for v in mine}:
        known = ", ".join(v.id for v in mine[-5:]) or "none"
        raise UsageError(f"{environment} has no run {run_id} (the last ones: {known}). Nothing was touched.")
    chosen = [v for v in standing if not run_id or v.id == run_id]
    if not chosen:
        raise RefusedError(f"nothing to take back: {run_id or environment} changed nothing that still stands")
    view = chosen[-1]
    if view.status.open:
        raise RefusedError(
            f"run {view.id} of {environment} is unfinished ({view.status.value}): nothing was changed.\n"
            f"  end it first   runbook resume {environment}"
        )
    return view
