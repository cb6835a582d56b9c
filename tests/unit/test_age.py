"""age over pyrage: streams, documents, and every way it can fail."""

from __future__ import annotations

import pyrage
import pytest

from engine.adapters.age import Age
from engine.errors import PermanentError, TemporaryError, UsageError


@pytest.fixture
def identity():
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def age(identity):
    return Age([str(identity.to_public())], lambda: [f"# created: today\n# public key: age1…\n{identity}\n"])


@pytest.mark.parametrize("pieces", [[], [b""], [b"abc"], [b"", b"a" * 100_000, b"", b"b"]])
def test_a_stream_comes_back(age, tmp_path, pieces):
    target = tmp_path / "out.age"
    age.encrypt(iter(pieces), target)
    back: list[bytes] = []
    age.decrypt(target, back.append)
    assert b"".join(back) == b"".join(pieces)
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_source_that_fails_leaves_no_file_and_keeps_its_error(age, tmp_path):
    def source():
        yield b"begun"
        raise TemporaryError("the pod went away")

    with pytest.raises(TemporaryError, match="the pod went away"):
        age.encrypt(source(), tmp_path / "out.age")
    assert not list(tmp_path.iterdir())


def test_a_sink_that_fails_keeps_its_error(age, tmp_path):
    age.encrypt(iter([b"data"]), tmp_path / "out.age")

    def sink(_piece):
        raise TemporaryError("the disk is full")

    with pytest.raises(TemporaryError, match="the disk is full"):
        age.decrypt(tmp_path / "out.age", sink)


@pytest.mark.parametrize("harm", [lambda b: b[:-3], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda _b: b"no age file"])
def test_a_damaged_file_proves_nothing(age, tmp_path, harm):
    target = tmp_path / "out.age"
    age.encrypt(iter([b"a" * 100_000]), target)
    target.write_bytes(harm(target.read_bytes()))
    with pytest.raises(PermanentError, match=r"cannot decrypt out\.age"):
        age.decrypt(target, bytes)


def test_another_identity_does_not_open_it(age, tmp_path):
    age.encrypt(iter([b"data"]), tmp_path / "out.age")
    other = Age(age.recipients, lambda: [str(pyrage.x25519.Identity.generate())])
    with pytest.raises(PermanentError, match="none of the identities at hand fits"):
        other.decrypt(tmp_path / "out.age", bytes)


def test_without_an_identity_it_says_so(age, tmp_path):
    age.encrypt(iter([b"data"]), tmp_path / "out.age")
    with pytest.raises(PermanentError, match="no identity is at hand"):
        Age(age.recipients, list).decrypt(tmp_path / "out.age", bytes)


def test_a_document(age):
    sealed = age.seal(b"preimage")
    assert sealed.startswith("-----BEGIN AGE ENCRYPTED FILE-----")
    assert age.open(sealed) == b"preimage"


def test_no_recipient_and_a_wrong_one_are_said(tmp_path):
    with pytest.raises(UsageError, match="has no recipients"):
        Age([], list).seal(b"x")
    with pytest.raises(UsageError, match="is not a recipient"):
        Age(["age1nonsense"], list).seal(b"x")


def test_a_malformed_identity_is_never_shown(age):
    broken = Age(age.recipients, lambda: ["AGE-SECRET-KEY-1ALMOSTAKEY"])
    with pytest.raises(UsageError) as caught:
        broken.open(age.seal(b"x"))
    assert "ALMOSTAKEY" not in str(caught.value)


def test_an_ssh_recipient(tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = Ed25519PrivateKey.generate().public_key()
    line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    assert Age([line], list).seal(b"x").startswith("-----BEGIN AGE")
