"""Signatures by a person's SSH key, as a protocol: for attestations, and for what a backup says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from engine.core.action import Deadline


class Signatures(Protocol):
    """Detached signatures in OpenSSH's own form (PROTOCOL.sshsig). One namespace per purpose: a signature made for one
    purpose never counts for another."""

    def sign(self, document: bytes, *, key: Path, namespace: str, deadline: Deadline) -> str:
        """The armoured signature. `key`: a private key, or the public half of one that the SSH agent holds.

        PermanentError when the key is missing, or wants a passphrase and no agent has it.
        """

    def verify(
        self,
        document: bytes,
        signature: str,
        *,
        allowed_signers: str,
        principal: str,
        namespace: str,
        deadline: Deadline,
        at: datetime | None = None,
    ) -> None:
        """Raises PermanentError, with the reason, unless the principal's key signed just this for this purpose.

        `allowed_signers` is the text of such a file (ssh-keygen(1), ALLOWED SIGNERS). `at`: when it was signed, for
        keys that are valid for a time; default now. Who gives it must know it from elsewhere than the signature.
        """

    def principals(self, signature: str, *, allowed_signers: str, deadline: Deadline) -> Sequence[str]:
        """Whose key it may be by that file; empty when nobody's. PermanentError for a malformed file or signature."""
