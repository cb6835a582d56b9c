"""Proving a backup: the object fetched back, decrypted, restored into a scratch database, and compared."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from engine.actions.backup_store import BackupStore
from engine.actions.postgresql import PostgresSource
from engine.actions.postgresql_contents import PostgresPod
from engine.core.action import Context
from engine.core.backup import Backup, Contents, How, Manifest, Proof, require_same
from engine.core.ports import Cluster
from engine.errors import PermanentError


def prove(
    store: BackupStore, cluster: Cluster, source: PostgresSource, bucket: str, backup: Backup, how: How, ctx: Context
) -> Proof:
    """Do it, and keep the proof. PermanentError says what differs; then there is no new proof."""
    manifest = backup.manifest
    if manifest is None:
        raise PermanentError(f"{bucket}/{backup.name} cannot be proved: {backup.trouble}")
    if manifest.source != str(source):
        raise PermanentError(f"{bucket}/{backup.name} is of {manifest.source}, not of {source}")
    with store.fetched(bucket, manifest, ctx.deadline) as file:
        if how is How.DECRYPT:
            ctx.progress(f"proving {manifest.plain_size} bytes by decrypting them")
            for _ in store.plain(file, manifest):
                ctx.deadline.check(f"decrypting {manifest.dump}")
            server = manifest.contents.server
        else:
            ctx.progress(f"proving by a restore of {manifest.plain_size} bytes into a scratch database")
            pod = PostgresPod(cluster, source)
            with pod.restored(scratch_name(backup.name), store.plain(file, manifest), ctx.deadline) as found:
                require_same(manifest.contents, found, f"the restored {manifest.dump}")
            server = found.server
    proof = Proof(
        dump=manifest.dump,
        sha256=manifest.sha256,
        how=how,
        proved=datetime.now(UTC).isoformat(timespec="milliseconds"),
        tables=len(manifest.contents.tables),
        rows=manifest.contents.rows,
        server=server,
        engine=engine_version(),
    )
    store.keep_proof(bucket, backup.name, proof, ctx.deadline)
    return proof


def scratch_name(backup: str, use: str = "scratch") -> str:
    """A database of ours: another one for each backup and use, so that two never meet."""
    return f"runbook_{use}_{hashlib.sha256(backup.encode()).hexdigest()[:12]}"


def told(manifest: Manifest, contents: Contents | None = None) -> str:
    """`1204 bytes, 3 tables, 500 rows`."""
    return f"{manifest.size} bytes, {contents or manifest.contents}"


def engine_version() -> str:
    try:
        return version("runbook")
    except PackageNotFoundError:
        return "unknown"
