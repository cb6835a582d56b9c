"""What every EVENT whose evidence is in the journal has in common: once per key, or once per `fresh` window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from engine.core.action import CheckSpec, Context, Kind
from engine.core.change import (
    ABSENT,
    Change,
    Delta,
    DiffLine,
    Fidelity,
    Fingerprint,
    Outcome,
    Preimage,
    Reading,
    State,
    Verb,
)
from engine.core.model import ObjectId
from engine.core.ports import Evidence

HAPPENED = Fingerprint("happened")


class JournaledEvent(ABC):
    """An action that leaves its evidence in the journal alone. A subclass says what it is and does it in `happen`."""

    kind: ClassVar[Kind] = Kind.EVENT
    fidelity: ClassVar[Fidelity] = Fidelity.EXACT
    """How well `describe` tells what will happen."""
    leaves: ClassVar[frozenset[str]] = frozenset()
    """What its evidence names at least. Other evidence of the step is of another action, which it once was."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    @abstractmethod
    def name(self, params: Any, ctx: Context) -> str:
        """The event as an object's name: `command make-image`."""

    @abstractmethod
    def describe(self, params: Any) -> str:
        """What will happen, for the diff. Never a value that could be secret."""

    @abstractmethod
    def happen(self, params: Any, ctx: Context) -> Outcome:
        """Do it. Called when no evidence of it counts."""

    def apply(self, params: Any, change: Change, ctx: Context) -> Outcome:
        """Once per key: asked again, it tells what evidence the first time left."""
        found = None if ctx.key is None else self.find(params, ctx)
        if found is not None:
            return self.told(found)
        ctx.deadline.check(f"{ctx.step}: before it began")
        return self.happen(params, ctx)

    def told(self, found: Mapping[str, Any]) -> Outcome:
        """The outcome of what happened before."""
        return Outcome(summary=self.proof(found), evidence=found)

    def find(self, params: Any, ctx: Context) -> Mapping[str, Any] | None:
        """Evidence that counts; a subclass may ask more of it."""
        found = self._evidence.find(ctx)
        return found if found is not None and self.leaves <= found.keys() else None

    def read(self, params: Any, ctx: Context) -> Reading:
        found = self.find(params, ctx)
        return Reading({} if found is None else {ObjectId(self.name(params, ctx)): HAPPENED}, found)

    def plan(self, params: Any, now: Reading, ctx: Context) -> Change:
        found: Mapping[str, Any] | None = now.detail
        done = found is not None
        diff = () if done else (DiffLine(str(getattr(self, "key", "event")), None, self.describe(params)),)
        delta = Delta(before=HAPPENED if done else ABSENT, after=HAPPENED, diff=diff, undo_to=None)
        return Change(
            step=ctx.step,
            verb=Verb.NONE if done else Verb.RUN,
            fidelity=Fidelity.EXACT if done else self.fidelity,
            objects={ObjectId(self.name(params, ctx)): delta},
            reason=self.proof(found) if found is not None else "",
        )

    def proof(self, found: Mapping[str, Any]) -> str:
        """What the evidence says, in a few words; the same for the same evidence."""
        return "done already, the journal holds the evidence"

    def capture(self, params: Any, change: Change, now: Reading, ctx: Context) -> Preimage:
        return Preimage()

    def read_back(self, params: Any, change: Change, preimage: Preimage, ctx: Context) -> State:
        return {}

    def undo(self, params: Any, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        """What happened, happened."""
        return Outcome()

    def checks(self, params: Any) -> Sequence[CheckSpec]:
        return ()
