"""Beginning a drill and taking one up again: each stage is in the journal, and goes on where it was.

Until the fault's intent is on disk nothing is broken. From then on every end leads on to the recovery.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from engine.core.action import Deadline
from engine.core.drill import FAULT, GO, LOSS, NOTICE, SENTINELS, TITLES, Drill, Stage
from engine.core.events import EventType
from engine.core.history import RunStatus, RunView
from engine.core.model import StepId
from engine.errors import CancelledError, InDoubtError, RunbookError
from engine.run.checking import Proofs
from engine.run.deploy import ORPHAN_SECONDS, new_run_id, refuse_unfinished
from engine.run.drill_break import break_platform, seal_sentinels
from engine.run.drill_judge import judge_drill
from engine.run.drill_recover import UndecidedError, act, decide, detect, verify
from engine.run.drilling import BROKEN, Drilling, proving
from engine.run.lease import holder, lease
from engine.run.recorder import Recorder
from engine.run.rehearsal import rehearse
from engine.run.session import Session
from engine.run.steps import Settlement, StepRunner

_STAGES = ((Stage.DETECT, detect), (Stage.DECIDE, decide), (Stage.ACT, act), (Stage.VERIFY, verify))


def drill(session: Session, plan: Drill, *, go: bool = False) -> RunView:
    """Carry a drill out. `go`: the decision to recover is given already, nobody is asked.

    RefusedError (exit 4), with nothing broken, when the environment does not allow drills, is held or has an
    unfinished run, or when the drill does not find the platform whole and its way back plannable.
    """
    run, since = new_run_id(session), session.deployer.now.isoformat(timespec="seconds")
    with lease(session.state, session.environment, run, since):
        session.journal.verify()
        refuse_unfinished(session)
        session.record.refuse_if_held()
        rehearse(session, plan)
        session.record.claim(run, since)
        session.bind(run)
        recorder = Recorder(session.journal, RunView(run), session.deployer.observer)
        recorder.record(EventType.RUN_STARTED, data=_started(session, plan, go))
        runner = StepRunner(session.deployer, recorder, session.record, Proofs())
        return _carry(Drilling(session, plan, recorder, runner, go), taken_up=False)


def resume_drill(
    session: Session,
    plan: Drill,
    view: RunView,
    *,
    go: bool = False,
    settled: Mapping[StepId, Settlement] | None = None,
) -> RunView:
    """Go on with a drill that was stopped, killed, or could not recover. `session` was opened on its kept inputs.

    One that was ended before its fault is only cleared up.
    """
    with lease(session.state, session.environment, view.id, view.started):
        session.journal.verify()
        session.launcher.wait_for_orphans(Deadline(ORPHAN_SECONDS, session.deployer.cancelled))
        session.record.claim(view.id, view.started)
        recorder = Recorder(session.journal, view, session.deployer.observer)
        recorder.record(EventType.RESUMED, data={"holder": holder(), "pid": os.getpid()})
        runner = StepRunner(session.deployer, recorder, session.record, Proofs(), settled or {})
        drilling = Drilling(session, plan, recorder, runner, go or bool(view.drill.get("go")))
        return _carry(drilling, taken_up=True)


def broken(views: Mapping[str, RunView], environment: str) -> RunView | None:
    """The environment's newest drill, when the platform did not come back from it."""
    drills = [v for v in views.values() if v.kind == "drill" and v.environment == environment]
    return drills[-1] if drills and drills[-1].broken else None


def later_deploys(views: Mapping[str, RunView], view: RunView) -> list[RunView]:
    """Deploys of the same environment after a run: what they made a recovery may undo."""
    known = list(views.values())
    newer = known[known.index(view) + 1 :]
    return [v for v in newer if v.kind == "deploy" and v.environment == view.environment]


def _carry(drilling: Drilling, *, taken_up: bool) -> RunView:
    """Go on from wherever the journal says the drill is. The run's last event is written here."""
    try:
        if not drilling.over(Stage.BREAK) and not break_platform(drilling, taken_up=taken_up):
            return drilling.view
        seal_sentinels(drilling)
        for stage, work in _STAGES:
            if not drilling.over(stage):
                work(drilling)
        return judge_drill(drilling)
    except CancelledError:
        return drilling.finish(RunStatus.STOPPED, 130)
    except UndecidedError:
        return drilling.finish(RunStatus.STOPPED, BROKEN)
    except InDoubtError:
        raise  # the run stays open until a person has looked
    except RunbookError as error:
        drilling.fail_begun(error, LOSS)
        return drilling.finish(RunStatus.FAILED, BROKEN)


def _started(session: Session, plan: Drill, go: bool) -> dict[str, object]:
    steps = [
        (SENTINELS, Stage.WRITE, "Sentinels", plan.sentinels.action),
        *((s.id, Stage.WRITE, s.name, s.action) for s in plan.prepare),
        (FAULT, Stage.BREAK, plan.fault.name, plan.fault.action),
        (NOTICE, Stage.DETECT, "The checks notice", "check"),
        (GO, Stage.DECIDE, "The word to recover", "approval"),
        *((s.id, Stage.ACT, s.name, s.action) for s in plan.recover),
        *((proving(s), Stage.VERIFY, session.runbook.step(s).name, "check") for s in plan.verify),
        (LOSS, Stage.JUDGE, "What was lost, how long it took", "judge"),
    ]
    return {
        "kind": "drill",
        "drill": {"id": plan.id, "title": plan.title, "targets": plan.targets.to_json(), "go": go, "by": holder()},
        "environment": session.environment,
        "runbook": session.runbook.name,
        "title": session.runbook.title,
        "holder": holder(),
        "pid": os.getpid(),
        "now": session.deployer.now.isoformat(),
        "inputs": session.inputs,
        "variables": session.variables,
        "target": session.target,
        "left_out": {},
        "plan": "",
        "changes": [],
        "phases": [[stage.value, title] for stage, title in TITLES.items()],
        "steps": [{"id": i, "phase": p.value, "name": n, "action": a, "needs": []} for i, p, n, a in steps],
    }
