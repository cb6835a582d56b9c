"""A runbook as data: what the files say, before any template is rendered. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, NewType

from engine.errors import Position

StepId = NewType("StepId", str)
"""`phase/step`, or `phase/step[key]` for one turn of a loop. Unique in a runbook."""

ObjectId = NewType("ObjectId", str)
"""One thing an action owns in an outside system, as a person would name it: `Deployment belizechain/pakit`."""


class OnFailure(StrEnum):
    """What a failed step means for its phase."""

    ROLLBACK = "rollback"
    STOP = "stop"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Step:
    """One step as written. `params`, `verify`, `unless` and `undo` hold templates still to be rendered."""

    id: StepId
    phase: str
    name: str
    action: str
    params: Any
    position: Position
    needs: tuple[StepId, ...] = ()
    """Direct dependencies, already resolved: explicit `needs`, or every step above it in its phase."""
    when: str | None = None
    vars: Mapping[str, Any] = field(default_factory=dict)
    register: str | None = None
    tags: frozenset[str] = frozenset()
    timeout: timedelta = timedelta(minutes=5)
    retries: int = 0
    delay: timedelta = timedelta(seconds=1)
    verify: tuple[Any, ...] = ()
    unless: tuple[Any, ...] = ()
    fresh: timedelta | None = None
    undo: Any = None
    irreversible: str | None = None
    on_failure: OnFailure | None = None
    sensitive: bool = False

    @property
    def local_id(self) -> str:
        """The id without its phase."""
        return self.id.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase as written. Once its checks passed it is a savepoint, unless it says not."""

    id: str
    title: str
    steps: tuple[Step, ...]
    position: Position
    needs: tuple[str, ...] = ()
    savepoint: bool = True
    on_failure: OnFailure = OnFailure.ROLLBACK


@dataclass(frozen=True, slots=True)
class Runbook:
    """A whole runbook, phases in order of their files."""

    name: str
    title: str
    phases: tuple[Phase, ...]
    vars: Mapping[str, Any] = field(default_factory=dict)

    def steps(self) -> Iterator[Step]:
        """Every step, in the order written."""
        for phase in self.phases:
            yield from phase.steps

    def step(self, step_id: str) -> Step:
        """The step of that id, or of that id within its phase when it is unambiguous. Raises KeyError."""
        matches = [s for s in self.steps() if step_id in (s.id, s.local_id)]
        if len(matches) != 1:
            raise KeyError(step_id)
        return matches[0]

    def phase(self, phase_id: str) -> Phase:
        """The phase of that id. Raises KeyError."""
        for phase in self.phases:
            if phase.id == phase_id:
                return phase
        raise KeyError(phase_id)
