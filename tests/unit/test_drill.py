"""A drill over a database in memory: what it loses and how it comes back, and from where a killed one goes on."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.core.drill import FAULT, LOSS, NOTICE, SENTINELS, Drill, Stage
from engine.core.events import EventType
from engine.core.history import RunStatus, RunView, StepStatus, runs
from engine.errors import PermanentError, RefusedError, TemporaryError
from engine.run.deploy import deploy, unfinished
from engine.run.drill import broken, drill, later_deploys, resume_drill
from engine.run.planner import make_plan
from tests.fakes.drills import DATABASE, DRILL, SERVICE, Database, journal, session, step
from tests.fakes.runs import Crash


def opened(world: Database, tmp_path: Path, plan: Drill = DRILL, **options: Any):
    allowed = options.pop("allowed", True)
    kept = journal(tmp_path / "journal.db", **options)
    return session(world, tmp_path, kept, plan, allowed=allowed)


def go(world: Database, tmp_path: Path, plan: Drill = DRILL) -> RunView:
    made = opened(world, tmp_path, plan)
    view = drill(made, plan, go=True)
    assert runs(made.journal.events())[view.id] == view, "the view must be what the journal says"
    return view


def lost(world: Database) -> list[int]:
    """The world's own count: what was there at the blow and is not in the dump that was restored."""
    return sorted(world.struck[0].keys() - world.dumps[-1][1].keys())


def acknowledged(tmp_path: Path, view: RunView) -> set[int]:
    from engine.run.sentinels import SentinelLog

    return {a.number for a in SentinelLog.of(tmp_path, view.id).read()}


def test_a_drill_counts_what_is_lost_and_how_long_it_takes(tmp_path: Path) -> None:
    world = Database()
    view = go(world, tmp_path)
    evidence = view.steps[LOSS].evidence
    assert (view.status, view.exit_code) == (RunStatus.SUCCEEDED, 0)
    assert evidence["absent"] == [n for n in lost(world) if n in acknowledged(tmp_path, view)]
    assert evidence["lost"] > 0
    assert evidence["acknowledged"] == len(acknowledged(tmp_path, view))
    assert evidence["measured_by"] == "sentinels"
    parts = [evidence[f"{part}_seconds"] for part in ("detect", "decide", "act", "verify")]
    assert sum(parts) == pytest.approx(evidence["rto_seconds"])
    assert evidence["noticed"]
    assert view.steps[NOTICE].summary.startswith("base/db: check thing")
    assert world.up
    assert world.rows is None
    assert view.finished_phases == [s.value for s in (Stage.BREAK, Stage.WRITE, *list(Stage)[2:])]
    made = opened(world, tmp_path)
    assert deploy(made, make_plan(made)).exit_code == 0
    assert world.effects.count(("set", DATABASE)) == 2, "down by the fault, up by the recovery, and no more"


def test_a_target_that_is_missed_is_exit_1_and_the_platform_stands(tmp_path: Path) -> None:
    world = Database()
    view = go(world, tmp_path, replace(DRILL, targets=replace(DRILL.targets, rpo=timedelta())))
    assert (view.status, view.exit_code) == (RunStatus.FAILED, 1)
    assert view.steps[LOSS].summary.startswith("lost 0.")
    assert world.up


def test_sentinels_go_on_while_prepare_is_longer_than_their_steps_timeout(tmp_path: Path) -> None:
    world = Database()

    def slowly() -> None:
        deadline, before = time.monotonic() + 10, len(world.rows or ())
        while len(world.rows or ()) < before + 30 and time.monotonic() < deadline:
            time.sleep(0.01)

    world.slow = slowly
    brief = replace(DRILL, sentinels=replace(DRILL.sentinels, timeout=timedelta(seconds=0.1)))
    view = go(world, tmp_path, brief)
    assert view.exit_code == 0
    assert view.steps[SENTINELS].evidence["acknowledged"] > 30


# --- Refused, with nothing broken -------------------------------------------------------------------------------------


def refused(world: Database, tmp_path: Path, plan: Drill, match: str, **options: Any) -> None:
    made = opened(world, tmp_path, plan, **options)
    with pytest.raises(RefusedError, match=match) as error:
        drill(made, plan, go=True)
    assert error.value.exit_code == 4
    assert world.effects == []
    assert made.journal.events() == []


def test_where_drills_are_not_allowed(tmp_path: Path) -> None:
    refused(Database(), tmp_path, DRILL, "does not allow them", allowed=False)


