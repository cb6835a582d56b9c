"""In which order steps run: a graph of steps and phases, pure and stable.

A phase stands in the graph as two points, its begin and its end: a step waits for the begin of its phase, the end for
every step, and a begin for the ends of the phases it needs. So the graph grows with what is written, not its square.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal

from engine.core.model import Runbook, StepId
from engine.errors import UsageError


@dataclass(frozen=True, slots=True)
class _Point:
    """A node: a step, or the begin or the end of a phase."""

    kind: Literal["step", "begin", "end"]
    id: str

    def __str__(self) -> str:
        return self.id if self.kind == "step" else f"phase {self.id}"


class CycleError(UsageError):
    """Steps or phases that wait for each other; `members` names them, `steps` those that are steps, in the circle's
    order."""

    def __init__(self, circle: Iterable[_Point]) -> None:
        points = list(circle)
        names = [str(p) for p in points]
        self.steps = tuple(StepId(p.id) for p in points if p.kind == "step")
        self.members = tuple(name for i, name in enumerate(names) if len(names) == 1 or names[i - 1] != name)
        super().__init__(f"these wait for each other: {' → '.join([*self.members, self.members[0]])}")


class Graph:
    """What waits for what. Raises CycleError; KeyError when a step or a phase needs one that does not exist."""

    def __init__(self, runbook: Runbook) -> None:
        self._rank: dict[StepId, int] = {s.id: i for i, s in enumerate(runbook.steps())}
        self._before = _edges(runbook)
        self._after: dict[_Point, list[_Point]] = {point: [] for point in self._before}
        for point, needed in self._before.items():
            for other in needed:
                self._after[other].append(point)
        self.order: tuple[StepId, ...] = self._sorted()
        """Every step, each after all it waits for; as written where that is possible."""

    def ancestors(self, step: StepId) -> frozenset[StepId]:
        """Every step that must be done before this one, directly or not."""
        seen: set[_Point] = set()
        waiting = list(self._before[_Point("step", step)])
        while waiting:
            point = waiting.pop()
            if point not in seen:
                seen.add(point)
                waiting += self._before[point]
        return frozenset(StepId(p.id) for p in seen if p.kind == "step")

    def ready(
        self, done: Collection[StepId], failed: Collection[StepId] = (), running: Collection[StepId] = ()
    ) -> tuple[StepId, ...]:
        """What may start now, in order. `done` holds every step that need not be waited for: changed, unchanged,
        skipped, left out. A step that waits for a failed one is never ready."""
        finished = set(done)
        taken = finished.union(failed, running)
        passed: dict[_Point, bool] = {}
        for point in self._topological:
            clear = all(passed[other] for other in self._before[point])
            passed[point] = clear if point.kind != "step" else point.id in finished
        return tuple(
            step
            for step in self.order
            if step not in taken and all(passed[other] for other in self._before[_Point("step", step)])
        )

    def _sorted(self) -> tuple[StepId, ...]:
        """Kahn's algorithm; of what is free the phase points come first, then the step written first."""
        waits = {point: len(needed) for point, needed in self._before.items()}
        free: list[tuple[int, int, _Point]] = []
        serial = {point: i for i, point in enumerate(self._before)}

        def release(point: _Point) -> None:
            rank = self._rank[StepId(point.id)] if point.kind == "step" else -1
            heappush(free, (rank, serial[point], point))

        for point, count in waits.items():
            if not count:
                release(point)
        self._topological: list[_Point] = []
        while free:
            point = heappop(free)[2]
            self._topological.append(point)
            for later in self._after[point]:
                waits[later] -= 1
                if not waits[later]:
                    release(later)
        if len(self._topological) < len(waits):
            raise CycleError(_circle(self._before, {p for p, count in waits.items() if count}))
        return tuple(StepId(p.id) for p in self._topological if p.kind == "step")


def _edges(runbook: Runbook) -> dict[_Point, tuple[_Point, ...]]:
    """Each point and what it waits for."""
    edges: dict[_Point, tuple[_Point, ...]] = {}
    for phase in runbook.phases:
        begin, end = _Point("begin", phase.id), _Point("end", phase.id)
        edges[begin] = tuple(_Point("end", needed) for needed in dict.fromkeys(phase.needs))
        for step in phase.steps:
            edges[_Point("step", step.id)] = (begin, *(_Point("step", n) for n in dict.fromkeys(step.needs)))
        edges[end] = (begin, *(_Point("step", s.id) for s in phase.steps))
    return edges


def _circle(before: Mapping[_Point, tuple[_Point, ...]], stuck: set[_Point]) -> list[_Point]:
    """One circle among the points that never became free, each waiting for the next. Some of `stuck` only wait for a
    circle, so walk until a point comes again."""
    point = min(stuck, key=list(before).index)
    walked: dict[_Point, int] = {}
    while point not in walked:
        walked[point] = len(walked)
        point = next(other for other in before[point] if other in stuck)
    path = list(walked)
    return path[walked[point] :]
