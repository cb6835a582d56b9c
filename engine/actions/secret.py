"""`secret`: values in the secret store, generated once, never overwritten unless the runbook says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from engine.actions.secret_keys import (
    GeneratedKey,
    GivenKey,
    Key,
    LiteralKey,
    PublicKey,
    is_sensitive,
    made,
    public_half,
)
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
from engine.core.keyvault import LONGEST_NAME, secret_name
from engine.core.model import ObjectId
from engine.core.ports import EXPIRES, OWNER, SecretStore
from engine.core.redaction import Secret
from engine.core.weakness import SECRET_KEY, weakness
from engine.errors import RefusedError

_USER_KEYS = ("username", "user", "login")


class SecretParams(BaseModel):
    """One secret and the keys it must have. Other keys of it stay as they are."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        min_length=1,
        description="Path in the store, without mount and `data/`.",
        json_schema_extra={"runbook-makes": "secret"},
    )
    keys: Annotated[dict[str, Key], Field(min_length=1, description="Key name to how it is made.")]
    lifetime_days: int | None = Field(
        default=None,
        ge=1,
        le=3650,
        description="After how many days the values count as expired; counted from when they were written.",
    )

    @field_validator("path")
    @classmethod
    def _plain_path(cls, path: str) -> str:
        if path != path.strip("/ ") or any(part in ("", ".", "..") for part in path.split("/")):
            raise ValueError(f"'{path}' is not a plain path like team/database")
        if len(secret_name(path)) > LONGEST_NAME:
            raise ValueError(
                f"'{path}' is too long: its name in Azure Key Vault would have over {LONGEST_NAME} letters"
            )
        return path

    @field_validator("keys", mode="wrap")
    @classmethod
    def _sound_keys(cls, given: object, inner: ValidatorFunctionWrapHandler) -> dict[str, Key]:
        """What keys say of each other, told at the key it is wrong with."""
        keys: dict[str, Key] = inner(given)
        wrong = list(_mistakes(keys))
        if wrong:
            lines = [
                InitErrorDetails(type=PydanticCustomError("secret_key", message), loc=place, input=None)
                for place, message in wrong
            ]
            raise ValidationError.from_exception_data("keys", lines)
        return keys

    @property
    def sensitive(self) -> frozenset[str]:
        return frozenset(name for name, key in self.keys.items() if is_sensitive(key))

    @property
    def username(self) -> str | None:
        return next((k.value for n in _USER_KEYS if isinstance(k := self.keys.get(n), LiteralKey)), None)

    def policy(self) -> str:
        """A digest of what is demanded, without any value."""
        demands = {n: "value" if isinstance(k, LiteralKey) else k.model_dump() for n, k in self.keys.items()}
        return hashlib.sha256(json.dumps(demands, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Seen:
    """The current version; per key that is not as wanted, why; what of its metadata is to be written; and what
    only a person can settle."""

    version: int
    deleted: bool
    values: Mapping[str, Secret]
    lacks: Mapping[str, str]
    metadata: Mapping[str, str]
    refused: Mapping[str, str]

    @property
    def done(self) -> bool:
        return not (self.lacks or self.metadata or self.refused)

    def fingerprint(self) -> Fingerprint:
        marks = [*sorted(self.lacks), *(f"({name})" for name in sorted(self.metadata))]
        marks += [f"refused {name or 'owner'}" for name in sorted(self.refused)]
        return Fingerprint(f"v{self.version}:lacks {','.join(marks)}")


class SecretAction:
    """Writes what is missing, with the store's compare-and-swap. Undo keeps the new version: something may use it.

    `owner` (`RUNBOOK/ENVIRONMENT`) is written beside the values; a path that carries another one is refused.
    """

    key: ClassVar[str] = "secret"
    kind: ClassVar[Kind] = Kind.STATE
    Params: ClassVar[type] = SecretParams

    def __init__(self, store: SecretStore, owner: str) -> None:
        self._store = store
        self._owner = owner

    def read(self, params: SecretParams, ctx: Context) -> Reading:
        """The object reads as `meets:POLICY` or as `v3:lacks password`: values are judged here and leave not."""
        seen = self._judge(params, ctx)
        if seen.done:
            state = {_object(params): Fingerprint(f"meets:{params.policy()}")}
        else:
            state = {_object(params): seen.fingerprint()} if seen.version else {}
        return Reading(state, seen)

    def plan(self, params: SecretParams, now: Reading, ctx: Context) -> Change:
        """RefusedError for what only a person can settle: another owner, a value that is given and missing or weak."""
        seen: _Seen = now.detail
        _refuse(params, seen)
        fresh = not seen.version or seen.deleted
        verb = Verb.NONE if seen.done else Verb.CREATE if fresh else Verb.UPDATE
        diff = [_line(name, params.keys[name], why) for name, why in seen.lacks.items()]
        diff += [DiffLine(path=f"({name})", before=None, after=value) for name, value in self._shown(seen)]
        delta = Delta(
            before=now.state.get(_object(params), ABSENT),
            after=Fingerprint(f"meets:{params.policy()}"),
            diff=tuple(diff),
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
        return Preimage(references={"path": params.path, "version": change.facts["version"]})

    def apply(self, params: SecretParams, change: Change, ctx: Context) -> Outcome:
        """Repeatable: a version that meets the policy is left alone, so a lost answer does not make a third one."""
        seen = self._judge(params, ctx)
        if seen.done:
            return _outcome(params, seen.version, "kept")
        _refuse(params, seen)
        ctx.deadline.check(f"{ctx.step}: before {params.path} was written")
        if not seen.lacks:
            self._store.annotate(params.path, seen.metadata)
            return _outcome(params, seen.version, f"noted {', '.join(sorted(seen.metadata))}")
        values = made(params.keys, list(seen.lacks), seen.values)
        version = self._store.write(
            params.path, values, expected=change.facts["version"], metadata=self._metadata(params, ctx.now)
        )
        return _outcome(params, version, f"wrote {', '.join(sorted(values))}")

    def read_back(self, params: SecretParams, change: Change, preimage: Preimage, ctx: Context) -> State:
        return self.read(params, ctx).state

    def undo(self, params: SecretParams, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        """Nothing: the version stays on purpose (residue)."""
        return Outcome(summary=f"{params.path} stays: what runs may already use it")

    def checks(self, params: SecretParams) -> Sequence[CheckSpec]:
        return ()

    def _judge(self, params: SecretParams, ctx: Context) -> _Seen:
        current = self._store.read(params.path, sensitive=params.sensitive)
        values = {} if current is None or current.deleted else current.values
        metadata = current.metadata if current else {}
        lacks, refused = _lacks(params, values, _expired(metadata, ctx.now), ctx.now)
        if not self._store.known:
            refused = {}
        owner = metadata.get(OWNER, self._owner)
        if owner != self._owner:
            refused = {"": f"belongs to {owner}; this is {self._owner}. Use another path, or have it given over"}
        noted = self._metadata(params, ctx.now)
        missing = {name: value for name, value in noted.items() if name not in metadata}
        version, deleted = (current.version, current.deleted) if current else (0, False)
        return _Seen(version, deleted, values, lacks, missing, refused)

    def _metadata(self, params: SecretParams, now: datetime) -> dict[str, str]:
        noted = {OWNER: self._owner}
        if params.lifetime_days:
            noted[EXPIRES] = (now + timedelta(days=params.lifetime_days)).replace(microsecond=0).isoformat()
        return noted

    @staticmethod
    def _shown(seen: _Seen) -> list[tuple[str, str]]:
        """Metadata for the diff of a secret that is there; a new one gets it anyway."""
        return sorted(seen.metadata.items()) if seen.version else []


def _lacks(
    params: SecretParams, values: Mapping[str, Secret], expired: str, now: datetime
) -> tuple[dict[str, str], dict[str, str]]:
    """What is wrong with which key: what is written anew, and what is not without a person's word."""
    lacks: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name, key in params.keys.items():
        value = values[name].reveal() if name in values else None
        if isinstance(key, GivenKey):
            wrong = "not there: put it into the store" if value is None else key.given.lacks(value, values, now)
            why = wrong or expired
            refused |= {name: why} if why else {}
        elif value is None:
            lacks[name] = "missing"
        elif isinstance(key, GeneratedKey):
            same = bool(params.username) and value.lower() == str(params.username).lower()
            why = "the same as the user name" if same else key.generate.lacks(value) or expired
            (lacks if key.generate.replace else refused).update({name: why} if why else {})
        elif isinstance(key, LiteralKey) and value != key.value:
            lacks[name] = "another value"
    for name, key in params.keys.items():
        if isinstance(key, PublicKey) and name not in lacks:
            private = values.get(key.public_of)
            if key.public_of in lacks or (private and public_half(private.reveal()) != values[name].reveal()):
                lacks[name] = "of another key"
    return lacks, refused


def _mistakes(keys: Mapping[str, Key]) -> list[tuple[tuple[str, ...], str]]:
    """Place in `keys`, and what is wrong there."""
    username = next((k.value for n in _USER_KEYS if isinstance(k := keys.get(n), LiteralKey)), None)
    found: list[tuple[tuple[str, ...], str]] = []
    for name, key in keys.items():
        if isinstance(key, LiteralKey) and SECRET_KEY.search(name):
            why = weakness(key.value, username)
            found += [((name, "value"), f"is {why}; generate it, or have it given")] if why else []
        if isinstance(key, GivenKey) and key.given.certificate:
            beside = keys.get(key.given.certificate)
            if not (isinstance(beside, GivenKey) and beside.given.form == "certificate"):
                found.append(
                    ((name, "given", "certificate"), f"'{key.given.certificate}' is no certificate given here")
                )
        if isinstance(key, PublicKey):
            private = keys.get(key.public_of)
            if not (isinstance(private, GeneratedKey) and private.generate.private_key):
                found.append(((name, "public_of"), f"'{key.public_of}' is no private key that is generated here"))
    return found


def _expired(metadata: Mapping[str, str], now: datetime) -> str:
    until = metadata.get(EXPIRES)
    return f"expired on {until[:10]}" if until and datetime.fromisoformat(until) <= now else ""


def _refuse(params: SecretParams, seen: _Seen) -> None:
    """Names path and key, never a value."""
    if not seen.refused:
        return
    if "" in seen.refused:
        raise RefusedError(f"secret {params.path} {seen.refused['']}. Nothing was changed.")
    said = "; ".join(f"key {name} is {why}" for name, why in sorted(seen.refused.items()))
    ours = any(isinstance(params.keys[name], GeneratedKey) for name in seen.refused)
    way = "`replace: true` under `generate` has a new value made" if ours else "a person has to put a good one there"
    raise RefusedError(f"secret {params.path}: {said}. Nothing was changed: {way}.")


def _line(name: str, key: Key, why: str) -> DiffLine:
    if isinstance(key, GeneratedKey):
        new = key.generate.describe()
    else:
        new = "as in the runbook" if isinstance(key, LiteralKey) else "public half"
    return DiffLine(path=name, before=None if why == "missing" else f"({why})", after=f"({new})")


def _outcome(params: SecretParams, version: int, did: str) -> Outcome:
    outputs = {"path": params.path, "version": version}
    return Outcome(summary=f"{params.path} version {version}: {did}", outputs=outputs, evidence=outputs)


def _object(params: SecretParams) -> ObjectId:
    return ObjectId(f"secret {params.path}")
