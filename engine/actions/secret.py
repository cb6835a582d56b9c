"""`secret`: values in the secret store, generated once, never overwritten while they meet their policy."""

from __future__ import annotations

import hashlib
import json
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from engine.core.action import CheckSpec, Context, Kind
from engine.core.change import (
    ABSENT,
    Change,
    Delta,
    DiffLine,
    Fidelity,
    Fingerprint,
    Outcome,
    Preimage,
    Reading,
    State,
    Verb,
)
from engine.core.model import ObjectId
from engine.core.ports import SecretStore, SecretVersion
from engine.core.redaction import Secret
from engine.errors import UsageError

ALPHABETS = {
    "alphanumeric": string.ascii_letters + string.digits,
    "hex": "0123456789abcdef",
    "base64url": string.ascii_letters + string.digits + "-_",
    # Without quotes, backslash, $, %, @, :, / and space: they break in shells, URLs and connection strings.
    "symbols": string.ascii_letters + string.digits + "!#*+,-.;=?^_~",
}
_PLACEHOLDERS = {"change_me", "changeme", "change-me", "password", "secret", "example", "todo", "xxx", "default"}


class Generate(BaseModel):
    """A random value."""

    model_config = ConfigDict(extra="forbid")

    length: int = Field(
        default=40, ge=16, le=4096, description="How many characters; an existing shorter one is replaced."
    )
    alphabet: Literal["alphanumeric", "hex", "base64url", "symbols"] = Field(
        default="alphanumeric", description="Which characters; an existing value with others is replaced."
    )

    def lacks(self, value: str) -> str:
        """What is wrong with an existing value, without showing it; empty: nothing."""
        if _is_placeholder(value):
            return "a placeholder"
        if len(value) < self.length:
            return f"{len(value)} of {self.length} characters"
        if not set(value) <= set(ALPHABETS[self.alphabet]):
            return f"not {self.alphabet}"
        return ""


class GeneratedKey(BaseModel):
    """A key whose value is generated once and then kept."""

    model_config = ConfigDict(extra="forbid")

    generate: Generate = Field(description="How a new value is made, and what an existing one must meet.")


class LiteralKey(BaseModel):
    """A key whose value stands in the runbook: a user name, a host. Not for passwords."""

    model_config = ConfigDict(extra="forbid")

    value: str = Field(description="The value itself.")

    @field_validator("value")
    @classmethod
    def _no_placeholder(cls, value: str) -> str:
        if _is_placeholder(value):
            raise ValueError(f"'{value}' is a placeholder; generate the value instead")
        return value


