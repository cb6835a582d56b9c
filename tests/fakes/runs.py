"""Building small runbooks and sessions over the world in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.core.events import Event
from engine.core.model import Phase, Runbook, Step, StepId
from engine.core.order import Graph
from engine.core.parts import Parts
from engine.errors import Position
from engine.run.environment import EnvironmentRecord
from engine.run.journal import Journal
from engine.run.session import Session
from tests.fakes.world import OnceAction, PlainResolver, ThingAction, ThingCheck, World

HERE = Position("phases/01.yml", 1, 1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Crash(BaseException):
    """The process dies here: nothing catches it, nothing after it is written."""


class Watcher:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        self.events.append(event)

    def progress(self, step: StepId, line: str) -> None:
        return None


class NoChildren:
    def run(self, *_args: Any, **_options: Any) -> Any:
        raise AssertionError("no child process in these tests")

    def wait_for_orphans(self, _deadline: Any) -> None:
        return None


class CrashingJournal(Journal):
    """Dies before or after its n-th append (counted from 1)."""

    def __init__(self, path: Path, *, at: int, after: bool, **options: Any) -> None:
        self._left, self._after = at, after
        super().__init__(path, **options)

    def append(self, *args: Any, **options: Any) -> Event:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Crash
        event = super().append(*args, **options)
        if self._left == 0:
            raise Crash
        return event


def step(name: str, action: str = "thing", phase: str = "one", needs: Sequence[str] = (), **options: Any) -> Step:
    params = options.pop("params", {"name": name, "value": f"{name}-new"})
    params = {**params, **options.pop("more", {})}
    fields = {"needs": tuple(StepId(n) for n in needs), **options}
    return Step(
        id=StepId(f"{phase}/{name}"), phase=phase, name=name, action=action, params=params, position=HERE, **fields
    )


def runbook(*phases: tuple[str, Sequence[Step]], **options: Any) -> Runbook:
    built: list[Phase] = []
    for name, steps in phases:
        needs = (built[-1].id,) if built else ()
        chained = [
            s if s.needs or i == 0 else replace(s, needs=tuple(t.id for t in steps[:i])) for i, s in enumerate(steps)
        ]
        built.append(Phase(name, name.title(), tuple(chained), HERE, needs=needs, **options))
    return Runbook("test", "Test", tuple(built))


def clock() -> Iterator[str]:
    second = 0
    while True:
        second += 1
        yield f"2026-01-01T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.000+00:00"


def journal(path: Path, *, at: int = 0, after: bool = False) -> Journal:
    ticks = clock()
    options: dict[str, Any] = {"clock": lambda: next(ticks), "redact": lambda data: data}
    if at:
        return CrashingJournal(path, at=at, after=after, **options)
    return Journal(path, **options)


def session(world: World, book: Runbook, state: Path, kept: Journal, cluster: Any = None) -> Session:
    parts = Parts(
        actions={"thing": ThingAction(world), "once": OnceAction(world)},
        checks={"thing": ThingCheck(world)},
        resolver=PlainResolver(),
        inputs=None,  # type: ignore[arg-type]
        now=NOW,
        cancelled=threading.Event(),
        observer=Watcher(),
        redact=lambda text: text,
    )
    return Session(
        environment="test",
        runbook=book,
        graph=Graph(book),
        planner=parts,
        deployer=parts,
        journal=kept,
        record=EnvironmentRecord(cluster, book.name, "test", kept),
        launcher=NoChildren(),  # type: ignore[arg-type]
        state=state,
        inputs="inputs",
        variables="variables",
        target="",
    )
