"""A checklist as data: each line with what shows it, or why nothing does. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from engine.core.evidence import Proof, ProofKind


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a checklist."""

    section: str
    text: str
    proofs: tuple[Proof, ...]
    missing: str
    """Why nothing shows it yet; empty when `proofs` do."""

    @property
    def attested(self) -> bool:
        """Whether a person's word is part of what shows it."""
        return not self.missing and any(p.kind is ProofKind.ATTESTATION for p in self.proofs)


@dataclass(frozen=True, slots=True)
class Checklist:
    """A checklist, read."""

    title: str
    lines: tuple[Line, ...]
