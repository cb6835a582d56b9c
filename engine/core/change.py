"""A plan as data: fingerprints, redacted diffs, ways back. Never a value that could be secret. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.core.model import ObjectId, StepId


class Verb(StrEnum):
    """What a step would do to its target."""

    NONE = "none"
    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    RUN = "run"


class Fidelity(StrEnum):
    """How far a planned change can be trusted; from best to worst."""

    EXACT = "exact"  # the system itself computed it
    PREDICTED = "predicted"  # computed by us, by a check mode, or offline
    ASSUMED = "assumed"  # from recorded inputs, without looking
    OPAQUE = "opaque"  # nothing can be known before it runs
    DEFERRED = "deferred"  # depends on what an earlier step creates; sealed by its envelope


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What one object is, as far as its step declares it. Empty digest: absent.

    `unfinished` names a state nobody should act on blindly: `pending-upgrade:6`, `terminating`.
    """

    digest: str = ""
    unfinished: str = ""

    @property
    def absent(self) -> bool:
        return not self.digest and not self.unfinished


ABSENT = Fingerprint()

State = Mapping[ObjectId, Fingerprint]
"""Live fingerprints of what a step declares. A missing key means absent."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an action saw. `detail` is the action's own, in memory only, never stored."""

    state: State
    detail: Any = None


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of a diff, redacted: `path` in the object, old and new as text (None: not there), and who set it."""

    path: str
    before: str | None
    after: str | None
    note: str = ""  # "set to 2 by kubectl (scale)"

    @property
    def sign(self) -> str:
        if self.before is None:
            return "+"
        return "-" if self.after is None else "~"


@dataclass(frozen=True, slots=True)
class Delta:
    """One object's way from `before` to `after`, and back to `undo_to`."""

    before: Fingerprint
    after: Fingerprint | None
    """None: not known before the step has run (a deferred step, a kind not served yet)."""
    diff: tuple[DiffLine, ...] = ()
    undo_to: Fingerprint | None = None
    """What undo must reach; None: residue, it stays on purpose."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one step would do. Serialises to JSON (schema 1)."""

    step: StepId
    verb: Verb
    fidelity: Fidelity
    objects: Mapping[ObjectId, Delta] = field(default_factory=dict)
    irreversible: str | None = None
    """Why there is no way back, in the author's words; None: undo reaches every `undo_to`."""
    reason: str = ""
    """Why it is deferred, assumed or none, for a person."""
    envelope: Mapping[str, str] = field(default_factory=dict)
    """What a deferred step is held to: input name -> digest."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The action's own plain data that `apply` needs to do exactly this (a chart's digest, a revision)."""

    @property
    def before(self) -> State:
        return {o: d.before for o, d in self.objects.items()}

    @property
    def after(self) -> Mapping[ObjectId, Fingerprint | None]:
        return {o: d.after for o, d in self.objects.items()}

    @property
    def undo_to(self) -> State:
        return {o: d.undo_to for o, d in self.objects.items() if d.undo_to is not None}

    @property
    def residue(self) -> tuple[ObjectId, ...]:
        return tuple(o for o, d in self.objects.items() if d.undo_to is None)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "step": self.step,
            "verb": self.verb.value,
            "fidelity": self.fidelity.value,
            "objects": {o: _delta_to_json(d) for o, d in sorted(self.objects.items())},
            "irreversible": self.irreversible,
            "reason": self.reason,
            "envelope": dict(sorted(self.envelope.items())),
            "facts": dict(self.facts),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Change:
        return cls(
            step=StepId(data["step"]),
            verb=Verb(data["verb"]),
            fidelity=Fidelity(data["fidelity"]),
            objects={ObjectId(o): _delta_from_json(d) for o, d in data["objects"].items()},
            irreversible=data["irreversible"],
            reason=data["reason"],
            envelope=data["envelope"],
            facts=data["facts"],
        )


@dataclass(frozen=True, slots=True)
class Preimage:
    """What undo needs, journaled with the intent: references where the system keeps history, never plain values.

    `references` is JSON (a Helm revision, a KV version, an object of which nothing is secret); `blob` is an
    age-encrypted document for what the system does not keep.
    """

    references: Mapping[str, Any] = field(default_factory=dict)
    blob: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"references": dict(self.references), "blob": self.blob}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preimage:
        return cls(references=data["references"], blob=data["blob"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an apply or an undo did. `summary` is one line for a person, `outputs` what `register` may keep."""

    summary: str = ""
    outputs: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Facts worth keeping for ever (a backup's object, size and hash; an approver). JSON, never secret."""


def fingerprint_to_json(fingerprint: Fingerprint | None) -> list[str] | None:
    return None if fingerprint is None else [fingerprint.digest, fingerprint.unfinished]


def fingerprint_from_json(data: Sequence[str] | None) -> Fingerprint | None:
    return None if data is None else Fingerprint(data[0], data[1])


def state_to_json(state: State) -> dict[str, list[str] | None]:
    return {o: fingerprint_to_json(f) for o, f in sorted(state.items())}


def _delta_to_json(delta: Delta) -> dict[str, Any]:
    return {
        "before": fingerprint_to_json(delta.before),
        "after": fingerprint_to_json(delta.after),
        "undo_to": fingerprint_to_json(delta.undo_to),
        "diff": [[line.path, line.before, line.after, line.note] for line in delta.diff],
    }


def _delta_from_json(data: Mapping[str, Any]) -> Delta:
    return Delta(
        before=fingerprint_from_json(data["before"]) or ABSENT,
        after=fingerprint_from_json(data["after"]),
        undo_to=fingerprint_from_json(data["undo_to"]),
        diff=tuple(DiffLine(*line) for line in data["diff"]),
    )
