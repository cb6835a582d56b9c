"""The journal's events: what can happen, and how each is sealed into the chain. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from engine.core.model import StepId

SCHEMA = 1
GENESIS = "0" * 64


class EventType(StrEnum):
    """What can happen. `data` of each is documented in docs/journal.md."""

    RUN_STARTED = "run-started"
    RESUMED = "resumed"
    ADOPTED = "adopted"
    STEP_STARTED = "step-started"
    ADDENDUM = "addendum"
    INTENT = "intent"
    OUTCOME = "outcome"
    CHECKED = "checked"
    STEP_FINISHED = "step-finished"
    STEP_FAILED = "step-failed"
    PHASE_FINISHED = "phase-finished"
    ROLLBACK_STARTED = "rollback-started"
    UNDO_INTENT = "undo-intent"
    UNDONE = "undone"
    UNDO_FAILED = "undo-failed"
    FENCED = "fenced"
    RUN_FINISHED = "run-finished"
    ATTESTED = "attested"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal. `hash` covers everything else and the hash of the event before."""

    sequence: int
    at: str
    """UTC, ISO 8601 with milliseconds. For people; order is by `sequence`."""
    type: EventType
    run: str
    step: StepId
    """Empty for what belongs to the run."""
    data: Mapping[str, Any]
    previous: str
    hash: str
    schema: int = SCHEMA

    @classmethod
    def sealed(
        cls, sequence: int, at: str, kind: EventType, run: str, step: str, data: Mapping[str, Any], previous: str
    ) -> Event:
        """A new event with its hash."""
        digest = event_hash(SCHEMA, sequence, at, kind, run, step, data, previous)
        return cls(sequence, at, kind, run, StepId(step), data, previous, digest)


class Observer(Protocol):
    """Whoever shows a run while it goes on. Called from several threads, after the event is safe on disk."""

    def event(self, event: Event) -> None: ...

    def progress(self, step: StepId, line: str) -> None: ...


def canonical(data: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces, ASCII."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def digest_of(data: Any) -> str:
    """SHA-256 over the canonical JSON, in hex."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()


def event_hash(schema: int, sequence: int, at: str, kind: str, run: str, step: str, data: Any, previous: str) -> str:
    """The hash an event must carry."""
    return digest_of([schema, sequence, at, str(kind), run, step, data, previous])
