"""Beginning a run and taking one up again."""

from __future__ import annotations

import os
import secrets

from engine.core.action import Deadline
from engine.core.history import EventType, RunView, runs
from engine.core.planning import Plan
from engine.errors import RefusedError
from engine.run.checking import Proofs
from engine.run.executor import Executor
from engine.run.lease import holder, lease
from engine.run.recorder import Recorder
from engine.run.session import Session
from engine.run.steps import StepRunner

ORPHAN_SECONDS = 600.0
"""How long a resume waits for a child process that the dead engine left, before ending it."""


def deploy(session: Session, plan: Plan) -> RunView:
    """Run a plan to its end. RefusedError (exit 4) when the environment is held or an earlier run is unfinished."""
    run, since = new_run_id(session), session.deployer.now.isoformat(timespec="seconds")
    with lease(session.state, session.environment, run, since):
        session.journal.verify()
        unfinished = open_run(session)
        if unfinished:
            raise RefusedError(
                f"run {unfinished.id} of {session.environment} is unfinished (since {unfinished.started}).\n"
                f"  go on with it   runbook resume {session.environment}\n"
                f"  look at it      runbook show {unfinished.id}"
            )
        session.record.claim(run, since)
        recorder = Recorder(session.journal, RunView(run), session.deployer.observer)
        recorder.record(EventType.RUN_STARTED, data=_started(session, plan))
        return _carry(session, recorder)


def resume(session: Session, view: RunView) -> RunView:
    """Go on with an unfinished run, from its kept inputs. `session` must have been opened on those."""
    with lease(session.state, session.environment, view.id, view.started):
        session.journal.verify()
        session.launcher.wait_for_orphans(Deadline(ORPHAN_SECONDS, session.deployer.cancelled))
        session.record.claim(view.id, view.started)
        recorder = Recorder(session.journal, view, session.deployer.observer)
        recorder.record(EventType.RESUMED, data={"holder": holder(), "pid": os.getpid()})
        return _carry(session, recorder)


def open_run(session: Session) -> RunView | None:
    """The environment's unfinished run, if there is one."""
    return unfinished(runs(session.journal.events()), session.environment)


def unfinished(views: dict[str, RunView], environment: str) -> RunView | None:
    """The newest open run of an environment."""
    mine = [v for v in views.values() if v.environment == environment and v.status.open]
    return mine[-1] if mine else None


def new_run_id(session: Session) -> str:
    """Four hexadecimal digits, unused in this journal; more when it is crowded."""
    taken = {event.run for event in session.journal.events()}
    size = 2
    while True:
        run = secrets.token_hex(size)
        if run not in taken:
            return run
        size += 1 if len(taken) > 16**size else 0


def _carry(session: Session, recorder: Recorder) -> RunView:
    proofs = Proofs(session.journal.events())
    runner = StepRunner(session.deployer, recorder, session.record, proofs)
    status = Executor(session.runbook, session.deployer, recorder, runner).run()
    if not status.open:
        session.record.release()
    return recorder.view


def _started(session: Session, plan: Plan) -> dict[str, object]:
    return {
        "environment": session.environment,
        "runbook": session.runbook.name,
        "title": session.runbook.title,
        "holder": holder(),
        "pid": os.getpid(),
        "now": session.deployer.now.isoformat(),
        "inputs": session.inputs,
        "variables": session.variables,
        "target": session.target,
        "left_out": dict(plan.reasons),
        "plan": plan.digest,
        "changes": [c.to_json() for c in plan.changes.values()],
        "phases": [[p.id, p.title] for p in session.runbook.phases],
        "steps": [{"id": s.id, "phase": s.phase, "name": s.name, "action": s.action} for s in session.runbook.steps()],
    }
