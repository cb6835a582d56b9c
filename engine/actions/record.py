"""`record`: the deployment record as files, derived from the journal, for those who do not run the engine."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from engine.actions.event import JournaledEvent
from engine.core.action import Context
from engine.core.change import Outcome
from engine.core.ports import Evidence
from engine.errors import PermanentError


class RecordParams(BaseModel):
    """Where the record goes."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(default="records", description="Folder for the record, relative to the project's root.")

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise ValueError("must stay inside the project")
        return str(pure)


class RecordAction(JournaledEvent):
    """Writing it again is harmless, so nothing of it is ever in doubt. It counts while the file is as written."""

    key: ClassVar[str] = "record"
    Params: ClassVar[type] = RecordParams
    leaves: ClassVar[frozenset[str]] = frozenset({"path", "sha256", "beside"})

    def __init__(
        self, root: Path, environment: str, history: Callable[[Context], Mapping[str, str]], evidence: Evidence
    ) -> None:
        """`root` is the project's; `history` gives the running run's record by suffix: `md`, and perhaps others."""
        super().__init__(evidence)
        self._root = root
        self._environment = environment
        self._history = history

    def name(self, params: RecordParams, ctx: Context) -> str:
        return f"record {params.path}/{self._environment}"

    def describe(self, params: RecordParams) -> str:
        return f"{params.path}/{self._environment}-DATE-RUN.md, .html and .json"

    def proof(self, found: Mapping[str, Any]) -> str:
        return f"written to {found['path']}"

    def find(self, params: RecordParams, ctx: Context) -> Mapping[str, Any] | None:
        found = super().find(params, ctx)
        if found is None:
            return None
        written = {found["path"]: found["sha256"], **found["beside"]}
        return found if all(self._as_written(name, digest) for name, digest in written.items()) else None

    def _as_written(self, name: str, digest: str) -> bool:
        try:
            return hashlib.sha256((self._root / name).read_bytes()).hexdigest() == digest
        except OSError:
            return False

    def happen(self, params: RecordParams, ctx: Context) -> Outcome:
        if ctx.key is None:
            raise PermanentError(f"{ctx.step}: a record needs the run's key")
        run = ctx.key.partition("/")[0]
        stem = f"{params.path}/{self._environment}-{ctx.now:%Y-%m-%d}-{run}"
        contents = {f"{stem}.{suffix}": text.encode() for suffix, text in self._history(ctx).items()}
        path = f"{stem}.md"
        for name in sorted(contents, key=lambda name: name == path):  # the Markdown last: with it the record is there
            try:
                _write_whole(self._root / name, contents[name])
            except OSError as error:
                raise PermanentError(f"{ctx.step}: cannot write {name}: {error.strerror}") from error
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        evidence = {"path": path, "sha256": digests.pop(path), "bytes": len(contents[path]), "beside": digests}
        return Outcome(summary=f"written to {path}", outputs={"path": path}, evidence=evidence)


def _write_whole(path: Path, content: bytes) -> None:
    """All of it or nothing, whatever dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".record-")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
