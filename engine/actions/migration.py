"""`migration`: numbered SQL files, each applied in one transaction with the row that records it.

Data that a migrated schema holds cannot be put back by an older one, so there is no way back unless the author writes
it: `undo:` names a folder with a file of the same name for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from engine.actions.migration_files import Applied, MigrationFile, pending, problems_in, read_folder
from engine.actions.migration_sql import apply_file, read_applied, undo_file
from engine.actions.postgresql import NAME, DatabaseSource, PostgresSource
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
from engine.core.ports import Cluster, Reference
from engine.errors import NotYetError, PermanentError

NO_WAY_BACK = "a migrated schema stays as migrated"


class MigrationParams(BaseModel):
    """A folder of migrations for one database."""

    model_config = ConfigDict(extra="forbid")

    of: DatabaseSource = Field(description="Which database.")
    path: str = Field(
        description="Folder of `0001-name.sql`, `0002-name.sql`, …, relative to the runbook's folder.",
        json_schema_extra={"runbook-file": True},
    )
    role: str = Field(
        default="",
        pattern=rf"{NAME}|^$",
        description="Role the files run as, so that it owns what they make; empty: the user that logs in.",
    )

    @property
    def source(self) -> PostgresSource:
        return self.of.postgresql

    @staticmethod
    def mistakes_in(folder: Path) -> Iterator[tuple[Path, int, int, str, int]]:
        """For `lint`: file, line, column, what is wrong, how many characters are meant."""
        for path in sorted(folder.glob("*.sql")) if folder.is_dir() else ():
            yield from ((path, *found) for found in problems_in(path))


class MigrationUndo(BaseModel):
    """The way back that the author wrote."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        description="Folder with a file of the same name for each migration that can be taken back.",
        json_schema_extra={"runbook-file": True},
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    files: Sequence[MigrationFile]
    applied: Sequence[Applied]
    missing: str = ""
    """Why the database could not be asked: its pod does not exist yet."""


class MigrationAction:
    """What was applied stands in the database itself, in `runbook.migrations`; it is asked, never the journal."""

    key: ClassVar[str] = "migration"
    kind: ClassVar[Kind] = Kind.STATE
    Params: ClassVar[type] = MigrationParams
    Undo: ClassVar[Any] = str | MigrationUndo
    """What `undo:` may be: a folder, by itself or as `path`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def read(self, params: MigrationParams, ctx: Context) -> Reading:
        """What the database says was applied, and with which text. Without its pod nothing is."""
        files = read_folder(ctx.inputs.path(params.path), params.path)
        source = params.source
        if self._cluster.get(Reference("v1", "Pod", source.pod, source.namespace)) is None:
            return Reading({}, _Seen(files, (), f"pod {source.namespace}/{source.pod} does not exist yet"))
        applied = read_applied(self._cluster, source, ctx.deadline)
        state = {_object(params, row.name): Fingerprint(row.sha256) for row in applied}
        return Reading(state, _Seen(files, applied))

    def plan(self, params: MigrationParams, now: Reading, ctx: Context) -> Change:
        """One object per file. RefusedError when what was applied is not what lies in the folder."""
        seen: _Seen = now.detail
        todo = pending(seen.files, seen.applied, params.path, str(params.source))
        back = self._undo_files(params, todo, ctx)
        objects = {
            _object(params, file.name): Delta(print_, print_, (), None if back is None else print_)
            for file in seen.files
            if file not in todo and (print_ := Fingerprint(file.sha256))
        }
        for file in todo:
            line = DiffLine(file.name, None, f"sha256 {file.sha256[:12]}")
            objects[_object(params, file.name)] = Delta(
                ABSENT, Fingerprint(file.sha256), (line,), None if back is None else ABSENT
            )
        return Change(
            step=ctx.step,
            verb=Verb.UPDATE if todo else Verb.NONE,
            fidelity=Fidelity.DEFERRED if seen.missing else Fidelity.EXACT,
            objects=objects,
            irreversible=NO_WAY_BACK if todo and back is None else None,
            reason=seen.missing,
            envelope={file.name: file.sha256 for file in seen.files},
        )

    def capture(self, params: MigrationParams, change: Change, now: Reading, ctx: Context) -> Preimage:
        return Preimage()

    def apply(self, params: MigrationParams, change: Change, ctx: Context) -> Outcome:
        """Each pending file in its order. What an earlier attempt applied stands; the database says so."""
        now = self.read(params, ctx)
        seen: _Seen = now.detail
        if seen.missing:
            raise NotYetError(f"{ctx.step}: {seen.missing}")
        todo = pending(seen.files, seen.applied, params.path, str(params.source))
        for file in todo:
            ctx.progress(f"applying {file.name}")
            apply_file(self._cluster, params.source, file, params.role, ctx.deadline)
        newest = seen.files[-1].name if seen.files else "none"
        names = [file.name for file in todo]
        return Outcome(
            summary=f"{params.source}: {len(names)} applied, newest {newest}",
            outputs={"newest": newest},
            evidence={"database": str(params.source), "applied": {f.name: f.sha256 for f in todo}},
        )

    def read_back(self, params: MigrationParams, change: Change, preimage: Preimage, ctx: Context) -> State:
        return self.read(params, ctx).state

    def undo(self, params: MigrationParams, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        """The author's files of the same names, newest first, for what this run applied."""
        now = self.read(params, ctx)
        seen: _Seen = now.detail
        ours = {o for o, delta in change.objects.items() if delta.before.absent}
        todo = [f for f in seen.files if (o := _object(params, f.name)) in ours and o in now.state]
        back = {file.name: file for file in self._undo_files(params, todo, ctx) or ()}
        for file in reversed(todo if back else []):
            ctx.progress(f"taking back {file.name}")
            undo_file(self._cluster, params.source, file, back[file.name], params.role, ctx.deadline)
        return Outcome(summary=f"{params.source}: {len(back)} taken back")

    def checks(self, params: MigrationParams) -> Sequence[CheckSpec]:
        return ()

    def _undo_files(
        self, params: MigrationParams, todo: Sequence[MigrationFile], ctx: Context
    ) -> list[MigrationFile] | None:
        """The way back of each, if the author wrote one. PermanentError names what is missing."""
        if not ctx.undo_params:
            return None
        given = ctx.undo_params
        named = given if isinstance(given, str) else MigrationUndo.model_validate(given).path
        found = {file.name: file for file in read_folder(ctx.inputs.path(named), named, whole=False)}
        missing = [file.name for file in todo if file.name not in found]
        if missing:
            raise PermanentError(f"{ctx.step}: undo: {named} has no {', '.join(missing)}")
        return [found[file.name] for file in todo]


def _object(params: MigrationParams, name: str) -> ObjectId:
    return ObjectId(f"migration {name} in {params.source}")
