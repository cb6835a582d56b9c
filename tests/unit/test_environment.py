"""One run at a time on a cluster, whatever journal it writes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.core.events import EventType
from engine.core.history import RunStatus, StepStatus
from engine.core.model import StepId
from engine.errors import RefusedError
from engine.run.deploy import adopt, deploy, resume, rollback_run
from engine.run.environment import EnvironmentRecord
from engine.run.planner import make_plan
from tests.fakes.cluster import RecordCluster
from tests.fakes.runs import Crash, journal, runbook, session, step
from tests.fakes.world import World

BOOK = runbook(("one", [step("a"), step("b")]))


def open_at(path: Path, cluster: RecordCluster, world: World, **crash: Any) -> Any:
    return session(world, BOOK, path, journal(path / "journal.db", **crash), cluster)


def test_each_effect_is_preceded_by_a_swap_and_the_end_frees_it(tmp_path: Path) -> None:
    cluster = RecordCluster()
    opened = open_at(tmp_path, cluster, World())
    deploy(opened, make_plan(opened))
    assert cluster.swaps == 1 + 2 + 1  # claim, two applies, release
    record = opened.record.look()
    assert record is not None
    assert record.state == "idle"
    assert opened.journal.hash_at(int(record.sequence)) == record.head


def test_another_journal_is_refused_while_one_holds(tmp_path: Path) -> None:
    cluster, world = RecordCluster(), World()
    mine = open_at(tmp_path / "mine", cluster, world, at=5)
    with pytest.raises(Crash):
        deploy(mine, make_plan(mine))
    other = open_at(tmp_path / "other", cluster, world)
    with pytest.raises(RefusedError, match="held by run") as refused:
        deploy(other, make_plan(other))
    assert refused.value.exit_code == 4
    assert "runbook adopt test" in str(refused.value)
    assert other.journal.head[0] == 0, "a refused run leaves no trace"


def test_an_idle_environment_is_free_for_any_journal(tmp_path: Path) -> None:
    cluster, world = RecordCluster(), World()
    for name in ("mine", "other", "mine"):
        opened = open_at(tmp_path / name, cluster, world)
        assert deploy(opened, make_plan(opened)).status is RunStatus.SUCCEEDED


def test_adopt_takes_over_and_the_old_holder_is_fenced(tmp_path: Path) -> None:
    cluster, world = RecordCluster(), World()
    mine = open_at(tmp_path / "mine", cluster, world, at=5)
    with pytest.raises(Crash):
        deploy(mine, make_plan(mine))
    other = open_at(tmp_path / "other", cluster, world)
    assert "run" in adopt(other)
    assert deploy(other, make_plan(other)).status is RunStatus.SUCCEEDED
    effects = list(world.effects)
    again = open_at(tmp_path / "mine", cluster, world)
    view = next(iter(_runs(again)))
    with pytest.raises(RefusedError):
        resume(_held_by(again, cluster, tmp_path), view)
    assert world.effects == effects


def _runs(opened: Any) -> Any:
    from engine.core.history import runs

    return runs(opened.journal.events()).values()


def _held_by(opened: Any, cluster: RecordCluster, tmp_path: Path) -> Any:
    """Somebody else's run holds the environment when the old holder wakes up."""
    elsewhere = journal(tmp_path / "third.db")
    EnvironmentRecord(cluster, BOOK.name, "test", elsewhere).claim("beef", "now")
    return opened


def test_a_swap_refused_in_mid_run_stops_before_the_effect(tmp_path: Path) -> None:
    cluster, world = RecordCluster(), World()
    opened = open_at(tmp_path, cluster, world)
    thief = EnvironmentRecord(cluster, BOOK.name, "test", journal(tmp_path / "thief.db"))
    apply = opened.deployer.actions["thing"].apply

    def stolen(*args: Any) -> Any:
        outcome = apply(*args)
        thief.claim("beef", "now", adopt=True)
        return outcome

    opened.deployer.actions["thing"].apply = stolen
    view = deploy(opened, make_plan(opened))
    assert ("set", "b") not in world.effects
    assert view.steps[StepId("one/b")].intents == 0, "a fenced intent is void"
    assert EventType.FENCED in {e.type for e in opened.journal.events()}
    assert view.exit_code in {3, 4}


def test_lost_events_are_noticed_by_the_record(tmp_path: Path) -> None:
    cluster, world = RecordCluster(), World()
    opened = open_at(tmp_path, cluster, world)
    deploy(opened, make_plan(opened))
    opened.journal.close()
    (tmp_path / "journal.db").rename(tmp_path / "old.db")
    young = journal(tmp_path / "journal.db")
    young.id = opened.journal.id
    record = EnvironmentRecord(cluster, BOOK.name, "test", young)
    with pytest.raises(RefusedError, match="this journal ends at event 0: events were lost"):
        record.claim("beef", "now")


def test_before_the_cluster_exists_the_lease_holds(tmp_path: Path) -> None:
    cluster, world = RecordCluster(), World()
    cluster.exists = False
    opened = open_at(tmp_path, cluster, world)
    assert deploy(opened, make_plan(opened)).status is RunStatus.SUCCEEDED
    assert cluster.swaps == 0


def test_one_process_at_a_time_in_one_journal(tmp_path: Path) -> None:
    from engine.run.lease import lease

    opened = open_at(tmp_path, RecordCluster(), World())
    with (
        lease(tmp_path, "test", "cafe", "14:02"),
        pytest.raises(RefusedError, match=r"held by run cafe \(.*since 14:02"),
    ):
        deploy(opened, make_plan(opened))


def test_a_run_that_goes_on_is_held_not_unfinished(tmp_path: Path) -> None:
    from engine.run.deploy import may_begin
    from engine.run.lease import lease

    opened = open_at(tmp_path, RecordCluster(), World())
    opened.deployer.cancelled.set()
    deploy(opened, make_plan(opened))
    with lease(tmp_path, "test", "cafe", "14:02"), pytest.raises(RefusedError, match="held by run cafe"):
        may_begin(opened)
    with pytest.raises(RefusedError, match="runbook resume test"):
        may_begin(opened)


def test_a_finished_run_can_be_taken_back(tmp_path: Path) -> None:
    world = World(things={"a": "a-old"})
    opened = open_at(tmp_path, RecordCluster(), world)
    view = deploy(opened, make_plan(opened))
    back = rollback_run(opened, view)
    assert back.status is RunStatus.ROLLED_BACK
    assert world.things == {"a": "a-old"}
    assert {s.status for s in back.steps.values()} == {StepStatus.UNDONE}


def test_only_the_last_run_is_taken_back(tmp_path: Path) -> None:
    world = World()
    opened = open_at(tmp_path, RecordCluster(), world)
    first = deploy(opened, make_plan(opened))
    world.things["a"] = "drifted"
    second = deploy(opened, make_plan(opened))
    with pytest.raises(RefusedError, match=f"roll back {second.id} first"):
        rollback_run(opened, first)
