"""What a person states and signs, where no system can show it. Pure: the signatures port signs and verifies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.core.events import Event, EventType, canonical

NAMESPACE = "runbook-attestation"
"""The signatures' namespace: a signature made for anything else is none here."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """One statement of one person, as the journal holds it."""

    environment: str
    runbook: str
    subject: str
    """An id of the readiness file's `attestations`."""
    statement: str
    by: str
    """The principal, as `allowed_signers` names who may sign."""
    at: str
    """UTC, ISO 8601."""
    until: str
    """When it counts no more (UTC, ISO 8601)."""
    file: str = ""
    """Evidence beside it, relative to the project's root; empty: none."""
    sha256: str = ""
    signature: str = ""
    journaled: str = ""
    """When the journal got it: what a key's validity is held against, since `at` is what the signer says."""

    def document(self) -> bytes:
        """What is signed: everything but the signature, in one spelling."""
        return canonical({"purpose": NAMESPACE, "schema": 1, **self.content()}).encode()

    def content(self) -> dict[str, str]:
        """Without the signature."""
        names = ("environment", "runbook", "subject", "statement", "by", "at", "until", "file", "sha256")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, str]:
        return {**self.content(), "signature": self.signature}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], journaled: str) -> Attestation:
        names = ("environment", "runbook", "subject", "statement", "by", "at", "until", "file", "sha256", "signature")
        return cls(**{name: str(data.get(name, "")) for name in names}, journaled=journaled)


def attestations(events: Iterable[Event], environment: str, runbook: str) -> list[Attestation]:
    """Those of one environment and runbook, oldest first."""
    found = (Attestation.from_json(e.data, e.at) for e in events if e.type is EventType.ATTESTED)
    return [a for a in found if (a.environment, a.runbook) == (environment, runbook)]
