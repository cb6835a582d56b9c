"""What a runbook's files may hold, as pydantic models: the keywords of a step, a phase and a runbook.

An action's own key and a check's family are not named here: they come from the registries.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from engine.core.model import OnFailure

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
DURATION_PATTERN = r"^(\d+d)?(\d+h)?(\d+m)?(\d+(\.\d+)?s)?$"


def duration(text: Any) -> timedelta:
    """`90s`, `5m`, `1h30m`, `7d`. ValueError for anything else."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if found is None:
        raise ValueError("should be a duration: 90s, 5m, 1h30m, 7d")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError as error:
        raise ValueError("should be a duration of less than a million days") from error


def _some_time(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("should be longer than nothing")
    return value


def _tags(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Duration = Annotated[
    timedelta, BeforeValidator(duration), WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})
]
Timeout = Annotated[Duration, AfterValidator(_some_time)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")]
Tags = Annotated[
    list[str],
    BeforeValidator(_tags),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
CheckEntry = dict[str, Any]


class Keywords(BaseModel):
    """The keywords of a step, beside the one key that names its action."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Slug | None = Field(None, description="What everything refers to. Default: made from `name`.")
    name: str | None = Field(None, description="What it does, for a person.")
    when: bool | str | list[str] | None = Field(
        None, description="An expression without `{{ }}`; the step is skipped when it is false. A list: all of them."
    )
    needs: list[str] | None = Field(
        None,
        description="Steps to wait for: `id` in this phase, or `phase/id`. Default: every step above. `[]`: none.",
    )
    loop: list[Any] | str | None = Field(
        None, description="One turn of the step per item, as `{{ item }}`: a list, or `{{ expression }}` giving one."
    )
    key: str | None = Field(
        None, description="What tells the turns of a loop apart: a field of the item, or a template."
    )
    vars: dict[str, Any] = Field(default_factory=dict, description="Variables of this step alone.")
    register_: Identifier | None = Field(
        None, alias="register", description="The name under which later steps see what this step put out."
    )
    tags: Tags = Field(default_factory=list, description="Words by which steps can be chosen.")
    timeout: Timeout = Field(timedelta(minutes=5), description="How long the step may take: 90s, 5m, 1h30m.")
    retries: int = Field(0, ge=0, le=100, description="How often a passing trouble is tried again.")
    delay: Duration = Field(timedelta(seconds=1), description="The first pause between two attempts.")
    verify: list[CheckEntry] = Field(default_factory=list, description="Checks that prove the step.")
    unless: list[CheckEntry] = Field(
        default_factory=list, description="Checks that, when all pass, mean there is nothing to do."
    )
    fresh: Duration | None = Field(None, description="How old an event's evidence may be and still count: 24h.")
    undo: Any = Field(None, description="The way back, where the action leaves it to the author.")
    irreversible: str | None = Field(
        None, min_length=1, description="Why there is no way back. A barrier for rollback."
    )
    on_failure: OnFailure | None = Field(None, strict=False, description="Instead of the phase's.")
    sensitive: bool = Field(False, description="What it puts out is secret: shown and kept nowhere.")


class PhaseFile(BaseModel):
    """A file of `phases/`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    phase: Slug = Field(description="The phase's id.")
    title: str | None = Field(None, description="For a person. Default: made from `phase`.")
    needs: list[str] | None = Field(None, description="Phases to wait for. Default: the one above. `[]`: none.")
    savepoint: bool = Field(True, description="Once its checks passed, a later failure does not take it back.")
    on_failure: OnFailure = Field(OnFailure.ROLLBACK, strict=False, description="What a failed step means.")
    steps: list[dict[str, Any]] = Field(
        description="In the order they are written; at least one.", json_schema_extra={"minItems": 1}
    )


class RunbookFile(BaseModel):
    """`runbook.yml`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Slug | None = Field(None, description="The folder's name, if given.")
    title: str = Field(description="For a person.")
    vars: dict[str, Any] = Field(default_factory=dict, description="Variables; the inventory's have the say.")
    phases: list[str] | None = Field(None, description="Files, in order. Default: `phases/*.yml`, sorted.")


KEYWORDS = tuple(f.alias or name for name, f in Keywords.model_fields.items())


def slug(name: str) -> str:
    """An id from a name: lower case, words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
