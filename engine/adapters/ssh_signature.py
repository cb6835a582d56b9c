"""Signatures with SSH keys, by the `ssh-keygen` program (port Signatures)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from engine.core.action import Deadline
from engine.core.processes import Finished, Launcher
from engine.errors import PermanentError

_FILE = "allowed_signers"
_ARMOUR = "-----BEGIN SSH SIGNATURE-----"


class SshSignatures:
    """`ssh-keygen -Y`. The document goes by standard input; only public things are ever written to a file."""

    def __init__(self, launcher: Launcher, program: str = "ssh-keygen") -> None:
        self._launcher = launcher
        self._program = program

    def sign(self, document: bytes, *, key: Path, namespace: str, deadline: Deadline) -> str:
        """See Signatures. The SSH agent is asked when it runs; nobody is ever asked for a passphrase."""
        path = key.expanduser()
        if not path.is_file():
            raise PermanentError(
                f"no SSH key {key} to sign with: name another, or make one with  ssh-keygen -t ed25519 -f {key}"
            )
        agent = {"SSH_AUTH_SOCK": socket} if (socket := os.environ.get("SSH_AUTH_SOCK", "")) else {}
        argv = [self._program, "-Y", "sign", "-f", str(path), "-n", namespace]
        done = self._launcher.run(
            argv, deadline=deadline, stdin=document, env={**agent, "SSH_ASKPASS_REQUIRE": "never"}
        )
        if done.code or not done.stdout.startswith(_ARMOUR):
            raise PermanentError(f"cannot sign with {key}: {_unsigned(done, path)}")
        return done.stdout

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
        """See Signatures."""
        with _files(allowed_signers, signature) as (signers, armoured):
            argv = [self._program, "-Y", "verify", "-f", signers, "-I", principal, "-n", namespace, "-s", armoured]
            argv += ["-O", f"verify-time={at.astimezone(UTC):%Y%m%d%H%M%SZ}"] if at else []
            done = self._launcher.run(argv, deadline=deadline, stdin=document)
            if done.code:
                raise PermanentError(
                    f"the signature does not hold for {principal}: {_refused(done, signers, principal)}"
                )

    def principals(self, signature: str, *, allowed_signers: str, deadline: Deadline) -> Sequence[str]:
        """See Signatures."""
        with _files(allowed_signers, signature) as (signers, armoured):
            argv = [self._program, "-Y", "find-principals", "-f", signers, "-s", armoured]
            done = self._launcher.run(argv, deadline=deadline)
            if not done.code:
                return done.stdout.splitlines()
            if "No principal matched" in done.stderr:
                return []
            raise PermanentError(f"cannot tell whose signature it is: {_said(done, signers)}")


@contextmanager
def _files(allowed_signers: str, signature: str) -> Iterator[tuple[str, str]]:
    """ssh-keygen takes both as files only."""
    with tempfile.TemporaryDirectory(prefix="runbook-signature-") as folder:
        signers, armoured = Path(folder, _FILE), Path(folder, "signature")
        signers.write_text(allowed_signers, encoding="utf-8")
        armoured.write_text(signature, encoding="utf-8")
        yield str(signers), str(armoured)


def _unsigned(done: Finished, key: Path) -> str:
    if "incorrect passphrase" in done.stderr or "passphrase" in done.stderr.lower():
        return f"it wants a passphrase. Give it to the agent first:  ssh-add {key}"
    return done.stderr.strip() or f"ssh-keygen ended with {done.code} and no signature"


def _refused(done: Finished, signers: str, principal: str) -> str:
    """ssh-keygen says nothing when the principal has no such key: the file's other lines do not matter."""
    said = _said(done, signers)
    return said or f"{_FILE} has no line that gives {principal} the key it was made with"


def _said(done: Finished, signers: str) -> str:
    """Its words without its standing sentence, the temporary file by the name a person knows."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Could not verify signature")]
    return "; ".join(line.strip().replace(signers, _FILE) for line in lines if line.strip())
