"""Verifying an environment: every check of every step looks again, whatever was proved before. Changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from engine.core.events import EventType
from engine.core.history import RunStatus, RunView, StepStatus
from engine.core.model import Step
from engine.core.planning import Plan
from engine.errors import CancelledError, RunbookError
from engine.run.checking import Proofs, proved_state, run_checks
from engine.run.deploy import new_run_id, run_started
from engine.run.executor import WORKERS
from engine.run.recorder import Recorder
from engine.run.session import Session

_PATIENCE = timedelta(seconds=10)
"""How long a failing check is looked at again: a system at rest needs no step's whole timeout."""


def verify(session: Session, plan: Plan) -> RunView:
    """Run all checks, several steps at once, and keep what they saw as proofs. `plan` says which steps stand; the
    view's exit code is 1 when a check failed."""
    run = new_run_id(session)
    recorder = Recorder(session.journal, RunView(run), session.deployer.observer)
    recorder.record(EventType.RUN_STARTED, data=run_started(session, plan, "verify"))
    try:
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="verify") as pool:
            steps = [session.runbook.step(step_id) for step_id in session.graph.order]
            for _ in pool.map(lambda step: _verify(session, recorder, plan, step), steps):
                pass
    except CancelledError:
        recorder.record(EventType.RUN_FINISHED, data={"status": RunStatus.STOPPED.value, "exit": 130})
        return recorder.view
    failed = any(s.status is StepStatus.FAILED for s in recorder.view.steps.values())
    status = RunStatus.FAILED if failed else RunStatus.SUCCEEDED
    recorder.record(EventType.RUN_FINISHED, data={"status": status.value, "exit": int(failed)})
    return recorder.view


def _verify(session: Session, recorder: Recorder, plan: Plan, step: Step) -> None:
    parts, change = session.deployer, plan.changes.get(step.id)
    if change is None:
        data = {"status": StepStatus.SKIPPED.value, "reason": plan.reasons.get(step.id, "")}
        recorder.record(EventType.STEP_FINISHED, step.id, data)
        return
    recorder.record(EventType.STEP_STARTED, step.id)
    try:
        resolved = parts.resolver.resolve(step, {})
        specs = [*parts.actions[step.action].checks(resolved.params), *resolved.verify]
        ctx = parts.context(step, resolved, deadline=parts.deadline(_PATIENCE))
        run_checks(specs, ctx, parts, recorder, Proofs(), proved_state(change))
    except CancelledError:
        raise
    except RunbookError as error:
        data = {"error": parts.redact(str(error)), "kind": type(error).__name__}
        recorder.record(EventType.STEP_FAILED, step.id, data)
    else:
        recorder.record(EventType.STEP_FINISHED, step.id, {"status": StepStatus.UNCHANGED.value, "reason": ""})
