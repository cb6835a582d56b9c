"""`bucket`: a bucket in the object store, with the settings that make it fit for backups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
from engine.core.ports import ObjectStore
from engine.errors import RefusedError

OWNED = {"managed-by": "runbook"}
_EXISTS = Fingerprint("exists")


class Lifecycle(BaseModel):
    """When the store removes things by itself. What is not said is not touched."""

    model_config = ConfigDict(extra="forbid")

    expire_days: int | None = Field(default=None, ge=1, description="Days after which an object is removed.")
    noncurrent_days: int | None = Field(
        default=None, ge=1, description="Days that an overwritten or deleted version is kept."
    )


class ObjectLock(BaseModel):
    """For how long a new object cannot be deleted or overwritten by anybody it is not meant for."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["governance", "compliance"] = Field(
        default="governance",
        description="`governance`: who has a right of its own may shorten it; `compliance`: nobody, not even the root.",
    )
    days: int = Field(ge=1, le=36500, description="Default retention of a new object.")


class BucketParams(BaseModel):
    """One bucket and its settings."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        description="Name, unique in the object store.",
        json_schema_extra={"runbook-makes": "bucket"},
    )
    versioning: bool = Field(default=True, description="Keep what is overwritten or deleted.")
    encryption: bool = Field(default=True, description="Encrypt at rest by default.")
    public_access: Literal["blocked", "unmanaged"] = Field(
        default="blocked", description="`blocked`: nothing in it can be made public; `unmanaged`: not looked at."
    )

    lifecycle: Lifecycle = Field(default_factory=Lifecycle, description="When the store removes things by itself.")
    object_lock: ObjectLock | None = Field(
        default=None, description="Retention of new objects. Only a bucket that is made with it can have it."
    )

    @model_validator(mode="after")
    def _consistent(self) -> BucketParams:
        lock, expires = self.object_lock, self.lifecycle.expire_days
        if lock and not self.versioning:
            raise ValueError("`object_lock` needs `versioning: true`: what is locked is a version")
        if lock and expires and expires < lock.days:
            raise ValueError(f"`lifecycle.expire_days` {expires} ends before `object_lock.days` {lock.days}")
        return self

    def wanted(self) -> Mapping[str, Any]:
        """The declared settings in the form of ObjectStore.bucket."""
        settings: dict[str, Any] = {name: days for name, days in self.lifecycle.model_dump().items() if days}
        settings |= {"versioning": self.versioning, "encryption": self.encryption}
        if self.public_access == "blocked":
            settings["public_access"] = "blocked"
        if self.object_lock:
            settings["object_lock"] = self.object_lock.model_dump()
        return settings


class BucketAction:
    """The bucket is one object, each declared setting another.

    A setting that is off reads as absent, as does one of a bucket that is not there: so a bucket whose creation
    was interrupted stands half at `after`, half at `before`, and apply goes on.
    """

    key: ClassVar[str] = "bucket"
    kind: ClassVar[Kind] = Kind.STATE
    Params: ClassVar[type] = BucketParams

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def read(self, params: BucketParams, ctx: Context) -> Reading:
        found = self._objects.bucket(params.name)
        if found is None:
            return Reading({}, None)
        state = {_object(params): _EXISTS}
        for setting in params.wanted():
            fingerprint = _fingerprint(found[setting])
            if fingerprint != ABSENT:
                state[_object(params, setting)] = fingerprint
        return Reading(state, found)

    def plan(self, params: BucketParams, now: Reading, ctx: Context) -> Change:
        """What is created stays (residue): it may hold backups by a rollback. A changed setting goes back."""
        found: Mapping[str, Any] | None = now.detail
        self._refuse_impossible(params, found)
        objects = {
            _object(params): Delta(
                before=now.state.get(_object(params), ABSENT),
                after=_EXISTS,
                diff=() if found else (DiffLine("bucket", None, params.name),),
                undo_to=_EXISTS if found else None,
            )
        }
        for setting, value in params.wanted().items():
            before = now.state.get(_object(params, setting), ABSENT)
            objects[_object(params, setting)] = Delta(
                before=before,
                after=_fingerprint(value),
                diff=tuple(_lines(setting, found, value)),
                undo_to=before if found else None,
            )
        changed = any(delta.before != delta.after for delta in objects.values())
        verb = Verb.CREATE if not found else Verb.UPDATE if changed else Verb.NONE
        return Change(step=ctx.step, verb=verb, fidelity=Fidelity.EXACT, objects=objects)

    def capture(self, params: BucketParams, change: Change, now: Reading, ctx: Context) -> Preimage:
        found: Mapping[str, Any] | None = now.detail
        return Preimage(references={"settings": {s: found[s] for s in params.wanted()} if found else None})

    def apply(self, params: BucketParams, change: Change, ctx: Context) -> Outcome:
        ctx.deadline.check(f"{ctx.step}: before bucket {params.name} was touched")
        if change.verb is Verb.CREATE:
            for setting in [s for s in params.wanted() if s in self._objects.shared]:
                self._objects.set_bucket(params.name, setting, params.wanted()[setting])
            self._objects.create_bucket(params.name, object_lock=params.object_lock is not None)
            self._objects.set_bucket(params.name, "tags", OWNED)
        found = self._objects.bucket(params.name) or {}
        set_now = [setting for setting, value in params.wanted().items() if found.get(setting) != value]
        for setting in set_now:
            ctx.deadline.check(f"setting {setting} of bucket {params.name}")
            self._objects.set_bucket(params.name, setting, params.wanted()[setting])
        did = "created" if change.verb is Verb.CREATE else f"set {', '.join(set_now) or 'nothing'}"
        return Outcome(summary=f"bucket {params.name}: {did}", outputs={"name": params.name})

    def read_back(self, params: BucketParams, change: Change, preimage: Preimage, ctx: Context) -> State:
        return self.read(params, ctx).state

    def undo(self, params: BucketParams, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        old: Mapping[str, Any] | None = preimage.references["settings"]
        found = self._objects.bucket(params.name)
        if old is None or found is None:
            return Outcome(summary=f"bucket {params.name} stays: it may hold backups")
        back = [setting for setting, value in old.items() if found[setting] != value]
        for setting in back:
            self._objects.set_bucket(params.name, setting, old[setting])
        return Outcome(summary=f"bucket {params.name}: {', '.join(back) or 'nothing'} set back")

    def _refuse_impossible(self, params: BucketParams, found: Mapping[str, Any] | None) -> None:
        """RefusedError for what no apply could bring about."""
        region = self._objects.region
        if found and region and found["region"] != region:
            raise RefusedError(
                f"bucket {params.name} is in region {found['region']}, and this environment's is {region}. A bucket "
                "cannot be moved: name another one, or set s3_region. Nothing was changed."
            )
        if params.object_lock and found and found["object_lock"] is None:
            raise RefusedError(
                f"bucket {params.name} was made without Object Lock, which cannot be had later. Name a new bucket and "
                "move to it, or leave `object_lock` out. Nothing was changed."
            )
        for setting, why in self._objects.limits.items():
            wanted = params.wanted().get(setting)
            if wanted and (found is None or found[setting] != wanted):
                raise RefusedError(f"bucket {params.name}: {setting} {_shown(wanted)}: {why} Nothing was changed.")

    def checks(self, params: BucketParams) -> Sequence[CheckSpec]:
        return ()


def _object(params: BucketParams, setting: str = "") -> ObjectId:
    return ObjectId(f"bucket {params.name}{' ' + setting if setting else ''}")


def _fingerprint(value: Any) -> Fingerprint:
    if not value or value == "open":
        return ABSENT
    return Fingerprint("on" if value is True else _shown(value))


def _lines(setting: str, found: Mapping[str, Any] | None, value: Any) -> Iterator[DiffLine]:
    if found is None:
        yield DiffLine(setting, None, _shown(value))
    elif found[setting] != value:
        yield DiffLine(setting, _shown(found[setting]), _shown(value))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and value:
        return f"{value['mode']}, {value['days']} d"
    return "on" if value is True else str(value or "off")
