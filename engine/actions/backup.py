"""`backup`: a database's dump, encrypted before it touches a disk, with a signed manifest, proved by a restore.

The objects' name is made from the event's key, and each appears only after what it claims: the dump when it was whole,
the manifest when the dump is stored, the proof when the restored database was compared. So the proof under that name
*is* the evidence: a run that was killed finds it, or goes on from what is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from engine.actions.backup_proof import engine_version, prove, told
from engine.actions.backup_store import BackupStore
from engine.actions.postgresql import DatabaseSource, PostgresSource
from engine.actions.postgresql_contents import PostgresPod
from engine.core.action import CheckSpec, Context, Kind
from engine.core.backup import DUMP, MANIFEST, PROOF, Backup, How, Manifest, Proof
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
from engine.core.ports import Cluster
from engine.errors import PermanentError

_TAKEN = Fingerprint("taken")
_MAGIC = b"PGDMP"  # how a custom-format dump of pg_dump begins


class BackupPlace(BaseModel):
    """Where backups are."""

    model_config = ConfigDict(extra="forbid")

    bucket: str = Field(min_length=1, description="Bucket of the environment's object store.")
    prefix: str = Field(default="", description="Folder in it, ending with a slash.")

    @field_validator("prefix")
    @classmethod
    def _folder(cls, prefix: str) -> str:
        return prefix.strip("/") + "/" if prefix.strip("/") else ""

    def folder(self, source: PostgresSource) -> str:
        """Where the backups of one source are. Two pods with a database of one name have two."""
        return f"{self.prefix}{source}/"


class BackupParams(BaseModel):
    """One backup of one source."""

    model_config = ConfigDict(extra="forbid")

    of: DatabaseSource = Field(description="What is backed up.")
    to: BackupPlace = Field(description="Where it goes.")
    proof: How = Field(
        default=How.RESTORE,
        description="`restore`: into a scratch database beside it, compared; `decrypt`: it only can be read.",
    )

    @property
    def source(self) -> PostgresSource:
        return self.of.postgresql

    @property
    def folder(self) -> str:
        return self.to.folder(self.source)

    def name(self, key: str) -> str:
        return f"{self.folder}{key.replace('/', '_')}"


class BackupAction:
    """Taken once per run, or once per `fresh` window. Compensated by nothing: a backup stays."""

    key: ClassVar[str] = "backup"
    kind: ClassVar[Kind] = Kind.EVENT
    Params: ClassVar[type] = BackupParams

    def __init__(self, cluster: Cluster, store: BackupStore) -> None:
        self._cluster = cluster
        self._store = store

    def read(self, params: BackupParams, ctx: Context) -> Reading:
        """The evidence: the proof under this event's key, or while planning the newest one within `fresh`."""
        if ctx.key is not None:
            found = self._store.backup(params.to.bucket, params.name(ctx.key), ctx.deadline)
            found = found if found and found.proved(params.proof) else None
        else:
            found = self._newest(params, ctx)
        return Reading({_object(params): _TAKEN} if found else {}, found)

    def plan(self, params: BackupParams, now: Reading, ctx: Context) -> Change:
        found: Backup | None = now.detail
        line = DiffLine("backup", None, f"{params.source} → {params.to.bucket}/{params.folder}")
        delta = Delta(before=_TAKEN if found else ABSENT, after=_TAKEN, diff=() if found else (line,), undo_to=None)
        return Change(
            step=ctx.step,
            verb=Verb.NONE if found else Verb.RUN,
            fidelity=Fidelity.EXACT,
            objects={_object(params): delta},
            # The time, not "3 h ago": an equal world must give an equal plan.
            reason=f"taken and proved at {found.manifest.taken:%Y-%m-%d %H:%M} UTC" if found and found.manifest else "",
            facts={"object": found.dump} if found else {},
        )

    def capture(self, params: BackupParams, change: Change, now: Reading, ctx: Context) -> Preimage:
        return Preimage()

    def apply(self, params: BackupParams, change: Change, ctx: Context) -> Outcome:
        """Goes on from what a killed attempt left: a dump without a manifest is taken again, one with it is proved."""
        if ctx.key is None:
            raise PermanentError(f"{ctx.step}: a backup needs the run's key")
        bucket, name = params.to.bucket, params.name(ctx.key)
        found = self._store.backup(bucket, name, ctx.deadline)
        if found is None or found.manifest is None:
            self._take(params, name, ctx)
            found = self._there(params, name, ctx)
        if not found.proved(params.proof):
            prove(self._store, self._cluster, params.source, bucket, found, params.proof, ctx)
            found = self._there(params, name, ctx)
        return self._outcome(params, found)

    def read_back(self, params: BackupParams, change: Change, preimage: Preimage, ctx: Context) -> State:
        return self.read(params, ctx).state

    def undo(self, params: BackupParams, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        """Nothing: a backup is never taken away by a rollback."""
        return Outcome(summary=f"the backup of {params.source} stays")

    def checks(self, params: BackupParams) -> Sequence[CheckSpec]:
        return ()

    # --- BackupKeeper -------------------------------------------------------------------------------------------------

    def backups(self, params: BackupParams, ctx: Context) -> Iterator[Backup]:
        return self._store.backups(params.to.bucket, params.folder, ctx.deadline)

    def prove(self, params: BackupParams, name: str, ctx: Context) -> Backup:
        """See BackupKeeper. `name`: as `backups` shows it, or its last part."""
        full = full_name(params.folder, name)
        found = self._there(params, full, ctx)
        prove(self._store, self._cluster, params.source, params.to.bucket, found, How.RESTORE, ctx)
        return self._there(params, full, ctx)

    # ------------------------------------------------------------------------------------------------------------------

    def _newest(self, params: BackupParams, ctx: Context) -> Backup | None:
        if ctx.fresh is None:
            return None
        found = self._store.newest(params.to.bucket, params.folder, str(params.source), ctx.deadline, params.proof)
        return found if found and found.manifest and ctx.now - found.manifest.taken <= ctx.fresh else None

    def _there(self, params: BackupParams, name: str, ctx: Context) -> Backup:
        found = self._store.backup(params.to.bucket, name, ctx.deadline)
        if found is None:
            raise PermanentError(f"there is no backup {params.to.bucket}/{name}")
        if found.manifest is None:
            raise PermanentError(f"{params.to.bucket}/{name}: {found.trouble}")
        return found

    def _take(self, params: BackupParams, name: str, ctx: Context) -> None:
        source, bucket = params.source, params.to.bucket
        ctx.deadline.check(f"{source}: before the dump")
        ctx.progress(f"dumping {source}")
        contents, pieces = PostgresPod(self._cluster, source).dump(ctx.deadline)
        dumped = _Measure()
        with self._store.encrypted(dumped.through(pieces)) as encrypted:
            dumped.expect_dump(str(source))
            ctx.progress(f"uploading {encrypted.size} bytes")
            metadata = {"runbook-key": str(ctx.key), "source": str(source)}
            self._store.objects.put(bucket, name + DUMP, encrypted.file, metadata, deadline=ctx.deadline)
            manifest = Manifest(
                source=str(source),
                dump=name + DUMP,
                size=encrypted.size,
                sha256=encrypted.sha256,
                plain_size=dumped.size,
                plain_sha256=dumped.hexdigest(),
                contents=contents,
                engine=engine_version(),
                key=str(ctx.key),
            )
            self._store.keep_manifest(bucket, name, manifest, ctx.deadline)

    def _outcome(self, params: BackupParams, found: Backup) -> Outcome:
        manifest, proof = found.manifest, found.proof
        if manifest is None or proof is None:
            raise PermanentError(f"{params.to.bucket}/{found.name} went away while it was told of")
        bucket = params.to.bucket
        evidence = {
            "bucket": bucket,
            "key": found.dump,
            "manifest": found.name + MANIFEST,
            "proof": found.name + PROOF,
            "bytes": manifest.size,
            "sha256": manifest.sha256,
            "plain_bytes": manifest.plain_size,
            "plain_sha256": manifest.plain_sha256,
            "source": manifest.source,
            "recipients": len(self._store.encryption.recipients),
            "taken": manifest.contents.taken,
            "proved": proof.proved,
            "how": proof.how.value,
            "tables": proof.tables,
            "rows": proof.rows,
        }
        summary = f"{params.source}: {told(manifest)} in {bucket}/{found.dump}, {_proved(proof)}"
        return Outcome(summary=summary, outputs={"bucket": bucket, "key": found.dump}, evidence=evidence)


class _Measure:
    """Size, digest and beginning of a stream."""

    def __init__(self) -> None:
        self.size = 0
        self._head = b""
        self._digest = hashlib.sha256()

    def through(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.size += len(piece)
            self._digest.update(piece)
            if len(self._head) < len(_MAGIC):
                self._head += piece[: len(_MAGIC)]
            yield piece

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def expect_dump(self, source: str) -> None:
        if not self._head.startswith(_MAGIC):
            raise PermanentError(f"{source}: pg_dump gave {self.size} bytes that are no dump; nothing was kept")


def full_name(folder: str, name: str) -> str:
    """A backup's name from what a person says: the name, its last part, or the key of one of its objects."""
    for ending in (DUMP, MANIFEST, PROOF):
        name = name.removesuffix(ending)
    return name if name.startswith(folder) else f"{folder}{name.replace('/', '_')}"


def _proved(proof: Proof) -> str:
    return "restored and compared" if proof.how is How.RESTORE else "decrypted and compared"


def _object(params: BackupParams) -> ObjectId:
    return ObjectId(f"backup {params.source} in {params.to.bucket}")
