"""A Context for calling one action or check by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from engine.core.action import Context, Deadline
from engine.core.model import StepId


class PlainInputs:
    """Files as they lie on disk."""

    digest = "0"

    def path(self, name: str) -> Path:
        return Path(name)

    def digest_of(self, name: str) -> str:
        return "0"


def context(**given) -> Context:
    """As a step `phase/step` would get it, with 30 s."""
    defaults = {
        "step": StepId("phase/step"),
        "inputs": PlainInputs(),
        "now": datetime.now(UTC),
        "deadline": Deadline(30),
    }
    return Context(**{**defaults, **given})
