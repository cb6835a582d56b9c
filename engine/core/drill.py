"""A disaster-recovery drill: what it is made of, and how its loss and its times are judged. Pure.

A drill is a run of kind `drill`. Sentinels (numbered writes) go in through the application's own way, each one that
was acknowledged is noted outside the environment; then the fault, and the way back. What was acknowledged and is
absent or altered afterwards is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any, ClassVar, Protocol

from engine.core.action import Context, Deadline
from engine.core.change import Outcome
from engine.core.events import Event, EventType
from engine.core.model import Step, StepId
from engine.errors import Position


class Stage(StrEnum):
    """The phases of a drill's run."""

    WRITE = "write"
    BREAK = "break"
    DETECT = "detect"
    DECIDE = "decide"
    ACT = "act"
    VERIFY = "verify"
    JUDGE = "judge"


TITLES: Mapping[Stage, str] = {
    Stage.WRITE: "Sentinels are written",
    Stage.BREAK: "The fault",
    Stage.DETECT: "Detect",
    Stage.DECIDE: "Decide",
    Stage.ACT: "Act",
    Stage.VERIFY: "Verify",
    Stage.JUDGE: "Judge",
}

SENTINELS = StepId("write/sentinels")
FAULT = StepId("break/fault")
NOTICE = StepId("detect/notice")
GO = StepId("decide/go")
LOSS = StepId("judge/loss")


@dataclass(frozen=True, slots=True)
class Targets:
    """The most that may be lost (recovery point) and the longest it may take (recovery time)."""

    rpo: timedelta
    rto: timedelta

    def to_json(self) -> dict[str, float]:
        """In seconds."""
        return {"rpo": self.rpo.total_seconds(), "rto": self.rto.total_seconds()}


@dataclass(frozen=True, slots=True)
class Drill:
    """One file of `drills/`, read. Steps hold templates still to be rendered."""

    id: str
    title: str
    position: Position
    targets: Targets
    sentinels: Step
    """Its action is the key of a SentinelStore."""
    rate: float
    """Sentinels a second."""
    before: timedelta
    """How long they are written before the fault, and again after `prepare`."""
    fault: Step
    """Its action is the key of a Fault."""
    within: timedelta
    """How long the fault may stay unnoticed."""
    patience: timedelta
    """How long each check of `verify` may take to pass."""
    prepare: tuple[Step, ...] = ()
    """Carried out while sentinels are written."""
    detect: tuple[StepId, ...] = ()
    """The steps whose checks must notice."""
    recover: tuple[Step, ...] = ()
    verify: tuple[StepId, ...] = ()
    """The steps whose checks prove the recovery."""


class Fault(Protocol):
    """One kind of disaster. Added like an action: one file, one line in registry.py and outside.py."""

    key: ClassVar[str]
    Params: ClassVar[type]

    def target(self, params: Any, ctx: Context) -> Mapping[str, Any]:
        """What would be hit, as it is now; journaled before it is. RefusedError when it is not there whole."""

    def begun(self, params: Any, target: Mapping[str, Any], ctx: Context) -> bool:
        """Is that target no longer what it was? Asked after a crash: an untouched one is left alone."""

    def strike(self, params: Any, target: Mapping[str, Any], ctx: Context) -> Outcome:
        """Do it, and wait until it is done. Repeatable; never hits anything but that target."""


class WriteSentinel(Protocol):
    def __call__(self, number: int, token: str, deadline: Deadline) -> None:
        """Returns when the application says that it is kept. RunbookError when it does not, or not by `deadline`."""


class SentinelStore(Protocol):
    """A way of the application to write and read. Errors are the RunbookError family."""

    key: ClassVar[str]
    Params: ClassVar[type]

    def prepare(self, params: Any, run: str, ctx: Context) -> None:
        """Make room for them. Repeatable."""

    def writing(self, params: Any, run: str, ctx: Context) -> AbstractContextManager[WriteSentinel]: ...

    def read(self, params: Any, run: str, ctx: Context) -> Mapping[int, str]:
        """Every sentinel of the run that is there; empty when even their room is gone."""

    def clear(self, params: Any, run: str, ctx: Context) -> None:
        """Take them away again. Repeatable."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One sentinel that the application said it kept, and when (UTC, ISO 8601)."""

    number: int
    token: str
    at: str


