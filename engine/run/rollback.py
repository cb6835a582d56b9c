"""Taking a run back: what it changed since the last savepoint, in reverse order, verified, journaled, resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core.action import Kind
from engine.core.change import ABSENT, Change, Preimage, Verb
from engine.core.convergence import Decision, undo_verdict
from engine.core.events import EventType
from engine.core.history import StepView
from engine.core.model import Step, StepId
from engine.core.parts import Parts
from engine.errors import CancelledError, RunbookError
from engine.run.recorder import Recorder
from engine.run.steps import StepRunner


def to_undo(order: Sequence[Step], views: Mapping[StepId, StepView], savepoints: Sequence[str]) -> list[Step]:
    """What must be taken back, in the order to do it: every step with an intent in this run, outside savepoints."""
    return [step for step in reversed(order) if views[step.id].stands and step.phase not in savepoints]


def rollback(
    order: Sequence[Step],
    registered: Mapping[str, Any],
    parts: Parts,
    recorder: Recorder,
    runner: StepRunner,
    *,
    spare: StepId | None = None,
) -> bool:
    """Undo back to the last savepoint. `spare`: a stale step, which is not ours to touch. True: all came back.

    An undo that fails does not stop the others; a step without a way back stops those before it.
    """
    view = recorder.view
    if not view.rollback_to:
        to = view.savepoints[-1] if view.savepoints else "the start"
        recorder.record(EventType.ROLLBACK_STARTED, data={"to": to, "whole": False})
    complete = True
    for step in to_undo(order, view.steps, view.savepoints):
        if parts.cancelled.is_set():
            raise CancelledError("stopped during rollback: `runbook resume` goes on with it")
        step_view = view.steps[step.id]
        change = step_view.change
        if step.id == spare or change is None:
            continue
        if change.irreversible and change.verb is not Verb.NONE:
            if _without_effect(step, step_view, registered, parts):
                recorder.record(EventType.UNDONE, step.id, {"detail": "failed before it had any effect"})
                continue
            recorder.record(EventType.UNDO_FAILED, step.id, {"error": f"no way back: {change.irreversible}"})
            return False
        try:
            detail = _undo(step, change, step_view.preimage or Preimage(), registered, parts, recorder, runner)
        except CancelledError:
            raise
        except RunbookError as error:
            recorder.record(EventType.UNDO_FAILED, step.id, {"error": parts.failure(step, error)})
            complete = False
        else:
            recorder.record(EventType.UNDONE, step.id, {"detail": detail})
    return complete


def _without_effect(step: Step, view: StepView, registered: Mapping[str, Any], parts: Parts) -> bool:
    """Whether a step without a way back is looked at and found as it was before: then there is nothing to go back over.

    Only of a state, by its own objects: of an event that left no evidence nobody can tell.
    """
    change, action = view.change, parts.actions[step.action]
    if change is None or not change.objects or action.kind is not Kind.STATE:
        return False
    try:
        resolved = parts.resolver.resolve(step, registered)
        live = action.read_back(
            resolved.params, change, view.preimage or Preimage(), parts.context(step, resolved, resuming=True)
        )
    except RunbookError:
        return False
    return all(live.get(o, ABSENT) == d.before for o, d in change.objects.items() if d.before != d.after)


def _undo(
    step: Step,
    change: Change,
    preimage: Preimage,
    registered: Mapping[str, Any],
    parts: Parts,
    recorder: Recorder,
    runner: StepRunner,
) -> str:
    """Take one step back and verify it; returns one line for a person. Raises what stands in the way."""
    resolved = parts.resolver.resolve(step, registered)
    action = parts.actions[step.action]
    ctx = parts.context(step, resolved, resuming=True)
    kept = f"kept {', '.join(change.residue)}" if change.residue else ""
    if not change.undo_to and resolved.undo is None:
        return kept or "nothing to take back"
    verdict = undo_verdict(change, action.read_back(resolved.params, change, preimage, ctx))
    if verdict.decision is Decision.STALE:
        raise RunbookError(f"{', '.join(verdict.stale)} moved since this run changed it: left as it is")
    if verdict.decision is Decision.ALREADY and resolved.undo is None:
        return "as before" + (f"; {kept}" if kept else "")
    recorder.record(EventType.UNDO_INTENT, step.id)
    runner.fence(step, undo=True)
    outcome = action.undo(resolved.params, change, preimage, ctx)
    back = action.read_back(resolved.params, change, preimage, ctx)
    missed = [o for o, f in change.undo_to.items() if back.get(o) != f and not (f.absent and o not in back)]
    if missed:
        raise RunbookError(f"undone, but {', '.join(missed)} is not back where it was")
    return "; ".join(part for part in (outcome.summary or "as before", kept) if part)
