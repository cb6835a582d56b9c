"""A step that cannot tell whether it happened: the run stays open until a person has looked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.core.action import Context
from engine.core.change import Reading
from engine.core.history import RunStatus, runs
from engine.core.model import StepId
from engine.errors import InDoubtError
from engine.run.deploy import deploy, resume, unfinished
from engine.run.planner import make_plan
from engine.run.steps import Settlement
from tests.fakes.runs import Crash, journal, runbook, session, step
from tests.fakes.world import OnceAction, World

BOOK = runbook(("one", [step("a"), step("e", "once"), step("b")]))
E = StepId("one/e")


class BlindAction(OnceAction):
    """Leaves no evidence anywhere."""

    def read(self, params: Mapping[str, Any], ctx: Context) -> Reading:
        if ctx.resuming:
            raise InDoubtError(f"{ctx.step}: nobody can tell")
        return Reading({k: type(v)() for k, v in super().read(params, ctx).state.items()})


def opened(world: World, path: Path, at: int = 0) -> Any:
    made = session(world, BOOK, path, journal(path / "journal.db", at=at))
    made.deployer.actions["once"] = BlindAction(world)
    return made


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The run died between e's effect and its outcome."""
    world = World()
    whole = opened(World(), tmp_path / "whole")
    deploy(whole, make_plan(whole))
    kinds = [(e.type.value, e.step) for e in whole.journal.events()]
    dying = opened(world, tmp_path, at=kinds.index(("outcome", E)) + 1)
    with pytest.raises(Crash):
        deploy(dying, make_plan(dying))
    assert world.effects == [("set", "a"), ("once", next(iter(world.events)))]
    return world


def open_run(made: Any) -> Any:
    return unfinished(runs(made.journal.events()), "test")


def test_resume_refuses_and_the_run_stays_open(world: World, tmp_path: Path) -> None:
    made = opened(world, tmp_path)
    with pytest.raises(InDoubtError, match="nobody can tell") as doubt:
        resume(made, open_run(made))
    assert doubt.value.exit_code == 4
    assert ("set", "b") not in world.effects
    assert open_run(made).steps[E].open_intent


@pytest.mark.parametrize(("word", "times"), [(Settlement.DONE, 1), (Settlement.AGAIN, 2)])
def test_a_persons_word_settles_it(world: World, tmp_path: Path, word: Settlement, times: int) -> None:
    made = opened(world, tmp_path)
    world.events.clear()
    view = resume(made, open_run(made), {E: word})
    assert view.status is RunStatus.SUCCEEDED
    assert sum(kind == "once" for kind, _ in world.effects) == times
    assert ("set", "b") in world.effects
