"""`record`: the deployment record as a file, derived from the journal, for those who do not run the engine."""

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
    leaves: ClassVar[frozenset[str]] = frozenset({"path", "sha256"})

    def __init__(self, root: Path, environment: str, history: Callable[[Context], str], evidence: Evidence) -> None:
        """`root` is the project's; `history` gives the running run's record as Markdown."""
        super().__init__(evidence)
        self._root = root
        self._environment = environment
        self._history = history

    def name(self, params: RecordParams, ctx: Context) -> str:
        return f"record {params.path}/{self._environment}"

    def describe(self, params: RecordParams) -> str:
        return f"{params.path}/{self._environment}-DATE-RUN.md"

    def proof(self, found: Mapping[str, Any]) -> str:
        return f"written to {found['path']}"

    def find(self, params: RecordParams, ctx: Context) -> Mapping[str, Any] | None:
        found = super().find(params, ctx)
        if found is None:
            return None
        try:
            content = (self._root / found["path"]).read_bytes()
        except OSError:
            return None
        return found if hashlib.sha256(content).hexdigest() == found["sha256"] else None

    def happen(self, params: RecordParams, ctx: Context) -> Outcome:
        if ctx.key is None:
            raise PermanentError(f"{ctx.step}: a record needs the run's key")
        run = ctx.key.partition("/")[0]
        name = f"{params.path}/{self._environment}-{ctx.now:%Y-%m-%d}-{run}.md"
        content = self._history(ctx).encode()
        try:
            _write_whole(self._root / name, content)
        except OSError as error:
            raise PermanentError(f"{ctx.step}: cannot write {name}: {error.strerror}") from error
        evidence = {"path": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        return Outcome(summary=f"written to {name}", outputs={"path": name}, evidence=evidence)


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
