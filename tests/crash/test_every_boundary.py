"""Die before and after every journal write, resume, and compare with the run nobody disturbed.

The world counts effects on its own; an event may happen exactly once.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from engine.core.history import RunStatus, runs
from engine.core.model import Runbook
from engine.errors import PermanentError
from engine.run.deploy import deploy, resume, unfinished
from engine.run.planner import make_plan
from tests.fakes.runs import Crash, journal, runbook, session, step
from tests.fakes.world import World

BOOK = runbook(
    ("one", [step("a"), step("b"), step("e", "once")]),
    ("two", [step("c", phase="two"), step("f", "once", phase="two"), step("d", phase="two", more={"needs": "c"})]),
)


def crash(world: World, book: Runbook, tmp_path: Path, at: int, *, after: bool) -> bool:
    """Deploy with a death at the n-th write. False: the run has fewer writes."""
    opened = session(world, book, tmp_path, journal(tmp_path / "journal.db", at=at, after=after))
    try:
        deploy(opened, make_plan(opened))
    except Crash:
        return True
    finally:
        opened.journal.close()
    return False


def recover(world: World, book: Runbook, tmp_path: Path, *, dies: tuple[int, bool] | None = None) -> RunStatus | None:
    """Resume what is unfinished, deploy when nothing had begun. None: this resume died too, or all was done."""
    at, after = dies or (0, False)
    opened = session(world, book, tmp_path, journal(tmp_path / "journal.db", at=at, after=after))
    view = unfinished(runs(opened.journal.events()), "test")
    try:
        if view is None:
            return deploy(opened, make_plan(opened)).status if not opened.journal.head[0] else None
        return resume(opened, view).status
    except Crash:
        return None
    finally:
        opened.journal.close()


def boundaries(tmp_path: Path, book: Runbook, world: World) -> int:
    crash(world, book, tmp_path, 10_000, after=False)
    kept = journal(tmp_path / "journal.db")
    return kept.head[0]


@pytest.mark.parametrize("after", [False, True])
def test_deploy(tmp_path: Path, after: bool) -> None:
    undisturbed = World()
    total = boundaries(tmp_path / "whole", BOOK, undisturbed)
    assert total >= 29
    for at in range(1, total + 1):
        world, state = World(), tmp_path / f"{at}"
        assert crash(world, BOOK, state, at, after=after)
        status = recover(world, BOOK, state)
        assert status is (None if (at, after) == (total, True) else RunStatus.SUCCEEDED), f"write {at}"
        assert world.things == undisturbed.things, f"write {at}"
        events = Counter(step for kind, step in world.effects if kind == "once")
        assert set(events.values()) == {1}, f"write {at}: {events}"


@pytest.mark.parametrize("after", [False, True])
def test_rollback(tmp_path: Path, after: bool) -> None:
    def broken() -> World:
        return World(things={"b": "b-old"}, broken={"d": PermanentError("no such image")})

    book = runbook(("one", [step("a"), step("b"), step("c"), step("d")]))
    whole = broken()
    total = boundaries(tmp_path / "whole", book, whole)
    assert whole.things == {"b": "b-old"}
    for at in range(1, total + 1):
        world, state = broken(), tmp_path / f"{at}"
        assert crash(world, book, state, at, after=after)
        status = recover(world, book, state)
        assert status is (None if (at, after) == (total, True) else RunStatus.ROLLED_BACK), f"write {at}"
        assert world.things == whole.things, f"write {at}"


def test_resume_itself_dies(tmp_path: Path) -> None:
    whole = World()
    total = boundaries(tmp_path / "whole", BOOK, whole)
    for at in range(3, total, 5):
        for again in range(1, 12, 2):
            world, state = World(), tmp_path / f"{at}-{again}"
            crash(world, BOOK, state, at, after=True)
            recover(world, BOOK, state, dies=(again, True))
            recover(world, BOOK, state)
            assert world.things == whole.things, f"write {at}, then {again}"
            events = Counter(step for kind, step in world.effects if kind == "once")
            assert set(events.values()) == {1}, f"write {at}, then {again}: {events}"