@dataclass(frozen=True, slots=True)
class Loss:
    """What the fault and the recovery cost. Seconds reach back from the fault to the recovery point."""

    acknowledged: int
    absent: tuple[int, ...]
    altered: tuple[int, ...]
    seconds: float
    """The recovery point actually reached."""
    point: str
    """The newest moment up to which everything acknowledged is there: when a sentinel or a backup was taken."""
    measured_by: str
    """`sentinels`, or `backup` where no sentinel before the fault is left."""

    @property
    def lost(self) -> int:
        return len(self.absent) + len(self.altered)


def loss(acknowledged: Sequence[Acknowledged], found: Mapping[int, str], struck: str, backup_taken: str | None) -> Loss:
    """Compare what was acknowledged with what is there. `struck`: when the fault began; `backup_taken`: when the
    backup that was restored was made, if any."""
    absent = tuple(a.number for a in acknowledged if a.number not in found)
    altered = tuple(a.number for a in acknowledged if a.number in found and found[a.number] != a.token)
    gone = {*absent, *altered}
    if not gone:
        return Loss(len(acknowledged), (), (), 0.0, struck, "sentinels")
    whole = []
    for one in acknowledged:
        if one.number in gone:
            break
        whole.append(one)
    if whole:
        point, by = whole[-1].at, "sentinels"
    elif backup_taken:
        point, by = backup_taken, "backup"
    else:
        point, by = acknowledged[0].at, "first sentinel: the loss reaches further back"
    return Loss(len(acknowledged), absent, altered, max(0.0, _seconds(point, struck)), point, by)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of the recovery, from the fault's first blow. None: not reached."""

    detect: float | None = None
    decide: float | None = None
    act: float | None = None
    verify: float | None = None

    @property
    def parts(self) -> dict[str, float | None]:
        return {"detect": self.detect, "decide": self.decide, "act": self.act, "verify": self.verify}

    @property
    def rto(self) -> float | None:
        """The recovery time actually reached; None when the platform is not back."""
        if self.verify is None:
            return None
        return round(sum(part for part in self.parts.values() if part is not None), 3)


def struck_at(events: Sequence[Event]) -> str:
    """When the fault began: the moment its intent was written, just before the blow. Empty: it did not."""
    return next((e.at for e in events if e.step == FAULT and e.type is EventType.INTENT), "")


def times(events: Sequence[Event]) -> Times:
    """The parts of a drill's recovery time, from its journal; a process that died in between counts as it passed."""
    ends = [struck_at(events)]
    for stage in (Stage.DETECT, Stage.DECIDE, Stage.ACT, Stage.VERIFY):
        done = [e.at for e in events if e.type is EventType.PHASE_FINISHED and e.data["phase"] == stage]
        if not ends[0] or not done:
            break
        ends.append(done[-1])
    parts = [round(_seconds(a, b), 3) for a, b in pairwise(ends)]
    return Times(*parts)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A drill's result beside its targets."""

    loss: Loss
    times: Times
    targets: Targets
    noticed: bool
    recovered: bool
    misses: tuple[str, ...] = ()
    """What was not as it should be, for a person; empty: all targets met."""

    def to_json(self) -> dict[str, Any]:
        """Kept for ever as the evidence of `judge/loss`. Times in seconds."""
        return {
            "acknowledged": self.loss.acknowledged,
            "lost": self.loss.lost,
            "absent": list(self.loss.absent),
            "altered": list(self.loss.altered),
            "rpo_seconds": round(self.loss.seconds, 3),
            "recovery_point": self.loss.point,
            "measured_by": self.loss.measured_by,
            "rto_seconds": self.times.rto,
            **{f"{name}_seconds": value for name, value in self.times.parts.items()},
            "targets": self.targets.to_json(),
            "noticed": self.noticed,
            "recovered": self.recovered,
            "misses": list(self.misses),
        }


def judge(lost: Loss, took: Times, targets: Targets, *, noticed: bool, unproved: Sequence[str]) -> Verdict:
    """`unproved`: what of the recovery's proof did not pass."""
    misses = []
    if not noticed:
        misses.append("the fault was not noticed by the checks that should have")
    if unproved:
        misses.append(f"not recovered: {', '.join(unproved)} does not pass")
    if lost.seconds > targets.rpo.total_seconds():
        misses.append(f"lost {lost.seconds:.1f} s of writes, target {targets.rpo.total_seconds():.0f} s")
    if not unproved and (took.rto is None or took.rto > targets.rto.total_seconds()):
        misses.append(f"recovered in {took.rto or 0:.1f} s, target {targets.rto.total_seconds():.0f} s")
    return Verdict(lost, took, targets, noticed, not unproved, tuple(misses))


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
