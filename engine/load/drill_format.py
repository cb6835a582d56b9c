"""What a file of `drills/` may hold, as pydantic models.

The keys of faults and of ways to write sentinels come from the registries, as an action's do.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.load.format import Duration, Slug

REFERENCE = "deploy"
"""The key of an entry that stands for a step of the runbook."""
_STRICT = ConfigDict(extra="forbid", strict=True)


class TargetsFile(BaseModel):
    """What the drill is measured against."""

    model_config = _STRICT

    rpo: Duration = Field(description="The most that may be lost, as time before the fault: 24h.")
    rto: Duration = Field(description="The longest from the fault until all checks pass: 15m.")


class SentinelsFile(BaseModel):
    """How sentinels are written, beside the one key that names the way."""

    model_config = _STRICT

    rate: int | float = Field(5, gt=0, le=100, description="How many a second.")
    before: Duration = Field(timedelta(seconds=5), description="How long before the fault, and again after `prepare`.")


class DetectFile(BaseModel):
    """Who must notice."""

    model_config = _STRICT

    steps: list[str] = Field(min_length=1, description="Steps whose checks are looked at: `phase/step`.")
    within: Duration = Field(timedelta(minutes=2), description="How long the fault may stay unnoticed.")


class VerifyFile(BaseModel):
    """What proves the recovery."""

    model_config = _STRICT

    phases: list[str] = Field(default_factory=list, description="Phases, with every check of every step.")
    steps: list[str] = Field(default_factory=list, description="More steps: `phase/step`.")
    within: Duration = Field(timedelta(minutes=5), description="How long each step's checks may take to pass.")


class DrillFile(BaseModel):
    """A file of `drills/`."""

    model_config = _STRICT

    drill: Slug = Field(description="Its name, which is the file's too.")
    title: str = Field(min_length=1, description="The disaster, for a person.")
    targets: TargetsFile = Field(description="What may be lost, and how long it may take.")
    sentinels: dict[str, Any] = Field(description="Numbered writes: `rate`, `before`, and the way, as `sql`.")
    prepare: list[dict[str, Any]] = Field(
        default_factory=list, description="Steps carried out while sentinels are written, before the fault."
    )
    fault: dict[str, Any] = Field(description="What happens: one fault, and perhaps `timeout`.")
    detect: DetectFile = Field(description="Who must notice.")
    recover: list[dict[str, Any]] = Field(
        min_length=1, description="The way back: steps, or `deploy: phase/step` for one of the runbook."
    )
    verify: VerifyFile = Field(description="What proves the recovery.")


MEANINGLESS = ("needs", "loop", "key", "tags", "on_failure", "undo", "irreversible")
"""Keywords of a step that say nothing in a drill: its steps follow one another, and nothing is rolled back."""
OF_A_BLOW = ("timeout", "vars")
"""The keywords that sentinels and a fault may have."""
