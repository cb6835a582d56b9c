"""`vault`: the secret store is open, or a secret is there in at least some version."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from engine.checks.looking import CheckModel, finding_of
from engine.core.action import Context, Finding
from engine.core.ports import SecretStore


class VaultParams(CheckModel):
    """Either the store's own state, or one path."""

    initialized: bool | None = Field(default=None, description="Whether it must be initialised.")
    sealed: bool | None = Field(default=None, description="Whether it must be sealed.")
    path: str = Field(
        default="", description="A secret that must be there.", json_schema_extra={"runbook-proves": "secret"}
    )
    version_at_least: int = Field(default=1, ge=1, description="Its smallest version.")

    @model_validator(mode="after")
    def _one_question(self) -> VaultParams:
        if (self.initialized is None and self.sealed is None) == (not self.path):
            raise ValueError("wants either `path`, or `initialized` and/or `sealed`")
        return self


class VaultCheck:
    """Asks the secret store."""

    key: ClassVar[str] = "vault"
    Params: ClassVar[type] = VaultParams

    def __init__(self, store: SecretStore) -> None:
        self._store = store

    def run(self, params: VaultParams, ctx: Context) -> Finding:
        return finding_of(lambda: self._secret(params) if params.path else self._health(params))

    def _health(self, params: VaultParams) -> Finding:
        health = self._store.health()
        wanted = {"initialized": params.initialized, "sealed": params.sealed}
        ok = all(health[name] == value for name, value in wanted.items() if value is not None)
        saw = ", ".join(("" if health[name] else "not ") + name for name in wanted)
        return Finding(ok, f"{saw}, version {health['version']}")

    def _secret(self, params: VaultParams) -> Finding:
        found = self._store.read(params.path, sensitive=())
        if found is None:
            return Finding(False, f"{params.path} does not exist")
        if found.deleted:
            return Finding(False, f"{params.path} is deleted since version {found.version}")
        return Finding(found.version >= params.version_at_least, f"{params.path} is version {found.version}")
