"""Commands that read or change an environment: deploy, plan, resume, rollback, adopt, verify."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options as o
from engine.cli.opening import Work, opened
from engine.cli.output import Output
from engine.core.change import Verb
from engine.core.events import Event
from engine.core.history import RunView, StepStatus, runs
from engine.core.model import StepId
from engine.errors import RefusedError, UsageError
from engine.report.text import count

if TYPE_CHECKING:
    from engine.core.planning import Plan
    from engine.run.steps import Settlement

_FAILED_AND_LEFT = 5
_LOSING = frozenset({Verb.DELETE, Verb.REPLACE})
"""Verbs that a person at the terminal is asked about."""

PlanFile = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help="Run exactly this plan, written by `plan --out`.")
]
OutFile = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the plan, for `deploy --plan`.")]
Done = Annotated[
    list[str] | None, typer.Option("--done", metavar="STEP", help="I looked: this step in doubt did happen.")
]
Again = Annotated[
    list[str] | None, typer.Option("--again", metavar="STEP", help="I looked: it did not happen; do it again.")
]
Detailed = Annotated[bool, typer.Option("--detailed-exitcode", help="Exit 2 when something would change.")]


@dataclass(frozen=True, slots=True)
class _Planned:
    plan: Plan
    seconds: float


def deploy(
    environment: o.Environment,
    extra: o.Extra = None,
    runbook: o.RunbookName = "",
    plan: PlanFile = None,
    no_input: o.NoInput = False,
    yes: o.Yes = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    no_colour: o.NoColour = False,
) -> int:
    """Bring an environment to what its runbook says: plan, apply, verify; on failure roll back."""
    from engine.cli import planfile
    from engine.run import deploy as run

    output = Output(as_json, verbose, no_colour)
    with opened(output, environment, extra=extra or (), runbook=runbook, no_input=no_input) as work:
        run.may_begin(work.session)
        planned = _read_and_plan(work) if plan is None else _Planned(planfile.load(plan, work.session), 0.0)
        losing = [f"{c.verb} {c.step}" for c in planned.plan.wanted if c.verb in _LOSING]
        if losing:
            work.confirm(f"This would {', '.join(losing)}. Go on?", yes=yes, default=True)
        view = run.deploy(work.session, planned.plan)
        return _finish(work, view, planned)


def plan(
    environment: o.Environment,
    extra: o.Extra = None,
    runbook: o.RunbookName = "",
    out: OutFile = None,
    detailed_exitcode: Detailed = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    no_colour: o.NoColour = False,
) -> int:
    """Show what a deploy would change, with a diff, and how far that can be trusted. Changes nothing."""
    from engine.cli import planfile
    from engine.report.documents import plan_document
    from engine.report.plan import plan_lines

    output = Output(as_json, verbose, no_colour)
    with opened(output, environment, extra=extra or (), runbook=runbook, no_input=True) as work:
        planned = _read_and_plan(work).plan
        work.console.close()
        if out is not None:
            planfile.save(planned, out)
        actions = {s.id: s.action for s in work.session.runbook.steps()}
        saved = str(out) if out is not None else ""
        output.answer(
            plan_document(planned),
            plan_lines(planned, actions, width=output.width, verbose=verbose, saved=saved),
        )
        return 2 if detailed_exitcode and planned.wanted else 0


def resume(
    environment: o.Environment,
    done: Done = None,
    again: Again = None,
    no_input: o.NoInput = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    no_colour: o.NoColour = False,
) -> int:
    """Go on with a run that was stopped or killed, from the inputs it kept."""
    from engine.run import deploy as run

    output = Output(as_json, verbose, no_colour)
    events = _events()
    views = runs(events)
    view = run.unfinished(views, environment)
    if view is None:
        return _nothing_to_resume(output, environment, views)
    settled = _settled(view, done or (), again or ())
    past = [e for e in events if e.run == view.id]
    with opened(output, environment, view=view, past=past, no_input=no_input) as work:
        work.stop_if_asked("opening the run's kept inputs")
        work.console.doing(f"taking up run {view.id}; what it left running ends first")
        return _finish(work, run.resume(work.session, view, settled), None)


def _settled(view: RunView, done: Sequence[str], again: Sequence[str]) -> dict[StepId, Settlement]:
    """What the user says of steps in doubt. UsageError when one of them is not in doubt."""
    from engine.run.steps import Settlement

    said = {StepId(s): Settlement.DONE for s in done} | {StepId(s): Settlement.AGAIN for s in again}
    for step in said:
        if step not in view.steps or not view.steps[step].open_intent:
            doubtful = ", ".join(s.id for s in view.steps.values() if s.open_intent) or "none"
            raise UsageError(f"step {step} of run {view.id} is not in doubt (in doubt: {doubtful})")
    return said


def rollback(
    environment: o.Environment,
    run_id: o.MaybeRun = "",
    no_input: o.NoInput = False,
    yes: o.Yes = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    no_colour: o.NoColour = False,
) -> int:
    """Take a finished run back, in reverse order, to what was before it. What the plan named as residue stays."""
    from engine.run import deploy as run

    output = Output(as_json, verbose, no_colour)
    events = _events()
    view = _to_take_back(runs(events), environment, run_id)
    past = [e for e in events if e.run == view.id]
    with opened(output, environment, view=view, past=past, no_input=no_input) as work:
        undo = [s for s in view.steps.values() if s.intents and s.status is not StepStatus.UNDONE]
        kept = [obj for s in undo if s.change for obj in s.change.residue]
        stays = f" Stays on purpose: {', '.join(kept)}." if kept else ""
        names = ", ".join(s.id for s in reversed(undo))
        work.confirm(f"Run {view.id} of {environment}: take back {names}.{stays} Go on?", yes=yes, default=False)
        work.stop_if_asked("opening the run's kept inputs")
        return _finish(work, run.rollback_run(work.session, view), None, wanted_back=True)


def adopt(
    environment: o.Environment,
    no_input: o.NoInput = False,
    yes: o.Yes = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    no_colour: o.NoColour = False,
) -> int:
    """Take an environment over from another journal whose run died. Explains first."""
    from engine.run import deploy as run

    output = Output(as_json, verbose, no_colour)
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


def verify(
    environment: o.Environment,
    extra: o.Extra = None,
    runbook: o.RunbookName = "",
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    no_colour: o.NoColour = False,
) -> int:
    """Run every check of every step, whatever was proved before. Changes nothing; exit 1 when one fails."""
    from engine.run.verify import verify as run_verify

    output = Output(as_json, verbose, no_colour)
    with opened(output, environment, extra=extra or (), runbook=runbook, no_input=True) as work:
        planned = _read_and_plan(work)
        return _finish(work, run_verify(work.session, planned.plan), planned)


def _read_and_plan(work: Work) -> _Planned:
    from engine.run.planner import make_plan

    work.stop_if_asked("opening the environment")
    begun = time.monotonic()
    work.console.doing(f"reading {count(len(work.session.graph.order), 'step')}")
    made = make_plan(work.session)
    work.stop_if_asked("planning")
    return _Planned(made, time.monotonic() - begun)


def _finish(work: Work, view: RunView, planned: _Planned | None, *, wanted_back: bool = False) -> int:
    """The last word of a run, and its exit code. A rollback that was asked for has succeeded when all came back."""
    from engine.report.documents import run_document
    from engine.report.plan import coverage
    from engine.report.summary import summary_lines

    work.console.close()
    output = work.output
    output.answer(
        run_document(view),
        summary_lines(
            view,
            datetime.now(UTC),
            width=output.width,
            read_seconds=planned.seconds if planned else 0.0,
            coverage=coverage(planned.plan) if planned else "",
            position=_position(work, view.failed_step),
        ),
    )
    code = _FAILED_AND_LEFT if view.exit_code is None else view.exit_code
    return 0 if wanted_back and code == 1 else code


def _position(work: Work, step: str) -> str:
    """Where a step is written; empty when the runbook as kept does not have it."""
    try:
        return str(work.session.runbook.step(step).position) if step else ""
    except KeyError:
        return ""


def _events() -> list[Event]:
    """The project's journal, read and closed again: a session opens its own."""
    from engine import wiring

    journal = wiring.open_journal(wiring.find_root(Path.cwd()))
    try:
        return list(journal.events())
    finally:
        journal.close()


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
    standing = [v for v in mine if any(s.intents and s.status is not StepStatus.UNDONE for s in v.steps.values())]
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