class SecretParams(BaseModel):
    """One secret and the keys it must have. Other keys of it stay as they are."""

    model_config = ConfigDict(extra="forbid")

    path: Annotated[str, Field(min_length=1, description="Path in the store, without mount and `data/`.")]
    keys: Annotated[
        dict[str, GeneratedKey | LiteralKey], Field(min_length=1, description="Key name to how it is made.")
    ]
    store: str = Field(default="vault", description="Which secret store of the environment.")

    @field_validator("path")
    @classmethod
    def _plain_path(cls, path: str) -> str:
        if path != path.strip("/ ") or any(part in ("", ".", "..") for part in path.split("/")):
            raise ValueError(f"'{path}' is not a plain path like team/database")
        return path

    @property
    def generated(self) -> frozenset[str]:
        return frozenset(name for name, key in self.keys.items() if isinstance(key, GeneratedKey))

    def policy(self) -> str:
        """A digest of what is demanded, without any value."""
        demands = {n: k.generate.model_dump() if isinstance(k, GeneratedKey) else "value" for n, k in self.keys.items()}
        return hashlib.sha256(json.dumps(demands, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Seen:
    """The current version and, per key that is not as wanted, why."""

    version: int
    deleted: bool
    lacks: Mapping[str, str]


class SecretAction:
    """Writes what is missing, with the store's compare-and-swap. Undo keeps the new version: something may use it."""

    key: ClassVar[str] = "secret"
    kind: ClassVar[Kind] = Kind.STATE
    Params: ClassVar[type] = SecretParams

    def __init__(self, stores: Mapping[str, SecretStore]) -> None:
        self._stores = stores

    def read(self, params: SecretParams, ctx: Context) -> Reading:
        """The object reads as `meets:POLICY` or as `v3:lacks password`: values are judged here and leave not."""
        seen = _judge(params, self._version(params))
        if not seen.lacks:
            state = {_object(params): Fingerprint(f"meets:{params.policy()}")}
        elif not seen.version:
            state = {}
        else:
            state = {_object(params): Fingerprint(f"v{seen.version}:lacks {','.join(sorted(seen.lacks))}")}
        return Reading(state, seen)

    def plan(self, params: SecretParams, now: Reading, ctx: Context) -> Change:
        seen: _Seen = now.detail
        before = now.state.get(_object(params), ABSENT)
        verb = Verb.NONE if not seen.lacks else Verb.UPDATE if seen.version and not seen.deleted else Verb.CREATE
        delta = Delta(
            before=before,
            after=Fingerprint(f"meets:{params.policy()}"),
            diff=tuple(_line(name, params.keys[name], why) for name, why in seen.lacks.items()),
            undo_to=None,
        )
        return Change(
            step=ctx.step,
            verb=verb,
            fidelity=Fidelity.EXACT,
            objects={_object(params): delta},
            reason="every key is there and meets its policy" if verb is Verb.NONE else "",
            facts={"version": seen.version},
        )

    def capture(self, params: SecretParams, change: Change, now: Reading, ctx: Context) -> Preimage:
        return Preimage(references={"store": params.store, "path": params.path, "version": change.facts["version"]})

    def apply(self, params: SecretParams, change: Change, ctx: Context) -> Outcome:
        """Repeatable: a version that meets the policy is left alone, so a lost answer does not make a third one."""
        seen = _judge(params, self._version(params))
        if not seen.lacks:
            return _outcome(params, seen.version, "kept")
        ctx.deadline.check(f"{ctx.step}: before {params.path} was written")
        values = {name: self._made(params.keys[name]) for name in seen.lacks}
        version = self._store(params).write(params.path, values, expected=change.facts["version"])
        return _outcome(params, version, f"wrote {', '.join(sorted(values))}")

    def read_back(self, params: SecretParams, change: Change, preimage: Preimage, ctx: Context) -> State:
        return self.read(params, ctx).state

    def undo(self, params: SecretParams, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        """Nothing: the version stays on purpose (residue)."""
        return Outcome(summary=f"{params.path} stays: what runs may already use it")

    def checks(self, params: SecretParams) -> Sequence[CheckSpec]:
        return ()

    def _version(self, params: SecretParams) -> SecretVersion | None:
        return self._store(params).read(params.path, sensitive=params.generated)

    def _store(self, params: SecretParams) -> SecretStore:
        try:
            return self._stores[params.store]
        except KeyError:
            known = ", ".join(sorted(self._stores)) or "none"
            raise UsageError(f"secret {params.path}: no store named '{params.store}' (there is: {known})") from None

    def _made(self, key: GeneratedKey | LiteralKey) -> Secret:
        if isinstance(key, LiteralKey):
            return Secret(key.value)
        alphabet = ALPHABETS[key.generate.alphabet]
        return Secret("".join(secrets.choice(alphabet) for _ in range(key.generate.length)))


def _judge(params: SecretParams, current: SecretVersion | None) -> _Seen:
    values = {} if current is None or current.deleted else current.values
    lacks = {}
    for name, key in params.keys.items():
        if name not in values:
            lacks[name] = "missing"
        elif isinstance(key, GeneratedKey):
            lacks[name] = key.generate.lacks(values[name].reveal())
        elif values[name].reveal() != key.value:
            lacks[name] = "another value"
    return _Seen(
        version=current.version if current else 0,
        deleted=bool(current and current.deleted),
        lacks={name: why for name, why in lacks.items() if why},
    )


def _line(name: str, key: GeneratedKey | LiteralKey, why: str) -> DiffLine:
    made = (
        f"{key.generate.length} {key.generate.alphabet}, generated"
        if isinstance(key, GeneratedKey)
        else "as in the runbook"
    )
    return DiffLine(path=name, before=None if why == "missing" else f"({why})", after=f"({made})")


def _outcome(params: SecretParams, version: int, did: str) -> Outcome:
    outputs = {"path": params.path, "version": version}
    return Outcome(summary=f"{params.path} version {version}: {did}", outputs=outputs, evidence=outputs)


def _object(params: SecretParams) -> ObjectId:
    return ObjectId(f"secret {params.path}")


def _is_placeholder(value: str) -> bool:
    return value.strip().lower() in _PLACEHOLDERS or value.strip().lower().startswith(("change_me", "changeme"))
