"""`restore`: the newest proven backup, put in the place of a database.

It is restored beside the database, compared with the signed manifest, and takes its name in one transaction: the
database is as it was, or as the backup. The evidence is a comment on the new database, which comes with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from engine.actions.backup import BackupPlace, full_name
from engine.actions.backup_proof import scratch_name, told
from engine.actions.backup_store import BackupStore
from engine.actions.postgresql import DatabaseSource, PostgresSource
from engine.actions.postgresql_contents import PostgresPod
from engine.core.action import CheckSpec, Context, Kind
from engine.core.backup import Backup, Contents, How, Manifest, require_same
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
from engine.errors import NotYetError, PermanentError, RefusedError

LATEST = "latest-proven"
_RESTORED = Fingerprint("restored")
_MARK = "runbook-restore"  # the comment's key that says it is ours


class RestoreParams(BaseModel):
    """One database from its backups."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    of: DatabaseSource = Field(description="Which database, as in its `backup`.")
    place: BackupPlace = Field(alias="from", description="Where its backups are: the `to` of its `backup`.")
    backup: str = Field(
        default=LATEST, min_length=1, description="`latest-proven`, or the key of one, as `runbook backup ENV --list`."
    )
    replace: bool = Field(
        default=False, description="Put it in the place of a database that has tables. Without it that is refused."
    )

    @property
    def source(self) -> PostgresSource:
        return self.of.postgresql


@dataclass(frozen=True, slots=True)
class _Seen:
    evidence: Mapping[str, Any] | None
    contents: Contents | None
    """None: there is no such database."""


