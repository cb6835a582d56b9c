"""Signatures by SSH keys, with the real ssh-keygen: what holds, and each way in which one does not."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from engine.adapters.launcher import ProcessLauncher
from engine.adapters.ssh_signature import SshSignatures
from engine.core.action import Deadline
from engine.core.redaction import Redactor
from engine.errors import PermanentError
from tests.fakes.required import missing

PURPOSE = "runbook-attestation"


@pytest.fixture(scope="module", autouse=True)
def _program():
    if shutil.which("ssh-keygen") is None:
        missing("ssh-keygen", "no ssh-keygen on PATH")


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return SshSignatures(ProcessLauncher(tmp_path / "state", Redactor(), "test"))


def key(folder, name="key", passphrase=""):
    """A private key, and the line of allowed_signers that gives it to `name@example.test`."""
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", path], check=True)
    public = path.with_suffix(".pub").read_text().strip()
    return path, f"{name}@example.test {public}\n"


def verify(ssh, signature, signers, *, document=b"said", principal="key@example.test", namespace=PURPOSE, at=None):
    ssh.verify(
        document,
        signature,
        allowed_signers=signers,
        principal=principal,
        namespace=namespace,
        deadline=Deadline(30),
        at=at,
    )


def signed(ssh, path, document=b"said"):
    return ssh.sign(document, key=path, namespace=PURPOSE, deadline=Deadline(30))


def test_what_was_signed_verifies_and_names_its_signer(ssh, tmp_path):
    path, line = key(tmp_path)
    _, other = key(tmp_path, "other")
    signature = signed(ssh, path)
    verify(ssh, signature, other + line)
    assert ssh.principals(signature, allowed_signers=other + line, deadline=Deadline(30)) == ["key@example.test"]


def test_a_document_of_any_bytes(ssh, tmp_path):
    path, line = key(tmp_path)
    document = bytes(range(256)) * 1000
    verify(ssh, signed(ssh, path, document), line, document=document)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"document": b"said otherwise"}, "incorrect signature"),
        ({"namespace": "runbook-backup"}, "namespace does not match"),
        ({"principal": "other@example.test"}, "no line that gives other@example.test the key"),
    ],
)
def test_what_does_not_hold_says_why(ssh, tmp_path, change, reason):
    path, line = key(tmp_path)
    with pytest.raises(PermanentError, match=reason):
        verify(ssh, signed(ssh, path), line, **change)


def test_a_key_that_was_taken_out_of_the_file_holds_no_more(ssh, tmp_path):
    path, _ = key(tmp_path)
    _, other = key(tmp_path, "other")
    signature = signed(ssh, path)
    with pytest.raises(PermanentError, match=r"no line that gives key@example\.test"):
        verify(ssh, signature, other)
    assert ssh.principals(signature, allowed_signers=other, deadline=Deadline(30)) == []


def test_a_key_for_another_purpose_is_refused(ssh, tmp_path):
    path, line = key(tmp_path)
    limited = line.replace(" ssh-", ' namespaces="runbook-backup" ssh-')
    with pytest.raises(PermanentError, match="allowed_signers:1: key is not permitted"):
        verify(ssh, signed(ssh, path), limited)


def test_a_key_that_expired_holds_for_what_it_signed_before(ssh, tmp_path):
    path, line = key(tmp_path)
    expired = line.replace(" ssh-", ' valid-before="20250101Z" ssh-')
    with pytest.raises(PermanentError, match="key has expired"):
        verify(ssh, signed(ssh, path), expired)
    verify(ssh, signed(ssh, path), expired, at=datetime(2024, 6, 1, tzinfo=UTC))


def test_malformed_files_say_so(ssh, tmp_path):
    path, line = key(tmp_path)
    with pytest.raises(PermanentError, match="does not hold"):
        verify(ssh, "junk", line)
    with pytest.raises(PermanentError, match="allowed_signers:1: "):
        verify(ssh, signed(ssh, path), "key@example.test nothing\n")


def test_a_missing_key_says_how_to_make_one(ssh, tmp_path):
    with pytest.raises(PermanentError, match=r"no SSH key .*/none to sign with.*\n?.*ssh-keygen -t ed25519"):
        signed(ssh, tmp_path / "none")


def test_a_key_with_a_passphrase_is_for_the_agent(ssh, tmp_path):
    path, _ = key(tmp_path, "locked", "a long passphrase")
    with pytest.raises(PermanentError, match=r"it wants a passphrase.*ssh-add"):
        signed(ssh, path)
