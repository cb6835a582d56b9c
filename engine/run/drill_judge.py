"""A drill's end: what was lost is counted, the times are compared with their targets, the sentinels are taken away."""

from __future__ import annotations

from dataclasses import replace

from engine.core.change import Outcome
from engine.core.drill import FAULT, LOSS, NOTICE, SENTINELS, Stage, Verdict, judge, loss, struck_at, times
from engine.core.history import RunStatus, RunView, StepStatus
from engine.run.drill_recover import unproved
from engine.run.drilling import BROKEN, STANDS, Drilling


def judge_drill(drilling: Drilling) -> RunView:
    """The verdict into the journal, and the run's last event. While the platform is not back the sentinels stay:
    whoever resumes judges again."""
    if not _judged(drilling):
        drilling.begin(LOSS)
        verdict = _verdict(drilling)
        drilling.outcome(LOSS, Outcome("; ".join(verdict.misses) or "all targets met", evidence=verdict.to_json()))
    evidence = drilling.view.steps[LOSS].evidence
    if not evidence["recovered"]:
        drilling.fail(LOSS, drilling.view.steps[LOSS].summary, "NotRecovered")
        return drilling.finish(RunStatus.FAILED, BROKEN)
    if not drilling.over(Stage.JUDGE):
        drilling.end(LOSS, StepStatus.CHANGED, drilling.clear_sentinels())
        drilling.close(Stage.JUDGE)
    return drilling.finish(*((RunStatus.FAILED, STANDS) if evidence["misses"] else (RunStatus.SUCCEEDED, 0)))


def _judged(drilling: Drilling) -> bool:
    """The loss is counted once, with the sentinels there: a judgement of a platform that was not back does not hold."""
    return bool(drilling.view.steps[LOSS].evidence.get("recovered"))


def _verdict(drilling: Drilling) -> Verdict:
    view, plan = drilling.view, drilling.plan
    acknowledged = drilling.log.sealed(view.steps[SENTINELS].evidence)
    found, events = drilling.read_sentinels(), drilling.events()
    lost = loss(acknowledged, found, struck_at(events), _backup_taken(drilling))
    noticed = bool(view.steps[NOTICE].evidence["noticed"])
    verdict = judge(lost, times(events), plan.targets, noticed=noticed, unproved=unproved(drilling))
    incomplete = view.steps[FAULT].evidence.get("incomplete")
    return replace(verdict, misses=(*verdict.misses, f"the fault: {incomplete}")) if incomplete else verdict


def _backup_taken(drilling: Drilling) -> str | None:
    """When the backup was made that the way back restored: its evidence says it as `taken`."""
    told = (drilling.view.steps[s.id].evidence.get("taken") for s in drilling.plan.recover)
    return next((str(taken) for taken in told if taken), None)
