"""The keys of a `secret`: how each is made, and what is wrong with a value that is there already."""

from __future__ import annotations

import base64
import binascii
import secrets
import string
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engine.actions.given_certificate import certificate_lacks, private_key_lacks
from engine.core.redaction import Secret
from engine.core.weakness import SHORTEST, is_placeholder, weakness

ALPHABETS = {
    "alphanumeric": string.ascii_letters + string.digits,
    "hex": "0123456789abcdef",
    "base64url": string.ascii_letters + string.digits + "-_",
    # Without quotes, backslash, $, %, @, :, / and space: they break in shells, URLs and connection strings.
    "symbols": string.ascii_letters + string.digits + "!#*+,-.;=?^_~",
}
ENCODINGS: Mapping[str, tuple[Callable[[bytes], str], Callable[[str], bytes]]] = {
    "hex": (bytes.hex, bytes.fromhex),
    "base64": (lambda raw: base64.b64encode(raw).decode(), lambda text: base64.b64decode(text, validate=True)),
}


class Generate(BaseModel):
    """A random value: characters (`length`, `alphabet`), bytes (`bytes`, `encoding`), or a private key."""

    model_config = ConfigDict(extra="forbid")

    length: int = Field(default=40, ge=16, le=4096, description="How many characters.")
    alphabet: Literal["alphanumeric", "hex", "base64url", "symbols"] = Field(
        default="alphanumeric", description="Which characters."
    )
    bytes: int | None = Field(default=None, ge=16, le=1024, description="How many random bytes, instead of characters.")
    encoding: Literal["hex", "base64"] = Field(default="hex", description="How the bytes are written.")
    private_key: Literal["ed25519"] | None = Field(
        default=None, description="A private key (PKCS #8, PEM), instead of characters."
    )
    replace: bool = Field(
        default=False,
        description="Replace an existing value that is a placeholder, weak, expired or not as demanded here; else "
        "the plan is refused, because something may use it.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Generate:
        given = self.model_fields_set
        kinds = [given & {"length", "alphabet"}, given & {"bytes", "encoding"}, given & {"private_key"}]
        if sum(map(bool, kinds)) > 1:
            raise ValueError("wants either length and alphabet, or bytes and encoding, or private_key")
        if "encoding" in given and self.bytes is None:
            raise ValueError("encoding needs bytes")
        return self

    def made(self) -> str:
        """A new value."""
        if self.private_key:
            return _private_key()
        if self.bytes:
            return ENCODINGS[self.encoding][0](secrets.token_bytes(self.bytes))
        alphabet = ALPHABETS[self.alphabet]
        return "".join(secrets.choice(alphabet) for _ in range(self.length))

    def lacks(self, value: str) -> str:
        """What is wrong with an existing value, without showing it; empty: nothing."""
        if self.private_key:
            return "" if _is_ed25519(value) else f"no {self.private_key} private key"
        if self.bytes:
            return weakness(value) or self._lacks_bytes(value)
        if is_placeholder(value):
            return "a placeholder"
        if len(value) < self.length:
            return f"{len(value)} of {self.length} characters"
        if not set(value) <= set(ALPHABETS[self.alphabet]):
            return f"not {self.alphabet}"
        return weakness(value)

    def _lacks_bytes(self, value: str) -> str:
        try:
            found = len(ENCODINGS[self.encoding][1](value))
        except (ValueError, binascii.Error):
            return f"not {self.encoding}"
        return "" if found == self.bytes else f"{found} of {self.bytes} bytes"

    def describe(self) -> str:
        """What a new value is, for a diff."""
        if self.private_key:
            return f"{self.private_key} private key, generated"
        if self.bytes:
            return f"{self.bytes} bytes in {self.encoding}, generated"
        return f"{self.length} {self.alphabet}, generated"


class Given(BaseModel):
    """A value that only a person, or another system, can put into the store."""

    model_config = ConfigDict(extra="forbid")

    form: Literal["text", "certificate", "private_key"] = Field(
        default="text", description="What it must be: any text, or PEM of one of these."
    )
    min_length: int = Field(default=SHORTEST, ge=1, le=4096, description="Of a text, how many characters at least.")
    hosts: list[str] = Field(default_factory=list, description="Of a certificate, the host names it must be for.")
    days_left: int = Field(default=0, ge=0, description="Of a certificate, how many days it must still be valid.")
    certificate: str = Field(default="", description="Of a private key, the key with the certificate it belongs to.")

    @model_validator(mode="after")
    def _fits_its_form(self) -> Given:
        for field, form in (("hosts", "certificate"), ("days_left", "certificate"), ("certificate", "private_key")):
            if field in self.model_fields_set and self.form != form:
                raise ValueError(f"{field} needs form: {form}")
        return self

    def lacks(self, value: str, others: Mapping[str, Secret], now: datetime) -> str:
        """What is wrong with the value, without showing it. `others`: the keys beside it."""
        if self.form == "certificate":
            return certificate_lacks(value, self.hosts, self.days_left, now)
        if self.form == "private_key":
            beside = others.get(self.certificate)
            return private_key_lacks(value, beside.reveal() if beside else None)
        if len(value) < self.min_length:
            return f"only {len(value)} of {self.min_length} characters"
        return weakness(value) if self.min_length >= SHORTEST else "a placeholder" if is_placeholder(value) else ""


class GeneratedKey(BaseModel):
    """A key whose value is generated once and then kept."""

    model_config = ConfigDict(extra="forbid")

    generate: Generate = Field(description="How a new value is made, and what an existing one must meet.")


class GivenKey(BaseModel):
    """A key whose value must be in the store already: a bought certificate, another company's token."""

    model_config = ConfigDict(extra="forbid")

    given: Given = Field(description="What the value must meet; `{}` for any text that is not weak.")


class PublicKey(BaseModel):
    """A key that holds the public half of another one of this secret."""

    model_config = ConfigDict(extra="forbid")

    public_of: str = Field(description="The key with the private half.")


class LiteralKey(BaseModel):
    """A key whose value stands in the runbook: a user name, a host. Not for passwords."""

    model_config = ConfigDict(extra="forbid")

    value: str = Field(description="The value itself.")

    @field_validator("value")
    @classmethod
    def _no_placeholder(cls, value: str) -> str:
        if is_placeholder(value):
            raise ValueError(f"'{value}' is a placeholder; generate the value instead")
        return value


Key = GeneratedKey | GivenKey | PublicKey | LiteralKey


def is_sensitive(key: Key) -> bool:
    return isinstance(key, GeneratedKey | GivenKey)


def public_half(private: str) -> str | None:
    """The public key (PEM) of a private one; None when it is none."""
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(private.encode(), None)
    except (ValueError, TypeError):
        return None
    form, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(form, kind).decode()


def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    form, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Ed25519PrivateKey.generate().private_bytes(form, kind, serialization.NoEncryption()).decode()


def _is_ed25519(value: str) -> bool:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        return isinstance(serialization.load_pem_private_key(value.encode(), None), Ed25519PrivateKey)
    except (ValueError, TypeError):
        return False


def made(keys: Mapping[str, Key], names: list[str], there: Mapping[str, Secret]) -> dict[str, Secret]:
    """New values for these keys; a public half follows its private one, new or `there`."""
    values = {n: Secret(k.generate.made()) for n in names if isinstance(k := keys[n], GeneratedKey)}
    values |= {n: Secret(k.value) for n in names if isinstance(k := keys[n], LiteralKey)}
    for name in names:
        key = keys[name]
        if isinstance(key, PublicKey):
            private = values.get(key.public_of) or there[key.public_of]
            values[name] = Secret(public_half(private.reveal()) or "")
    return values
