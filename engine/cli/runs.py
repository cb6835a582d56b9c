"""Commands that read an environment as the working tree wants it: deploy, plan, verify."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options as o
from engine.cli.opening import Work, opened
from engine.cli.output import Output
from engine.core.change import Verb
from engine.errors import UsageError
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
Offline = Annotated[
    bool,
    typer.Option("--offline", help="Ask no system: render everything, judge it by schemas, as for a first deploy."),
]
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
    offline: Offline = False,
) -> int:
    """Show what a deploy would change, with a diff, and how far that can be trusted. Changes nothing."""
    if offline:
        return _plan_offline(output, environment, extra or (), runbook, out=out, detailed_exitcode=detailed_exitcode)
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


def _plan_offline(
    output: Output, environment: str, extra: Sequence[str], runbook: str, *, out: Path | None, detailed_exitcode: bool
) -> int:
    from engine import wiring
    from engine.report.offline import offline_document, offline_lines

    if out is not None:
        raise UsageError(
            "--out with --offline: a plan that asked nobody cannot be carried out. Plan without --offline."
        )
    root, console = wiring.find_root(Path.cwd()), output.console()
    try:
        made = wiring.plan_offline(root, environment, extra=extra, observer=console, runbook=runbook or None)
    finally:
        console.close()
    actions = {s.id: s.action for s in wiring.load(root, runbook or None, environment).runbook.steps()}
    output.answer(offline_document(made), offline_lines(made, actions, width=output.width, verbose=output.verbose))
    return 2 if detailed_exitcode and made.plan.wanted else 0


@o.speaking
def diff(
    output: Output,
    environment: o.Environment,
    other: o.Environment,
    runbook: o.RunbookName = "",
    detailed_exitcode: Detailed = False,
) -> int:
    """How two environments differ: variables, steps, and every object they come to. Asks no system."""
    from engine import wiring
    from engine.core.comparison import compare
    from engine.report.offline import comparison_document, comparison_lines

    root, console = wiring.find_root(Path.cwd()), output.console()
    try:
        plans = [wiring.plan_offline(root, e, observer=console, runbook=runbook or None) for e in (environment, other)]
    finally:
        console.close()
    variables = [wiring.load(root, runbook or None, e).scope.settled() for e in (environment, other)]
    found = compare(plans[0], plans[1], variables[0], variables[1])
    output.answer(comparison_document(found), comparison_lines(found, width=output.width))
    return 2 if detailed_exitcode and not found.same else 0


def _read_and_plan(work: Work) -> tuple[Plan, float]:
    """The plan, and how many seconds reading took."""
    from engine.run.planner import make_plan

    work.stop_if_asked("opening the environment")
    begun = time.monotonic()
    work.console.doing(f"reading {count(len(work.session.graph.order), 'step')}")
    made = make_plan(work.session)
    work.stop_if_asked("planning")
    return made, time.monotonic() - begun
