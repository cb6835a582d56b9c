"""`admission`: what the API server says to an object, by a dry run: a rule that refuses nothing is none."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator

from engine.checks.looking import CheckModel
from engine.core.action import Context, Finding
from engine.core.ports import Cluster
from engine.errors import PermanentError

_MANAGER = "runbook-check"
_NAMED = ("apiVersion", "kind", "metadata")


class AdmissionParams(CheckModel):
    """One object, that is never made."""

    object: dict[str, Any] = Field(description="The whole object, as a manifest has it.")
    refused: str = Field(
        default="", description="Words of the refusal that must come; empty: it must be accepted as it is."
    )

    @field_validator("object")
    @classmethod
    def _named(cls, value: dict[str, Any]) -> dict[str, Any]:
        missing = [key for key in _NAMED if not value.get(key)]
        if missing or not isinstance(value["metadata"], dict) or not value["metadata"].get("name"):
            raise ValueError(f"the object needs {', '.join(missing) or 'metadata.name'}")
        return value


class AdmissionCheck:
    """Asks with server-side apply and `dryRun=All`: defaults, quotas, PodSecurity, webhooks and policies speak."""

    key: ClassVar[str] = "admission"
    Params: ClassVar[type] = AdmissionParams

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def run(self, params: AdmissionParams, ctx: Context) -> Finding:
        try:
            look = self._cluster.look([params.object], manager=_MANAGER)[0]
        except PermanentError as error:
            return Finding(bool(params.refused) and params.refused in str(error), str(error))
        if look.dry is None:
            return Finding(False, look.missing)
        return Finding(not params.refused, "accepted" if not params.refused else f"accepted, wanted '{params.refused}'")