class RestoreAction:
    """Done once per run, or once per `fresh` window. What it replaced is gone."""

    key: ClassVar[str] = "restore"
    kind: ClassVar[Kind] = Kind.EVENT
    Params: ClassVar[type] = RestoreParams

    def __init__(self, cluster: Cluster, store: BackupStore) -> None:
        self._cluster = cluster
        self._store = store

    def read(self, params: RestoreParams, ctx: Context) -> Reading:
        """The evidence: the database's comment of this event, or while planning one within `fresh`."""
        pod = PostgresPod(self._cluster, params.source)
        pod.require_ready()
        evidence = _counting(pod.comment(ctx.deadline), ctx)
        contents = None
        if evidence is None and pod.exists(params.source.database, ctx.deadline):
            contents = pod.contents(params.source.database, ctx.deadline)
        return Reading({_object(params): _RESTORED} if evidence else {}, _Seen(evidence, contents))

    def plan(self, params: RestoreParams, now: Reading, ctx: Context) -> Change:
        """RefusedError when there is nothing to restore from."""
        seen: _Seen = now.detail
        if seen.evidence:
            delta = Delta(before=_RESTORED, after=_RESTORED, undo_to=None)
            reason = f"restored at {seen.evidence['restored'][:16].replace('T', ' ')} UTC from {seen.evidence['key']}"
            return Change(ctx.step, Verb.NONE, Fidelity.EXACT, {_object(params): delta}, reason=reason)
        backup = self._chosen(params, params.backup, ctx)
        lines = [DiffLine("restore", None, f"{params.place.bucket}/{backup.dump} → {params.source}")]
        if seen.contents and seen.contents.tables:
            note = "replaced" if params.replace else "refused unless it is empty by then, or `replace: true`"
            lines.append(DiffLine("database", str(seen.contents), None, note))
        delta = Delta(before=ABSENT, after=_RESTORED, diff=tuple(lines), undo_to=None)
        return Change(
            step=ctx.step,
            verb=Verb.RUN,
            fidelity=Fidelity.EXACT,
            objects={_object(params): delta},
            irreversible="what the database held is replaced" if params.replace else None,
            facts={"backup": backup.name},
        )

    def capture(self, params: RestoreParams, change: Change, now: Reading, ctx: Context) -> Preimage:
        return Preimage()

    def apply(self, params: RestoreParams, change: Change, ctx: Context) -> Outcome:
        """The backup that was planned. A killed attempt left the database as it was, or finished."""
        if ctx.key is None:
            raise PermanentError(f"{ctx.step}: a restore needs the run's key")
        pod, source = PostgresPod(self._cluster, params.source), params.source
        aside = scratch_name(ctx.key, "old")
        evidence = _counting(pod.comment(ctx.deadline), ctx)
        if evidence is None:
            backup = self._chosen(params, str(change.facts.get("backup", params.backup)), ctx)
            self._refuse_full(params, pod, ctx)
            evidence = self._restore(params, pod, backup, aside, ctx)
        pod.drop(aside, ctx.deadline)
        rows = f"{evidence['tables']} tables, {evidence['rows']} rows"
        summary = f"{source}: {rows} as of {evidence['taken']}, restored from {evidence['key']} and compared"
        return Outcome(summary=summary, outputs={"key": evidence["key"], "taken": evidence["taken"]}, evidence=evidence)

    def read_back(self, params: RestoreParams, change: Change, preimage: Preimage, ctx: Context) -> State:
        return {}

    def undo(self, params: RestoreParams, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        """Nothing: data that came back stays."""
        return Outcome(summary=f"{params.source} stays as it was restored")

    def checks(self, params: RestoreParams) -> Sequence[CheckSpec]:
        return ()

    def _chosen(self, params: RestoreParams, wanted: str, ctx: Context) -> Backup:
        """The backup that is meant, signed and proved by a restore. RefusedError."""
        bucket, folder, source = params.place.bucket, params.place.folder(params.source), params.source
        if wanted == LATEST:
            found = self._store.newest(bucket, folder, str(source), ctx.deadline, How.RESTORE)
            if found is None:
                raise RefusedError(
                    f"nothing to restore: {bucket}/{folder} holds no signed backup of {source} that was proved by a "
                    "restore. Take one (`runbook backup ENV --take`) or prove one (`--prove KEY`). Nothing was changed."
                )
            return found
        name = full_name(folder, wanted)
        found = self._store.backup(bucket, name, ctx.deadline)
        if found is None:
            raise RefusedError(f"nothing to restore: there is no backup {bucket}/{name}. Nothing was changed.")
        if found.trouble or not found.proved() or not found.manifest or found.manifest.source != str(source):
            why = found.trouble or (
                f"it is of {found.manifest.source}"
                if found.manifest and found.manifest.source != str(source)
                else "it was not proved by a restore (`runbook backup ENV --prove KEY` does it)"
            )
            raise RefusedError(f"{bucket}/{name} is not restored: {why}. Nothing was changed.")
        return found

    @staticmethod
    def _refuse_full(params: RestoreParams, pod: PostgresPod, ctx: Context) -> None:
        database = params.source.database
        if params.replace or not pod.exists(database, ctx.deadline):
            return
        contents = pod.contents(database, ctx.deadline)
        if contents.tables:
            raise RefusedError(
                f"{params.source} is not empty ({contents}): say `replace: true` to put the backup in its place. "
                "Nothing was changed."
            )

    def _restore(
        self, params: RestoreParams, pod: PostgresPod, backup: Backup, aside: str, ctx: Context
    ) -> Mapping[str, Any]:
        manifest: Manifest | None = backup.manifest
        if manifest is None:
            raise NotYetError(f"{backup.name} has no manifest")
        ctx.deadline.check(f"{params.source}: before the restore")
        fresh = scratch_name(str(ctx.key), "new")
        with self._store.fetched(params.place.bucket, manifest, ctx.deadline) as file:
            ctx.progress(f"restoring {told(manifest)}")
            with pod.restored(fresh, self._store.plain(file, manifest), ctx.deadline) as found:
                require_same(manifest.contents, found, f"the restored {manifest.dump}")
                evidence = {
                    "bucket": params.place.bucket,
                    "key": manifest.dump,
                    "sha256": manifest.sha256,
                    "source": manifest.source,
                    "taken": manifest.contents.taken,
                    "proved": backup.proof.proved if backup.proof else "",
                    "tables": len(manifest.contents.tables),
                    "rows": manifest.contents.rows,
                    "restored": datetime.now(UTC).isoformat(timespec="milliseconds"),
                }
                ctx.progress("putting it in the database's place")
                pod.swap_in(fresh, aside, json.dumps({_MARK: ctx.key, **evidence}, sort_keys=True), ctx.deadline)
        return evidence


def _counting(comment: str, ctx: Context) -> Mapping[str, Any] | None:
    """What a database's comment tells, when it is of this event, or new enough while planning."""
    try:
        told_there = json.loads(comment)
        key, evidence = told_there[_MARK], {n: v for n, v in told_there.items() if n != _MARK}
        restored = datetime.fromisoformat(evidence["restored"])
    except (ValueError, LookupError, TypeError):
        return None
    if ctx.key is not None:
        return evidence if key == ctx.key else None
    return evidence if ctx.fresh and ctx.now - restored <= ctx.fresh else None


def _object(params: RestoreParams) -> ObjectId:
    return ObjectId(f"restore {params.source}")
