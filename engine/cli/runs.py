"""Commands that read an environment as the working tree wants it: deploy, plan, verify."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options as o
from engine.cli.opening import Work, opened
from engine.cli.output import Output
from engine.core.change import Verb
from engine.report.plan import coverage, plan_lines
from engine.report.text import count

if TYPE_CHECKING:
    from engine.core.planning import Plan

_LOSING = frozenset({Verb.DELETE, Verb.REPLACE})
"""Verbs that a person at the terminal is asked about."""

PlanFile = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help="Run exactly this plan, written by `plan --out`.")
]
OutFile = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the plan, for `deploy --plan`.")]
Detailed = Annotated[bool, typer.Option("--detailed-exitcode", help="Exit 2 when something would change.")]


@o.speaking
def deploy(
    output: Output,
    environment: o.Environment,
    extra: o.Extra = None,
    runbook: o.RunbookName = "",
    plan: PlanFile = None,
    no_input: o.NoInput = False,
    yes: o.Yes = False,
) -> int:
    """Bring an environment to what its runbook says: plan, apply, verify; on failure roll back."""
    from engine.cli import planfile
    from engine.run import deploy as run

    with opened(output, environment, extra=extra or (), runbook=runbook, no_input=no_input) as work:
        run.may_begin(work.session)
        planned, seconds = _read_and_plan(work) if plan is None else (planfile.load(plan, work.session), 0.0)
        losing = [f"{c.verb} {c.step}" for c in planned.wanted if c.verb in _LOSING]
        if losing:
            work.confirm(f"This would {', '.join(losing)}. Go on?", yes=yes, default=True)
        view = run.deploy(work.session, planned)
        return work.finish(view, read_seconds=seconds, coverage=coverage(planned))


@o.speaking
def plan(
    output: Output,
    environment: o.Environment,
    extra: o.Extra = None,
    runbook: o.RunbookName = "",
    out: OutFile = None,
    detailed_exitcode: Detailed = False,
) -> int:
    """Show what a deploy would change, with a diff, and how far that can be trusted. Changes nothing."""
    from engine.cli import planfile
    from engine.report.documents import plan_document

    with opened(output, environment, extra=extra or (), runbook=runbook, no_input=True) as work:
        planned, _ = _read_and_plan(work)
        work.console.close()
        if out is not None:
            planfile.save(planned, out)
        actions = {s.id: s.action for s in work.session.runbook.steps()}
        saved = str(out) if out is not None else ""
        output.answer(
            plan_document(planned),
            plan_lines(planned, actions, width=output.width, verbose=output.verbose, saved=saved),
        )
        return 2 if detailed_exitcode and planned.wanted else 0


@o.speaking
def verify(output: Output, environment: o.Environment, extra: o.Extra = None, runbook: o.RunbookName = "") -> int:
    """Run every check of every step, whatever was proved before. Changes nothing; exit 1 when one fails."""
    from engine.run.verify import verify as run_verify

    with opened(output, environment, extra=extra or (), runbook=runbook, no_input=True) as work:
        planned, seconds = _read_and_plan(work)
        view = run_verify(work.session, planned)
        return work.finish(view, read_seconds=seconds, coverage=coverage(planned))


def _read_and_plan(work: Work) -> tuple[Plan, float]:
    """The plan, and how many seconds reading took."""
    from engine.run.planner import make_plan

    work.stop_if_asked("opening the environment")
    begun = time.monotonic()
    work.console.doing(f"reading {count(len(work.session.graph.order), 'step')}")
    made = make_plan(work.session)
    work.stop_if_asked("planning")
    return made, time.monotonic() - begun
