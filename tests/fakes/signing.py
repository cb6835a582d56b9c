"""Who signs backups in a test: a key made for it, and the file that lets it count."""

from __future__ import annotations

import subprocess
from pathlib import Path

from engine.actions.backup_store import NAMESPACE, PRINCIPAL, Signing
from engine.adapters.launcher import ProcessLauncher
from engine.adapters.ssh_signature import SshSignatures
from engine.core.redaction import Redactor


def signing(folder: Path, name: str = "signing", *, allowed: bool = True) -> Signing:
    """With `allowed` False nobody's signature counts."""
    key, signers = make_key(folder, name)
    if not allowed:
        signers.write_text("")
    return Signing(SshSignatures(ProcessLauncher(folder / "state", Redactor(), "test")), key, signers)


def make_key(folder: Path, name: str = "signing") -> tuple[Path, Path]:
    """The key and the allowed signers' file."""
    key, signers = folder / name, folder / f"{name}.signers"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", PRINCIPAL, "-f", str(key)]
    subprocess.run(argv, check=True, capture_output=True)
    public = key.with_name(f"{name}.pub").read_text()
    signers.write_text(f'{PRINCIPAL} namespaces="{NAMESPACE}" {public}')
    return key, signers
