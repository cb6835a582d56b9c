"""Runs over a world in memory: order, failure, rollback, refusal, deferral. The world counts what really happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.action import Finding
from engine.core.change import Fidelity, Verb
from engine.core.events import EventType
from engine.core.history import RunStatus, RunView, StepStatus, runs
from engine.core.model import OnFailure, Runbook, StepId
from engine.core.planning import PlanError
from engine.errors import PermanentError, RefusedError, TemporaryError
from engine.run.deploy import deploy, resume
from engine.run.planner import make_plan
from tests.fakes.runs import journal, runbook, session, step
from tests.fakes.world import World


def go(world: World, book: Runbook, tmp_path: Path) -> RunView:
    opened = session(world, book, tmp_path, journal(tmp_path / "journal.db"))
    view = deploy(opened, make_plan(opened))
    assert runs(opened.journal.events())[view.id] == view, "the view must be what the journal says"
    return view


def statuses(view: RunView) -> dict[str, str]:
    return {s.id.partition("/")[2]: s.status.value for s in view.steps.values()}


def test_a_deploy_and_a_second_one(tmp_path: Path) -> None:
    world = World()
    book = runbook(("one", [step("a"), step("b")]), ("two", [step("c", phase="two")]))
    first = go(world, book, tmp_path)
    assert (first.status, first.exit_code, first.savepoints) == (RunStatus.SUCCEEDED, 0, ["one", "two"])
    assert world.effects == [("set", "a"), ("set", "b"), ("set", "c")]
    second = go(world, book, tmp_path)
    assert set(statuses(second).values()) == {"unchanged"}
    assert len(world.effects) == 3


def test_a_failure_rolls_its_phase_back_in_reverse(tmp_path: Path) -> None:
    world = World(things={"b": "b-old"}, broken={"d": PermanentError("no such image")})
    book = runbook(
        ("one", [step("a")]), ("two", [step("b", phase="two"), step("c", phase="two"), step("d", phase="two")])
    )
    view = go(world, book, tmp_path)
    assert (view.status, view.exit_code, view.rollback_to) == (RunStatus.ROLLED_BACK, 1, "one")
    assert world.things == {"a": "a-new", "b": "b-old"}
    assert world.effects == [("set", n) for n in ("a", "b", "c", "c", "b")]
    assert statuses(view) == {"a": "changed", "b": "undone", "c": "undone", "d": "undone"}
    assert "no such image" in view.failure


def test_an_undo_that_fails_leaves_the_others_to_come_back(tmp_path: Path) -> None:
    world = World(broken={"c": PermanentError("no"), "undo b": PermanentError("")})
    view = go(world, runbook(("one", [step("a"), step("b"), step("c")])), tmp_path)
    assert (view.status, view.exit_code) == (RunStatus.ROLLBACK_INCOMPLETE, 3)
    assert world.things == {"b": "b-new"}
    assert view.steps[StepId("one/b")].undo_detail == "cannot be undone here"


def test_rollback_stops_at_a_barrier(tmp_path: Path) -> None:
    world = World(broken={"c": PermanentError("no")})
    book = runbook(("one", [step("a"), step("b", irreversible="the schema is migrated"), step("c")]))
    view = go(world, book, tmp_path)
    assert view.status is RunStatus.ROLLBACK_INCOMPLETE
    assert world.things == {"a": "a-new", "b": "b-new"}
    assert "the schema is migrated" in view.steps[StepId("one/b")].undo_detail


def test_a_barrier_that_had_no_effect_is_none(tmp_path: Path) -> None:
    world = World(broken={"b": PermanentError("syntax error")})
    book = runbook(("one", [step("a"), step("b", irreversible="the schema is migrated")]))
    view = go(world, book, tmp_path)
    assert (view.status, view.exit_code) == (RunStatus.ROLLED_BACK, 1)
    assert world.things == {}
    assert view.steps[StepId("one/b")].undo_detail == "failed before it had any effect"


def test_residue_stays(tmp_path: Path) -> None:
    world = World(broken={"b": PermanentError("no")})
    view = go(world, runbook(("one", [step("a", more={"residue": True}), step("b")])), tmp_path)
    assert view.status is RunStatus.ROLLED_BACK
    assert world.things == {"a": "a-new"}
    assert view.steps[StepId("one/a")].undo_detail == "kept a"


def test_what_a_sensitive_step_puts_out_is_kept_nowhere(tmp_path: Path) -> None:
    told: list[str] = []
    secret = step("a", sensitive=True, more={"value": "hunter2-hunter2"})
    world = World(broken={"b": PermanentError("it said hunter2-hunter2"), "undo a": PermanentError("hunter2-hunter2")})
    opened = session(world, runbook(("one", [secret, step("b", sensitive=True)])), tmp_path, journal(tmp_path / "j.db"))
    view = deploy(opened, make_plan(opened))
    assert view.status is RunStatus.ROLLBACK_INCOMPLETE
    kinds = {e.type: str(e.data) for e in opened.journal.events()}
    assert "'outputs': {}" in kinds[EventType.OUTCOME]
    assert "its words are not kept" in kinds[EventType.STEP_FAILED]
    assert "its words are not kept" in kinds[EventType.UNDO_FAILED]
    assert not [k for k in (EventType.OUTCOME, EventType.STEP_FAILED, EventType.UNDO_FAILED) if "hunter2" in kinds[k]]
    observer = SimpleNamespace(progress=lambda _step, line: told.append(line))
    parts = replace(opened.deployer, observer=observer)
    resolved = parts.resolver.resolve(secret, {})
    parts.context(secret, resolved).progress("hunter2")
    assert told == []
    parts.context(step("c"), resolved).progress("seen")
    assert told == ["seen"]


def test_on_failure_stop_leaves_all_as_it_is(tmp_path: Path) -> None:
    world = World(broken={"b": PermanentError("no")})
    book = runbook(("one", [step("a"), step("b", on_failure=OnFailure.STOP)]))
    view = go(world, book, tmp_path)
    assert (view.status, view.exit_code) == (RunStatus.FAILED, 5)
    assert world.things == {"a": "a-new"}


def test_a_passing_trouble_is_tried_again(tmp_path: Path) -> None:
    world = World(broken={"a": TemporaryError("429")})
    view = go(world, runbook(("one", [step("a", delay=timedelta(0))])), tmp_path)
    assert view.status is RunStatus.SUCCEEDED


def test_a_moved_target_is_refused_and_not_touched(tmp_path: Path) -> None:
    world = World(things={"b": "b-old"})
    opened = session(
        world, runbook(("one", [step("a"), step("b"), step("c")])), tmp_path, journal(tmp_path / "journal.db")
    )
    plan = make_plan(opened)
    world.things["b"] = "b-moved"
    view = deploy(opened, plan)
    assert (view.status, view.exit_code) == (RunStatus.REFUSED, 4)
    assert world.things == {"b": "b-moved"}
    assert ("set", "b") not in world.effects
    assert ("set", "c") not in world.effects
    assert "b: planned" in view.failure


def test_a_failed_check_fails_the_step(tmp_path: Path) -> None:
    world = World()
    book = runbook(("one", [step("a", params={"name": "a", "value": "v", "check": True})]))
    assert go(world, book, tmp_path).steps[StepId("one/a")].checks["thing name=a is=v"].ok


def test_deferred_steps_are_planned_in_their_turn(tmp_path: Path) -> None:
    world = World()
    book = runbook(("one", [step("a"), step("b", more={"needs": "a"})]))
    opened = session(world, book, tmp_path, journal(tmp_path / "journal.db"))
    plan = make_plan(opened)
    assert plan.changes[StepId("one/b")].fidelity is Fidelity.DEFERRED
    view = deploy(opened, plan)
    assert view.status is RunStatus.SUCCEEDED
    change = view.steps[StepId("one/b")].change
    assert change is not None
    assert (change.verb, change.fidelity) == (Verb.CREATE, Fidelity.EXACT)
    assert EventType.ADDENDUM in {e.type for e in opened.journal.events()}


def test_what_nothing_creates_is_no_deferral(tmp_path: Path) -> None:
    world = World(things={"a": "a-new"})
    book = runbook(("one", [step("a"), step("b", more={"needs": "x"})]))
    with pytest.raises(PlanError, match="one/b: x does not exist yet, and no earlier step changes that"):
        go(world, book, tmp_path)


def test_registered_values_reach_later_steps(tmp_path: Path) -> None:
    world = World()
    book = runbook(("one", [step("a", register="first"), step("b", more={"wants": "first"})]))
    assert go(world, book, tmp_path).status is RunStatus.SUCCEEDED


def test_skipped_steps_are_shown_as_such(tmp_path: Path) -> None:
    world = World()
    view = go(world, runbook(("one", [step("a", when="never"), step("b")])), tmp_path)
    assert statuses(view) == {"a": "skipped", "b": "changed"}
    assert view.steps[StepId("one/a")].reason == "when: never"


@pytest.mark.parametrize("fresh", [None, timedelta(hours=1)])
def test_events_happen_once_per_run_or_once_per_window(tmp_path: Path, fresh: timedelta | None) -> None:
    world = World()
    book = runbook(("one", [step("e", "once", fresh=fresh)]))
    go(world, book, tmp_path)
    go(world, book, tmp_path)
    assert len(world.effects) == (2 if fresh is None else 1)


def test_parallel_steps_all_run_and_dependents_wait(tmp_path: Path) -> None:
    world = World()
    free = [step(n) for n in ("a", "b", "c", "d")]
    last = step("z", needs=[f"one/{n}" for n in ("a", "b", "c", "d")])
    book = runbook(("one", [*_unchained(free), last]))
    go(world, book, tmp_path)
    assert world.effects[-1] == ("set", "z")
    assert sorted(world.effects[:4]) == [("set", n) for n in ("a", "b", "c", "d")]


def _unchained(steps: Sequence[object]) -> Sequence[object]:
    return steps


def test_an_unfinished_run_is_not_passed_over(tmp_path: Path) -> None:
    world = World()
    book = runbook(("one", [step("a")]))
    opened = session(world, book, tmp_path, journal(tmp_path / "journal.db"))
    opened.deployer.cancelled.set()
    assert deploy(opened, make_plan(opened)).status is RunStatus.STOPPED
    with pytest.raises(RefusedError, match="runbook resume test"):
        deploy(opened, make_plan(opened))


def test_a_stopped_run_leaves_steps_pending(tmp_path: Path) -> None:
    world = World()
    opened = session(world, runbook(("one", [step("a")])), tmp_path, journal(tmp_path / "journal.db"))
    opened.deployer.cancelled.set()
    view = deploy(opened, make_plan(opened))
    assert view.steps[StepId("one/a")].status is StepStatus.PENDING
    assert view.exit_code == 130
    assert world.effects == []


def test_what_is_begun_is_finished_when_the_user_asks_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    opened = session(world, runbook(("one", [step("a"), step("b")])), tmp_path, journal(tmp_path / "journal.db"))
    action = opened.deployer.actions["thing"]
    apply = action.apply

    def asked_meanwhile(params: Any, change: Any, ctx: Any) -> Any:
        opened.deployer.cancelled.set()
        ctx.deadline.check("in the middle of it")
        return apply(params, change, ctx)

    monkeypatch.setattr(action, "apply", asked_meanwhile)
    view = deploy(opened, make_plan(opened))
    assert view.status is RunStatus.STOPPED
    assert world.effects == [("set", "a")]
    assert not view.steps[StepId("one/a")].open_intent


def test_a_check_that_is_waited_for_is_no_failure_when_the_user_asks_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    params = {"name": "a", "value": "v", "check": True}
    book = runbook(("one", [step("a", params=params)]))
    opened = session(world, book, tmp_path, journal(tmp_path / "journal.db"))
    plan = make_plan(opened)
    check = opened.deployer.checks["thing"]

    def not_yet(params: Any, ctx: Any) -> Finding:
        opened.deployer.cancelled.set()
        return Finding(False, "not yet")

    monkeypatch.setattr(check, "run", not_yet)
    view = deploy(opened, plan)
    assert (view.status, view.failure) == (RunStatus.STOPPED, "")
    opened.deployer.cancelled.clear()
    monkeypatch.undo()
    assert resume(opened, view).status is RunStatus.SUCCEEDED
    assert world.effects == [("set", "a")]


@pytest.mark.parametrize(
    ("answer", "code", "things"), [(True, 1, {}), (False, 5, {"a": "a-new"}), (None, 5, {"a": "a-new"})]
)
def test_on_failure_ask(tmp_path: Path, answer: bool | None, code: int, things: dict[str, str]) -> None:
    world = World(broken={"b": PermanentError("no")})
    book = runbook(("one", [step("a"), step("b", on_failure=OnFailure.ASK)]))
    opened = session(world, book, tmp_path, journal(tmp_path / "journal.db"))
    asked: list[str] = []

    def ask(question: str) -> bool | None:
        asked.append(question)
        return answer

    opened = replace(opened, deployer=replace(opened.deployer, ask=ask))
    view = deploy(opened, make_plan(opened))
    assert (view.exit_code, world.things) == (code, things)
    assert asked == ["one/b failed. Roll its phase back? Type yes or no, then Enter"]
