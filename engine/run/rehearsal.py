"""Looking whether a drill can be carried out, before anything is broken: right, target, whole platform, way back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from engine.core.action import Deadline, Finding
from engine.core.change import Fidelity
from engine.core.drill import Drill
from engine.core.model import Step, StepId
from engine.errors import CancelledError, NotYetError, RefusedError, RunbookError
from engine.run.checking import await_finding
from engine.run.drilling import specs_of
from engine.run.session import Session

_WHOLE = timedelta(seconds=10)
"""How long each step's checks may take to pass on a platform that is said to stand: as `verify` gives them."""


@dataclass(frozen=True, slots=True)
class Look:
    """The first check that did not pass, and what it saw."""

    check: str
    saw: str
    cut_short: bool = False
    """The deadline ended the look: nothing is known."""


def refuse_forbidden(session: Session) -> None:
    """RefusedError unless the inventory allows drills."""
    if not session.drills_allowed:
        raise RefusedError(
            f"drills break things on purpose, and {session.environment} does not allow them: its inventory would have "
            "to say `drills: allowed`. Nothing was changed."
        )


def rehearse(session: Session, plan: Drill) -> None:
    """RefusedError says what stands in the way; nothing was changed.

    The fault finds its target; every check that must notice it, and every one that must prove the recovery, passes
    now; each step of the way back can be planned, or a step of `prepare` may make what it lacks.
    """
    refuse_forbidden(session)
    parts = session.deployer
    try:
        parts.resolver.resolve(plan.sentinels, {})
        fault = parts.resolver.resolve(plan.fault, {})
        session.faults[plan.fault.action].target(fault.params, parts.context(plan.fault, fault))
        noticing = [specs_of(session, s, parts.resolver.resolve(s, {})) for s in _steps(session, plan.detect)]
        proving = [specs_of(session, s, parts.resolver.resolve(s, {})) for s in _steps(session, plan.verify)]
    except NotYetError as error:
        raise RefusedError(f"drill {plan.id} is not possible now: {error}. Nothing was changed.") from error
    for what, specs in (("detect", noticing), ("verify", proving)):
        if not any(specs):
            raise RefusedError(f"drill {plan.id}: {what} has no check here, all its steps are left out")
    _refuse_unwhole(session, plan)
    plan_steps(session, plan.prepare, {}, lacking=False)
    plan_recovery(session, plan, {}, prepared=not plan.prepare)


def plan_recovery(session: Session, plan: Drill, registered: Mapping[str, Any], *, prepared: bool) -> None:
    """Plan each step of the way back. Before `prepare` ran it may lack what that makes; after it nothing may be
    missing: RefusedError, while nothing is broken yet."""
    plan_steps(session, plan.recover, registered, lacking=not prepared)


def plan_steps(session: Session, steps: Sequence[Step], registered: Mapping[str, Any], *, lacking: bool) -> None:
    """RefusedError names the first one that cannot be planned. `lacking`: something may still be missing."""
    promised = False  # an earlier one of these steps puts out something that a later one may need
    planned = 0
    for step in steps:
        try:
            planned += _planned(session, step, registered, lacking=lacking, promised=promised)
        except CancelledError:
            raise
        except RunbookError as error:
            told = session.planner.failure(step, error)
            raise RefusedError(f"{step.id} cannot be planned, so nothing was broken: {told}") from error
        promised = promised or step.register is not None
    if steps and not planned:
        raise RefusedError(f"{steps[0].id}: every step is left out here, so nothing was broken")


def _planned(session: Session, step: Step, registered: Mapping[str, Any], *, lacking: bool, promised: bool) -> bool:
    """Whether it is carried out at all. Raises what keeps it from being planned."""
    parts = session.planner
    try:
        resolved = parts.resolver.resolve(step, registered)
    except NotYetError:
        if lacking or promised:
            return True
        raise
    if resolved.skip:
        return False
    action, ctx = parts.actions[step.action], parts.context(step, resolved)
    try:
        change = action.plan(resolved.params, action.read(resolved.params, ctx), ctx)
    except NotYetError:
        if lacking:
            return True
        raise
    if change.fidelity is Fidelity.DEFERRED and not change.objects and not lacking:
        raise NotYetError(change.reason)
    return True


def first_failing(session: Session, steps: Iterable[StepId], deadline: Deadline) -> Look | None:
    """Look once with every check of these steps; None when all pass."""
    parts = session.deployer
    for step in _steps(session, steps):
        resolved = parts.resolver.resolve(step, {})
        ctx = parts.context(step, resolved, deadline=deadline)
        for spec in specs_of(session, step, resolved):
            try:
                finding = parts.checks[spec.family].run(spec.params, ctx)
            except CancelledError:
                raise
            except RunbookError as error:
                finding = Finding(False, str(error))
            if not finding.ok:
                return Look(f"{step.id}: check {spec.describe()}", finding.saw, not deadline.remaining())
    return None


def _refuse_unwhole(session: Session, plan: Drill) -> None:
    """Each check gets the time that `verify` gives it. RefusedError tells of all that do not pass."""
    parts, failing = session.deployer, []
    for step in _steps(session, dict.fromkeys((*plan.detect, *plan.verify))):
        resolved = parts.resolver.resolve(step, {})
        ctx = parts.context(step, resolved, deadline=parts.deadline(_WHOLE))
        for spec in specs_of(session, step, resolved):
            try:
                finding = await_finding(spec, ctx, parts)
            except CancelledError:
                raise
            except RunbookError as error:
                finding = Finding(False, str(error))
            if not finding.ok:
                failing.append(f"{step.id}: check {spec.describe()}: {finding.saw}")
    if failing:
        body = "\n  ".join(failing)
        raise RefusedError(
            f"{session.environment} is not whole, and a drill begins on a platform that stands "
            f"(looked at for up to {_WHOLE.total_seconds():.0f} s a step). Nothing was changed.\n  {body}"
        )


def _steps(session: Session, steps: Iterable[StepId]) -> list[Step]:
    return [session.runbook.step(s) for s in steps]
