"""Beginning a run and taking one up again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict

from engine.core.action import Deadline
from engine.core.events import EventType
from engine.core.history import RunView, runs
from engine.core.model import StepId
from engine.core.planning import Plan
from engine.errors import RefusedError
from engine.run.checking import Proofs
from engine.run.executor import Executor
from engine.run.lease import holder, lease, refuse_if_held
from engine.run.recorder import Recorder
from engine.run.session import Session
from engine.run.steps import Settlement, StepRunner

ORPHAN_SECONDS = 600.0
"""How long a resume waits for a child process that the dead engine left, before ending it."""


def deploy(session: Session, plan: Plan) -> RunView:
    """Run a plan to its end. RefusedError (exit 4) when the environment is held or an earlier run is unfinished."""
    run, since = new_run_id(session), session.deployer.now.isoformat(timespec="seconds")
    with lease(session.state, session.environment, run, since):
        session.journal.verify()
        refuse_unfinished(session)
        session.record.claim(run, since)
        session.bind(run)
        recorder = Recorder(session.journal, RunView(run), session.deployer.observer)
        recorder.record(EventType.RUN_STARTED, data=run_started(session, plan, "deploy"))
        return _carry(session, recorder)


def resume(session: Session, view: RunView, settled: Mapping[StepId, Settlement] | None = None) -> RunView:
    """Go on with an unfinished run, from its kept inputs. `session` must have been opened on those.

    InDoubtError when a step cannot tell whether its effect happened and `settled` does not say either.
    """
    with lease(session.state, session.environment, view.id, view.started):
        session.journal.verify()
        session.launcher.wait_for_orphans(Deadline(ORPHAN_SECONDS, session.deployer.cancelled))
        session.record.claim(view.id, view.started)
        recorder = Recorder(session.journal, view, session.deployer.observer)
        recorder.record(EventType.RESUMED, data={"holder": holder(), "pid": os.getpid()})
        return _carry(session, recorder, settled)


def rollback_run(session: Session, view: RunView) -> RunView:
    """Take a finished run back, all of it, from its kept inputs. Data that was announced as residue stays."""
    with lease(session.state, session.environment, view.id, view.started):
        session.journal.verify()
        views = list(runs(session.journal.events()).values())
        newer = views[[v.id for v in views].index(view.id) + 1 :]
        later = [v.id for v in newer if _deployed(v, view.environment)]
        if later:
            raise RefusedError(
                f"run {view.id} is not the last of {view.environment}: roll back {', '.join(reversed(later))} first"
            )
        session.launcher.wait_for_orphans(Deadline(ORPHAN_SECONDS, session.deployer.cancelled))
        session.record.claim(view.id, view.started)
        recorder = Recorder(session.journal, view, session.deployer.observer)
        recorder.record(EventType.ROLLBACK_STARTED, data={"to": "the start", "whole": True})
        return _carry(session, recorder)


def _deployed(view: RunView, environment: str) -> bool:
    """A later deploy that changed something and stands."""
    return view.kind == "deploy" and view.environment == environment and any(s.stands for s in view.steps.values())


def adopt(session: Session) -> str:
    """Take the environment's record over from another journal. Returns what was there, for a person.

    The other journal's unfinished steps are in doubt: the next plan reads everything afresh. Its preimages are not
    at hand here, so what it had begun cannot be rolled back from here.
    """
    with lease(session.state, session.environment, "adopt", session.deployer.now.isoformat()):
        session.journal.verify()
        found = session.record.look()
        if found is None:
            return "there is no environment record yet: nothing to adopt"
        run = new_run_id(session)
        session.journal.append(EventType.ADOPTED, run, data=asdict(found))
        session.record.claim(run, session.deployer.now.isoformat(timespec="seconds"), adopt=True)
        session.record.release()
        return f"run {found.run} of journal {found.journal} ({found.holder}, since {found.since}, {found.state})"


def may_begin(session: Session) -> None:
    """Worth asking before a plan is made: RefusedError when `deploy` would refuse now whatever the plan."""
    refuse_if_held(session.state, session.environment)
    refuse_unfinished(session)
    session.record.refuse_if_held()


def refuse_unfinished(session: Session) -> None:
    """RefusedError when an earlier run of the environment is still open: it must be resumed first."""
    view = unfinished(runs(session.journal.events()), session.environment)
    if view:
        raise RefusedError(
            f"run {view.id} of {session.environment} is unfinished (since {view.started}).\n"
            f"  go on with it   runbook resume {session.environment}\n"
            f"  look at it      runbook show {view.id}"
        )


def unfinished(views: dict[str, RunView], environment: str) -> RunView | None:
    """The newest open run of an environment."""
    kinds = ("deploy", "drill")
    mine = [v for v in views.values() if v.kind in kinds and v.environment == environment and v.status.open]
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


def _carry(session: Session, recorder: Recorder, settled: Mapping[StepId, Settlement] | None = None) -> RunView:
    proofs = Proofs(session.journal.events())
    runner = StepRunner(session.deployer, recorder, session.record, proofs, settled or {})
    status = Executor(session.runbook, session.deployer, recorder, runner).run()
    if not status.open:
        session.record.release()
    return recorder.view


def run_started(session: Session, plan: Plan, kind: str) -> dict[str, object]:
    """What a run's first event holds: who, what, on which inputs, and the whole plan."""
    return {
        "kind": kind,
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
        "steps": [
            {"id": s.id, "phase": s.phase, "name": s.name, "action": s.action, "needs": list(s.needs)}
            for s in session.runbook.steps()
        ],
    }
