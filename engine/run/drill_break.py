"""A drill's first half: sentinels are written, what `prepare` wants is done, and the fault strikes.

Before the fault's intent is on disk nothing is broken: whatever ends the process there, `resume` only clears up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from math import ceil
from typing import Any

from engine.core.action import Context, Deadline
from engine.core.change import Outcome
from engine.core.drill import FAULT, LOSS, SENTINELS, Fault, Stage
from engine.core.events import EventType
from engine.core.history import RunStatus, StepStatus
from engine.core.resolved import Resolved
from engine.errors import CancelledError, RefusedError, RunbookError
from engine.run.drilling import STANDS, Drilling
from engine.run.rehearsal import plan_recovery
from engine.run.sentinels import SentinelWriter

_FIRST_SECONDS = 30.0
"""How much longer than planned the first sentinels may take."""


def break_platform(drilling: Drilling, *, taken_up: bool) -> bool:
    """Up to the fault's end, from wherever the journal says the drill is. False: it is over, and nothing is broken."""
    step = drilling.view.steps[FAULT]
    if step.open_intent and step.preimage is not None:
        done = _strike_again(drilling, step.preimage.references)
    elif step.status is StepStatus.APPLIED:
        drilling.end(FAULT, StepStatus.CHANGED)
        done = True
    elif step.status is StepStatus.CHANGED:
        done = True
    elif taken_up:
        done = _abandon(drilling, "killed before the fault", STANDS)
    else:
        done = _write_and_strike(drilling)
    if done:
        drilling.close(Stage.BREAK)
    return done


def seal_sentinels(drilling: Drilling) -> None:
    """What was acknowledged is final: the log's digest goes into the journal."""
    if drilling.over(Stage.WRITE):
        return
    step = drilling.view.steps[SENTINELS]
    if not step.status.done:
        if step.status is not StepStatus.APPLIED:
            evidence = drilling.log.evidence()
            summary = f"{evidence['acknowledged']} acknowledged, {drilling.plan.rate:g} a second"
            drilling.outcome(SENTINELS, Outcome(summary, evidence=evidence))
        drilling.end(SENTINELS, StepStatus.CHANGED)
    drilling.close(Stage.WRITE)


def _strike_again(drilling: Drilling, target: Mapping[str, Any]) -> bool:
    fault, (resolved, ctx) = _fault(drilling), drilling.ready(drilling.plan.fault)
    if not fault.begun(resolved.params, target, ctx):
        return _abandon(drilling, "ended before the fault had begun", STANDS)
    return _struck(drilling, _strike(drilling, resolved, target, ctx))


def _write_and_strike(drilling: Drilling) -> bool:
    plan, run = drilling.plan, drilling.view.id
    store, params, writing = drilling.store()
    writer = SentinelWriter(store, params, run, writing, drilling.log, rate=plan.rate, clock=_now)
    drilling.begin(SENTINELS)
    try:
        store.prepare(params, run, writing)
    except RunbookError as error:
        return _failed_before(drilling, error)
    before: RunbookError | None = None
    with writer:  # until the blow has fallen, or until it is clear that it will not
        try:
            resolved, ctx = _prepare(drilling, writer)
            target = _fault(drilling).target(resolved.params, ctx)
            _intend(drilling, target)
        except RunbookError as error:
            before = error
        else:
            struck = _strike(drilling, resolved, target, ctx)
    return _failed_before(drilling, before) if before else _struck(drilling, struck)


def _prepare(drilling: Drilling, writer: SentinelWriter) -> tuple[Resolved, Context]:
    """Sentinels before the fault, and `prepare` among them. Afterwards nothing may be missing on the way back."""
    plan, parts = drilling.plan, drilling.parts
    _some(drilling, writer)
    for step in plan.prepare:
        drilling.runner.run(step, drilling.registered(), moved=True)
        if parts.cancelled.is_set():
            raise CancelledError("stopped before the fault")
    drilling.begin(FAULT)
    if plan.prepare:
        plan_recovery(drilling.session, plan, drilling.registered(), prepared=True)
        _some(drilling, writer)
    return drilling.ready(plan.fault)


def _some(drilling: Drilling, writer: SentinelWriter) -> None:
    """Wait until as many more were acknowledged as fit into `before`."""
    plan, parts = drilling.plan, drilling.parts
    more = max(1, ceil(plan.before.total_seconds() * plan.rate))
    limit = 2 * plan.before.total_seconds() + _FIRST_SECONDS
    begun = writer.acknowledged
    if not writer.wait_for(begun + more, limit):
        if parts.cancelled.is_set():
            raise CancelledError("stopped before the fault, while sentinels were written")
        got = writer.acknowledged - begun
        raise RunbookError(
            f"only {got} of {more} sentinels were acknowledged within {limit:.0f} s: "
            f"{writer.trouble or 'the application is slower than `rate`'}"
        )


def _intend(drilling: Drilling, target: Mapping[str, Any]) -> None:
    """From here on the platform may be broken. RefusedError when another run holds the environment by now."""
    preimage = {"references": dict(target), "blob": ""}
    data = {"verdict": "apply", "preimage": preimage, "key": f"{drilling.view.id}/{FAULT}", "resuming": False}
    drilling.recorder.record(EventType.INTENT, FAULT, data)
    drilling.runner.fence(replace(drilling.plan.fault, id=FAULT))


def _strike(drilling: Drilling, resolved: Resolved, target: Mapping[str, Any], ctx: Context) -> Outcome | RunbookError:
    """The blow. One that only half succeeds needs the way back all the same; the error of one that did nothing."""
    fault, step = _fault(drilling), drilling.plan.fault
    ctx = replace(ctx, deadline=Deadline(step.timeout.total_seconds()))  # what is begun is finished
    try:
        return fault.strike(resolved.params, target, ctx)
    except RunbookError as error:
        asking = replace(ctx, deadline=Deadline(step.timeout.total_seconds()))
        if not fault.begun(resolved.params, target, asking):
            return error
        told = drilling.parts.failure(step, error)
        return Outcome(f"begun, but not as written: {told}", evidence={"incomplete": told})


def _struck(drilling: Drilling, struck: Outcome | RunbookError) -> bool:
    if isinstance(struck, RunbookError):
        drilling.fail(FAULT, drilling.parts.failure(drilling.plan.fault, struck), type(struck).__name__)
        return _abandon(drilling, "the fault did nothing", STANDS)
    drilling.outcome(FAULT, struck)
    drilling.end(FAULT, StepStatus.CHANGED)
    return True


def _failed_before(drilling: Drilling, error: RunbookError) -> bool:
    """Something before the fault did not succeed, or was stopped: nothing is broken."""
    if isinstance(error, CancelledError):
        return _abandon(drilling, "stopped before the fault", 130)
    drilling.fail_begun(error, FAULT)
    return _abandon(drilling, "failed before the fault", 4 if isinstance(error, RefusedError) else STANDS)


def _abandon(drilling: Drilling, why: str, code: int) -> bool:
    """Nothing is broken: take the sentinels away and end."""
    left = drilling.clear_sentinels()
    for step in (SENTINELS, FAULT):
        if drilling.view.steps[step].status in (StepStatus.RUNNING, StepStatus.APPLIED):
            drilling.end(step, StepStatus.SKIPPED, why)
    drilling.end(LOSS, StepStatus.SKIPPED, f"{why}; {left}" if left else why)
    drilling.finish(RunStatus.ABANDONED, code)
    return False


def _fault(drilling: Drilling) -> Fault:
    return drilling.session.faults[drilling.plan.fault.action]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
