"""A password in a check's parameters: named, never written."""

from __future__ import annotations

from pydantic import Field

from engine.checks.looking import CheckModel
from engine.core.ports import SecretStore
from engine.core.redaction import Secret
from engine.errors import NotYetError


class PasswordReference(CheckModel):
    """Where a password is kept. It is read when the check runs."""

    secret: str = Field(description="Path in the secret store.", json_schema_extra={"runbook-names": "secret"})
    key: str = Field(default="password", description="Which of its keys.")


def read_password(store: SecretStore, reference: PasswordReference) -> Secret:
    """The current value. NotYetError when the path or key is not there."""
    found = store.read(reference.secret, sensitive=(reference.key,))
    if found is None or found.deleted or reference.key not in found.values:
        raise NotYetError(f"secret {reference.secret} has no {reference.key} yet")
    return found.values[reference.key]