def test_on_a_platform_that_is_not_whole(tmp_path: Path) -> None:
    world = Database()
    checked = step("base/db", "thing", params={"name": DATABASE, "value": "db-newer", "check": True})
    made = opened(world, tmp_path)
    made = replace(made, runbook=replace(made.runbook, phases=(replace(made.runbook.phases[0], steps=(checked,)),)))
    with pytest.raises(RefusedError, match="not whole") as error:
        drill(made, DRILL, go=True)
    assert "db is db-new" in str(error.value)
    assert world.effects == []


def test_without_anything_to_restore(tmp_path: Path) -> None:
    refused(Database(), tmp_path, replace(DRILL, prepare=()), "act/load cannot be planned.*no proven backup")


def test_what_prepare_did_not_bring_is_refused_before_the_fault(tmp_path: Path) -> None:
    world = Database()
    useless = replace(DRILL, prepare=(step("write/other", "once"),))
    view = go(world, tmp_path, useless)
    assert (view.status, view.exit_code) == (RunStatus.ABANDONED, 4)
    assert "no proven backup" in view.failure
    assert view.failed_step == FAULT
    assert world.struck == []
    assert world.rows is None


def test_a_mistake_in_the_way_back_is_found_before(tmp_path: Path) -> None:
    needs = step("act/more", "thing", params={"name": "more", "value": "x", "needs": "nothing brings it"})
    refused(Database(dumps=[("", {})]), tmp_path, replace(DRILL, prepare=(), recover=(needs,)), "nothing brings it")


# --- Half a fault, and none -------------------------------------------------------------------------------------------


def test_a_fault_that_did_nothing_breaks_nothing_and_restores_nothing(tmp_path: Path) -> None:
    world = Database(broken={"fault": PermanentError("may not delete")})
    view = go(world, tmp_path)
    assert (view.status, view.exit_code) == (RunStatus.ABANDONED, 1)
    assert "may not delete" in view.failure
    assert world.struck == []
    assert not [e for e in world.events if e.endswith("act/load")]


def test_half_a_fault_needs_the_way_back_all_the_same(tmp_path: Path) -> None:
    world = Database(broken={"half a fault": TemporaryError("waiting until it is gone: the deadline passed")})
    view = go(world, tmp_path)
    assert (view.status, view.exit_code) == (RunStatus.FAILED, 1)
    assert view.steps[LOSS].evidence["misses"] == ["the fault: waiting until it is gone: the deadline passed"]
    assert view.steps[FAULT].summary.startswith("begun, but not as written")
    assert world.up


def test_a_look_that_the_deadline_cuts_short_is_no_notice(tmp_path: Path) -> None:
    world = Database()
    made = opened(world, tmp_path)
    check = made.deployer.checks["thing"]
    look = check.run

    def hanging(params: Any, ctx: Any):
        if world.struck and len(world.effects) == 2:  # the blow has fallen, nothing is recovered
            time.sleep(ctx.deadline.remaining() + 0.01)
        return look(params, ctx)

    check.run = hanging  # type: ignore[method-assign]
    view = drill(made, replace(DRILL, within=timedelta(seconds=0.2)), go=True)
    assert view.exit_code == 1
    assert not view.steps[LOSS].evidence["noticed"]
    assert "no check noticed within 0 s; the last look was cut short at base/db" in view.steps[NOTICE].summary


# --- Not back ---------------------------------------------------------------------------------------------------------


def test_without_the_word_it_stays_open_and_resume_asks(tmp_path: Path) -> None:
    world = Database()
    view = drill(opened(world, tmp_path), DRILL)
    assert (view.status, view.exit_code) == (RunStatus.STOPPED, 5)
    assert not world.up
    made = opened(world, tmp_path)
    found = unfinished(runs(made.journal.events()), "test")
    assert found is not None
    with pytest.raises(RefusedError, match="unfinished"):
        deploy(made, make_plan(made))
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return True

    made = replace(made, deployer=replace(made.deployer, ask=ask))
    view = resume_drill(made, DRILL, found)
    assert view.exit_code == 0
    assert asked == ["The volume is lost: test is down. Begin the recovery? Type yes or no, then Enter"]


def test_one_that_could_not_recover_is_taken_up_and_judged_again(tmp_path: Path) -> None:
    world = Database(broken={"load": PermanentError("the bucket is gone")})
    view = go(world, tmp_path)
    assert (view.status, view.exit_code, view.failed_step) == (RunStatus.FAILED, 5, "act/load")
    made = opened(world, tmp_path)
    views = runs(made.journal.events())
    assert broken(views, "test") == view
    assert broken(views, "elsewhere") is None
    again = resume_drill(made, DRILL, views[view.id])
    assert (again.status, again.exit_code, again.failure) == (RunStatus.SUCCEEDED, 0, "")
    assert again.steps[LOSS].evidence["absent"] == [n for n in lost(world) if n in acknowledged(tmp_path, view)]
    assert not any(s.error for s in again.steps.values())
    assert broken(runs(made.journal.events()), "test") is None


