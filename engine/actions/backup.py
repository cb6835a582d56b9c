"""`backup`: a database's dump, encrypted before it touches a disk, proved by decrypting, kept in a bucket.

The object's key is made from the event's key, and an object appears only after its proof, so an object under that
key *is* the evidence: a run that was killed finds it, or takes the dump again.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from engine.actions.postgresql import DatabaseSource, PostgresSource
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
from engine.core.names import folder
from engine.core.ports import Cluster, Encryption, ObjectStore, StoredObject
from engine.errors import PermanentError

_TAKEN = Fingerprint("taken")
_MAGIC = b"PGDMP"  # how a custom-format dump of pg_dump begins


class BackupTarget(BaseModel):
    """Where a backup goes."""

    model_config = ConfigDict(extra="forbid")

    bucket: str = Field(
        min_length=1,
        description="Bucket of the environment's object store.",
        json_schema_extra={"runbook-names": "bucket"},
    )
    prefix: Annotated[str, AfterValidator(folder)] = Field(default="", description="Folder in it, ending with a slash.")


class BackupParams(BaseModel):
    """One backup of one source."""

    model_config = ConfigDict(extra="forbid")

    of: DatabaseSource = Field(description="What is backed up.")
    to: BackupTarget = Field(description="Where it goes.")

    @property
    def source(self) -> PostgresSource:
        return self.of.postgresql

    @property
    def folder(self) -> str:
        return f"{self.to.prefix}{self.source}/"

    def object_key(self, key: str) -> str:
        return f"{self.folder}{key.replace('/', '_')}.dump.age"


class BackupAction:
    """Taken once per run, or once per `fresh` window. Compensated by nothing: a backup stays."""

    key: ClassVar[str] = "backup"
    kind: ClassVar[Kind] = Kind.EVENT
    Params: ClassVar[type] = BackupParams

    def __init__(self, cluster: Cluster, encryption: Encryption, objects: ObjectStore) -> None:
        self._cluster = cluster
        self._encryption = encryption
        self._objects = objects

    def read(self, params: BackupParams, ctx: Context) -> Reading:
        """The evidence: the object under this event's key, or while planning the newest one within `fresh`."""
        if ctx.key is not None:
            found = self._objects.head(params.to.bucket, params.object_key(ctx.key))
        else:
            found = self._newest(params, ctx)
        return Reading({_object(params): _TAKEN} if found else {}, found)

    def plan(self, params: BackupParams, now: Reading, ctx: Context) -> Change:
        found: StoredObject | None = now.detail
        line = DiffLine("backup", None, f"{params.source} → {params.to.bucket}/{params.folder}")
        delta = Delta(before=_TAKEN if found else ABSENT, after=_TAKEN, diff=() if found else (line,), undo_to=None)
        return Change(
            step=ctx.step,
            verb=Verb.NONE if found else Verb.RUN,
            fidelity=Fidelity.EXACT,
            objects={_object(params): delta},
            # The time, not "3 h ago": an equal world must give an equal plan.
            reason=f"taken and proved at {found.modified.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if found else "",
            facts={"object": found.key} if found else {},
        )

    def capture(self, params: BackupParams, change: Change, now: Reading, ctx: Context) -> Preimage:
        return Preimage()

    def apply(self, params: BackupParams, change: Change, ctx: Context) -> Outcome:
        if ctx.key is None:
            raise PermanentError(f"{ctx.step}: a backup needs the run's key")
        key = params.object_key(ctx.key)
        stored = self._objects.head(params.to.bucket, key) or self._take(params, key, ctx)
        evidence = {
            "bucket": params.to.bucket,
            "key": key,
            "version": stored.version,
            "bytes": stored.size,
            "sha256": stored.metadata.get("sha256", ""),
            "plain_bytes": int(stored.metadata.get("plain-bytes", "0")),
            "plain_sha256": stored.metadata.get("plain-sha256", ""),
            "source": str(params.source),
            "recipients": len(self._encryption.recipients),
            "taken": stored.modified.astimezone(UTC).isoformat(),
        }
        summary = f"{params.source}: {stored.size} bytes in {params.to.bucket}/{key}, decrypted and compared"
        return Outcome(summary=summary, outputs={"bucket": params.to.bucket, "key": key}, evidence=evidence)

    def read_back(self, params: BackupParams, change: Change, preimage: Preimage, ctx: Context) -> State:
        return self.read(params, ctx).state

    def undo(self, params: BackupParams, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        """Nothing: a backup is never taken away by a rollback."""
        return Outcome(summary=f"the backup of {params.source} stays")

    def checks(self, params: BackupParams) -> Sequence[CheckSpec]:
        return ()

    def _newest(self, params: BackupParams, ctx: Context) -> StoredObject | None:
        if ctx.fresh is None:
            return None
        candidates = [
            o for o in self._objects.list(params.to.bucket, params.folder) if ctx.now - o.modified <= ctx.fresh
        ]
        for candidate in sorted(candidates, key=lambda o: o.modified, reverse=True):
            found = self._objects.head(params.to.bucket, candidate.key)
            if found and found.metadata.get("source") == str(params.source):
                return found
        return None

    def _take(self, params: BackupParams, key: str, ctx: Context) -> StoredObject:
        source = params.source
        with tempfile.TemporaryDirectory(prefix="runbook-backup-") as folder:
            encrypted = Path(folder, "dump.age")
            ctx.progress(f"dumping {source}")
            pieces = self._cluster.exec(
                source.namespace, source.pod, source.dump_argv(), container=source.container, deadline=ctx.deadline
            )
            dumped = _Measure()
            self._encryption.encrypt(dumped.through(pieces), encrypted)
            dumped.expect_dump(str(source))
            ctx.progress(f"proving {dumped.size} bytes by decrypting them")
            decrypted = _Measure()
            self._encryption.decrypt(encrypted, decrypted.add)
            if decrypted.hexdigest() != dumped.hexdigest():
                raise PermanentError(f"{source}: the decrypted dump differs from what pg_dump gave; nothing was kept")
            ctx.progress(f"uploading {encrypted.stat().st_size} bytes")
            metadata = {
                "runbook-key": str(ctx.key),
                "source": str(source),
                "plain-bytes": str(dumped.size),
                "plain-sha256": dumped.hexdigest(),
            }
            return self._objects.put(params.to.bucket, key, encrypted, metadata, deadline=ctx.deadline)


class _Measure:
    """Size, digest and beginning of a stream."""

    def __init__(self) -> None:
        self.size = 0
        self._head = b""
        self._digest = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        self._digest.update(piece)
        if len(self._head) < len(_MAGIC):
            self._head += piece[: len(_MAGIC)]

    def through(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.add(piece)
            yield piece

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def expect_dump(self, source: str) -> None:
        if not self._head.startswith(_MAGIC):
            raise PermanentError(f"{source}: pg_dump gave {self.size} bytes that are no dump; nothing was kept")


def _object(params: BackupParams) -> ObjectId:
    return ObjectId(f"backup {params.source} in {params.to.bucket}")
