"""A database in memory that a drill loses and brings back: rows, dumps, and what really happened to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from engine.core.action import Context, Deadline
from engine.core.change import Change, Outcome, Reading
from engine.core.drill import Drill, Targets, WriteSentinel
from engine.core.model import Runbook, Step, StepId
from engine.errors import NotYetError, RefusedError, TemporaryError
from engine.run.journal import Journal
from engine.run.session import Session
from tests.fakes import runs
from tests.fakes.runs import HERE, CrashingJournal
from tests.fakes.world import OnceAction, World

DATABASE = "db"
UP = f"{DATABASE}-new"


@dataclass
class Database(World):
    """`things["db"]` says whether it is up; the rows are None where not even their table is."""

    rows: dict[int, str] | None = None
    dumps: list[tuple[str, dict[int, str]]] = field(default_factory=list)
    struck: list[dict[int, str]] = field(default_factory=list)
    """The rows as they were at each blow."""
    generation: int = 0
    """Which volume it is on."""
    slow: Callable[[], None] = lambda: None
    """Called while a dump is taken."""

    def __post_init__(self) -> None:
        self.things[DATABASE] = UP

    @property
    def up(self) -> bool:
        return self.things.get(DATABASE) == UP

    def now(self) -> str:
        return datetime.now(UTC).isoformat(timespec="milliseconds")


class MemorySentinels:
    """Rows of the database."""

    key: ClassVar[str] = "memory"
    Params: ClassVar[type] = dict

    def __init__(self, world: Database) -> None:
        self.world = world

    def prepare(self, params: Any, run: str, ctx: Context) -> None:
        if self.world.rows is None:
            self.world.rows = {}

    @contextmanager
    def writing(self, params: Any, run: str, ctx: Context) -> Iterator[WriteSentinel]:
        def write(number: int, token: str, deadline: Deadline) -> None:
            deadline.check("writing a sentinel")
            if not self.world.up or self.world.rows is None:
                raise TemporaryError("the database does not answer")
            self.world.rows[number] = token

        yield write

    def read(self, params: Any, run: str, ctx: Context) -> Mapping[int, str]:
        if not self.world.up:
            raise TemporaryError("the database does not answer")
        return dict(self.world.rows or {})

    def clear(self, params: Any, run: str, ctx: Context) -> None:
        self.world.rows = None


class VolumeGone:
    """The rows are gone and the database is down."""

    key: ClassVar[str] = "volume_gone"
    Params: ClassVar[type] = dict

    def __init__(self, world: Database) -> None:
        self.world = world

    def target(self, params: Any, ctx: Context) -> Mapping[str, Any]:
        if not self.world.up:
            raise RefusedError("the database is not there")
        return {"generation": self.world.generation}

    def begun(self, params: Any, target: Mapping[str, Any], ctx: Context) -> bool:
        return bool(self.world.generation != target["generation"])

    def strike(self, params: Any, target: Mapping[str, Any], ctx: Context) -> Outcome:
        trouble = self.world.broken.get("fault")
        if trouble:
            raise trouble
        if not self.begun(params, target, ctx):
            self.world.struck.append(dict(self.world.rows or {}))
            self.world.generation += 1
            self.world.rows = None
            self.world.set(DATABASE, None)
        if "half a fault" in self.world.broken:
            raise self.world.broken["half a fault"]
        return Outcome("the volume is gone", evidence=dict(target))


class DumpAction(OnceAction):
    """EVENT: keeps the rows."""

    key: ClassVar[str] = "dump"
    world: Database

    def apply(self, params: Any, change: Change, ctx: Context) -> Outcome:
        if ctx.key not in self.world.events:
            self.world.dumps.append((self.world.now(), dict(self.world.rows or {})))
            self.world.slow()
        return super().apply(params, change, ctx)


class LoadAction(OnceAction):
    """EVENT: the rows of the newest dump instead of those that are there."""

    key: ClassVar[str] = "load"
    world: Database

    def plan(self, params: Any, now: Reading, ctx: Context) -> Change:
        if not self.world.dumps:
            raise NotYetError("no proven backup")
        return super().plan(params, now, ctx)

    def apply(self, params: Any, change: Change, ctx: Context) -> Outcome:
        trouble = self.world.broken.pop("load", None)
        if trouble:
            raise trouble
        outcome = super().apply(params, change, ctx)
        taken, rows = self.world.dumps[-1]
        if self.world.rows is None:
            self.world.rows = dict(rows)
        return replace(outcome, evidence={**outcome.evidence, "taken": taken})


def step(step_id: str, action: str, **options: Any) -> Step:
    name = step_id.partition("/")[2]
    params = options.pop("params", {"name": name, "value": f"{name}-new"})
    return Step(StepId(step_id), step_id.partition("/")[0], name.title(), action, params, HERE, **options)


SERVICE = step("base/db", "thing", params={"name": DATABASE, "value": UP, "check": True})
DRILL = Drill(
    id="volume-lost",
    title="The volume is lost",
    position=HERE,
    targets=Targets(rpo=timedelta(seconds=20), rto=timedelta(seconds=60)),
    sentinels=step("write/sentinels", "memory"),
    rate=100.0,
    before=timedelta(seconds=0.02),
    fault=step("break/fault", "volume_gone"),
    within=timedelta(seconds=1),
    patience=timedelta(seconds=1),
    prepare=(step("write/dump", "dump"),),
    detect=(SERVICE.id,),
    recover=(SERVICE, step("act/load", "load")),
    verify=(SERVICE.id,),
)


def book() -> Runbook:
    return runs.runbook(("base", [SERVICE]))


def journal(path: Path, *, at: int = 0, after: bool = False) -> Journal:
    """With the real time, which a drill measures by."""
    options: dict[str, Any] = {
        "clock": lambda: datetime.now(UTC).isoformat(timespec="milliseconds"),
        "redact": lambda data: data,
    }
    return CrashingJournal(path, at=at, after=after, **options) if at else Journal(path, **options)


def session(world: Database, state: Path, kept: Journal, plan: Drill = DRILL, *, allowed: bool = True) -> Session:
    made = runs.session(world, book(), state, kept)
    more = {"dump": DumpAction(world), "load": LoadAction(world)}
    parts = replace(made.deployer, actions={**made.deployer.actions, **more}, cancelled=threading.Event())
    return replace(
        made,
        planner=parts,
        deployer=parts,
        drill=plan,
        drills_allowed=allowed,
        faults={"volume_gone": VolumeGone(world)},
        sentinels={"memory": MemorySentinels(world)},
    )