def test_a_proof_that_does_not_pass_keeps_the_sentinels_until_it_does(tmp_path: Path) -> None:
    world = Database()
    made = opened(world, tmp_path)
    look = made.deployer.checks["thing"].run
    made.deployer.checks["thing"].run = lambda params, ctx: (  # type: ignore[method-assign]
        replace(look(params, ctx), ok=False, saw="not yet") if ctx.step.startswith("verify/") else look(params, ctx)
    )
    view = drill(made, DRILL, go=True)
    assert (view.status, view.exit_code) == (RunStatus.FAILED, 5)
    assert not view.steps[LOSS].evidence["recovered"]
    assert "not within the 1 s that `verify` gives it" in view.failure
    assert world.rows, "without them nothing could be counted any more"
    made = opened(world, tmp_path)
    again = resume_drill(made, DRILL, runs(made.journal.events())[view.id])
    assert again.exit_code == 0
    assert again.steps[LOSS].evidence["lost"] == len([n for n in lost(world) if n in acknowledged(tmp_path, view)])
    assert world.rows is None


def test_a_later_deploy_is_known(tmp_path: Path) -> None:
    world = Database(broken={"load": PermanentError("the bucket is gone")})
    view = go(world, tmp_path)
    made = opened(world, tmp_path)
    after = deploy(made, make_plan(made))
    views = runs(made.journal.events())
    found = broken(views, "test")
    assert found is not None
    assert found.id == view.id
    assert [v.id for v in later_deploys(views, found)] == [after.id]


# --- Killed at every event --------------------------------------------------------------------------------------------


def whole(tmp_path: Path) -> list[tuple[str, str]]:
    made = opened(Database(), tmp_path / "whole")
    drill(made, DRILL, go=True)
    return [(e.type.value, e.step) for e in made.journal.events()]


def test_killed_before_and_after_every_event_it_goes_on_where_it_was(tmp_path: Path) -> None:
    told = whole(tmp_path)
    intent = told.index(("intent", FAULT)) + 1
    assert len(told) > 30
    for at in range(1, len(told) + 1):
        for after in (False, True):
            place = tmp_path / f"{at}-{after}"
            place.mkdir()
            killed(place, at, after=after, written=at if after else at - 1, intent=intent)


def killed(place: Path, at: int, *, after: bool, written: int, intent: int) -> None:
    world = Database()
    with pytest.raises(Crash):
        drill(opened(world, place, at=at, after=after), DRILL, go=True)
    if written < intent:
        assert world.struck == [], f"{at}: broken before it was written down"
    made = opened(world, place)
    views = runs(made.journal.events())
    view = unfinished(views, "test")
    if view is None:
        assert written == 0 or next(iter(views.values())).finished, at
        return
    done = resume_drill(made, DRILL, view)
    assert runs(made.journal.events())[view.id] == done, at
    assert world.up
    assert world.rows is None, f"{at}: sentinels are left"
    if not world.struck:
        assert (done.status, done.exit_code) == (RunStatus.ABANDONED, 1), at
        assert [e for e in world.events if e.endswith("act/load")] == [], at
        return
    assert (done.status, done.exit_code) == (RunStatus.SUCCEEDED, 0), at
    evidence = done.steps[LOSS].evidence
    assert evidence["absent"] == [n for n in lost(world) if n in acknowledged(place, done)], at
    assert evidence["acknowledged"] == len(acknowledged(place, done)) > 0, at
    assert len(world.struck) == 1, f"{at}: struck twice"
    assert sum(kind == "once" and key.endswith("act/load") for kind, key in world.effects) == 1, at
    assert world.effects.count(("set", DATABASE)) == 2, f"{at}: once down, once up"
    assert evidence["rto_seconds"] == pytest.approx(
        sum(evidence[f"{part}_seconds"] for part in ("detect", "decide", "act", "verify"))
    ), at
    stages = [e.data["phase"] for e in made.journal.events(view.id) if e.type is EventType.PHASE_FINISHED]
    assert len(stages) == len(set(stages)) == len(Stage), at
    assert all(s.status is not StepStatus.RUNNING for s in done.steps.values()), at


def test_killed_between_the_blow_and_its_outcome_it_is_not_struck_again(tmp_path: Path) -> None:
    told = whole(tmp_path)
    world = Database()
    with pytest.raises(Crash):
        drill(opened(world, tmp_path, at=told.index(("outcome", FAULT)) + 1), DRILL, go=True)
    assert len(world.struck) == 1
    made = opened(world, tmp_path)
    view = resume_drill(made, DRILL, runs(made.journal.events()).popitem()[1])
    assert view.exit_code == 0
    assert len(world.struck) == 1
    assert SERVICE.id in view.steps
