"""What a backup says of itself: manifest and proof, the names of its objects, and how a restore is compared. Pure.

A backup is three objects: `NAME.dump.age`, `NAME.manifest.json`, `NAME.proof.json`. The two documents are signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from engine.core.action import Context
from engine.errors import PermanentError

SCHEMA = 1
DUMP, MANIFEST, PROOF = ".dump.age", ".manifest.json", ".proof.json"
_SHOWN = 5  # tables named in one message


class How(StrEnum):
    """How a backup was proved. A restore proves all that decrypting does."""

    RESTORE = "restore"
    DECRYPT = "decrypt"

    def meets(self, wanted: How) -> bool:
        return self is How.RESTORE or wanted is How.DECRYPT


@dataclass(frozen=True, slots=True)
class Contents:
    """What was in a database at one moment: per table how many rows, and a sum over them in any order."""

    server: str
    """PostgreSQL's version."""
    taken: str
    """UTC, ISO 8601; all that was committed before is in it."""
    tables: Mapping[str, tuple[int, str]]

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self.tables.values())

    def __str__(self) -> str:
        return f"{len(self.tables)} table{'s' * (len(self.tables) != 1)}, {self.rows} row{'s' * (self.rows != 1)}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was backed up, when, and how it can be told that it is still that."""

    source: str
    """`postgresql/NAMESPACE/POD/DATABASE`."""
    dump: str
    """Key of the dump's object."""
    size: int
    sha256: str
    plain_size: int
    plain_sha256: str
    contents: Contents
    engine: str
    key: str
    """The event's, `run/step`."""

    @property
    def taken(self) -> datetime:
        return datetime.fromisoformat(self.contents.taken)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": "backup",
            "source": self.source,
            "dump": self.dump,
            "taken": self.contents.taken,
            "bytes": self.size,
            "sha256": self.sha256,
            "plain_bytes": self.plain_size,
            "plain_sha256": self.plain_sha256,
            "tables": {t: {"rows": rows, "sum": total} for t, (rows, total) in sorted(self.contents.tables.items())},
            "server": self.contents.server,
            "engine": self.engine,
            "key": self.key,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str) -> Manifest:
        """PermanentError when it is no manifest of a schema that is known."""
        with _told(data, "backup", where):
            tables = {str(t): (int(s["rows"]), str(s["sum"])) for t, s in data["tables"].items()}
            return cls(
                source=str(data["source"]),
                dump=str(data["dump"]),
                size=int(data["bytes"]),
                sha256=str(data["sha256"]),
                plain_size=int(data["plain_bytes"]),
                plain_sha256=str(data["plain_sha256"]),
                contents=Contents(str(data["server"]), str(data["taken"]), tables),
                engine=str(data["engine"]),
                key=str(data["key"]),
            )


@dataclass(frozen=True, slots=True)
class Proof:
    """That this very dump was restored (or only decrypted) and found to be what its manifest says."""

    dump: str
    sha256: str
    how: How
    proved: str
    """UTC, ISO 8601."""
    tables: int
    rows: int
    server: str
    engine: str

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": "proof",
            "dump": self.dump,
            "sha256": self.sha256,
            "how": self.how.value,
            "proved": self.proved,
            "tables": self.tables,
            "rows": self.rows,
            "server": self.server,
            "engine": self.engine,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str) -> Proof:
        """PermanentError when it is no proof of a schema that is known."""
        with _told(data, "proof", where):
            return cls(
                dump=str(data["dump"]),
                sha256=str(data["sha256"]),
                how=How(data["how"]),
                proved=str(data["proved"]),
                tables=int(data["tables"]),
                rows=int(data["rows"]),
                server=str(data["server"]),
                engine=str(data["engine"]),
            )


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup as its objects show it."""

    name: str
    """What its three objects have in common, with the folder."""
    stored: datetime
    """When the newest of its objects was written."""
    size: int = 0
    """Bytes of the dump's object; 0: there is none."""
    manifest: Manifest | None = None
    """None: not there, not signed by who may, or altered; `trouble` says which."""
    proof: Proof | None = None
    trouble: str = ""

    @property
    def dump(self) -> str:
        return self.name + DUMP

    def proved(self, how: How = How.RESTORE) -> bool:
        return self.manifest is not None and self.proof is not None and self.proof.how.meets(how)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dump": self.dump,
            "bytes": self.size,
            "taken": self.manifest.contents.taken if self.manifest else None,
            "signed": self.manifest is not None,
            "proved": self.proof.proved if self.proof else None,
            "how": self.proof.how.value if self.proof else None,
            "tables": len(self.manifest.contents.tables) if self.manifest else None,
            "rows": self.manifest.contents.rows if self.manifest else None,
            "trouble": self.trouble,
        }


@dataclass(frozen=True, slots=True)
class Objects:
    """Which of a backup's objects a bucket holds: ending -> (bytes, when written)."""

    name: str
    there: dict[str, tuple[int, datetime]] = field(default_factory=dict)

    @property
    def stored(self) -> datetime:
        return max(when for _, when in self.there.values())


class BackupKeeper(Protocol):
    """What the `backup` action can do beside its step: tell what there is, and prove again."""

    def backups(self, params: Any, ctx: Context) -> Iterable[Backup]:
        """Those of one source in one place, newest first."""

    def prove(self, params: Any, name: str, ctx: Context) -> Backup:
        """Restore one into a scratch database again; its proof is new. PermanentError says what differs."""


def grouped(found: Iterable[tuple[str, int, datetime]], folder: str) -> list[Objects]:
    """Objects by the backup they belong to, newest first. What is named otherwise, or deeper, is not ours."""
    groups: dict[str, Objects] = {}
    for key, size, written in found:
        ending = next((e for e in (DUMP, MANIFEST, PROOF) if key.endswith(e)), None)
        if ending is None or not key.startswith(folder) or "/" in key.removeprefix(folder):
            continue
        name = key.removesuffix(ending)
        groups.setdefault(name, Objects(name)).there[ending] = (size, written)
    # By the dump, which is written once; a proof may be made again, much later.
    return sorted(groups.values(), key=lambda g: (g.there.get(DUMP, (0, g.stored))[1], g.name), reverse=True)


def differences(wanted: Contents, found: Contents) -> list[str]:
    """What of a restored database is not as its backup was, a line per table; empty: it is the same."""
    lines = [f"table {t} is missing" for t in wanted.tables if t not in found.tables]
    lines += [f"table {t} is not in the backup" for t in found.tables if t not in wanted.tables]
    for table, (rows, total) in wanted.tables.items():
        there = found.tables.get(table)
        if there and there[0] != rows:
            lines.append(f"table {table} has {there[0]} rows, not {rows}")
        elif there and there[1] != total:
            lines.append(f"table {table} has {rows} rows, but others: their checksum differs")
    return lines


def require_same(wanted: Contents, found: Contents, what: str) -> None:
    """PermanentError names the tables that differ."""
    lines = differences(wanted, found)
    if lines:
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise PermanentError(f"{what} differs from its manifest: {'; '.join(lines[:_SHOWN])}{more}")


class _told:  # noqa: N801 (used as a statement)
    """Reading a document: what is missing or of another kind is one PermanentError that says where."""

    def __init__(self, data: Mapping[str, Any], kind: str, where: str) -> None:
        self._data, self._kind, self._where = data, kind, where

    def __enter__(self) -> None:
        if self._data.get("kind") != self._kind or self._data.get("schema") != SCHEMA:
            raise PermanentError(f"{self._where} is no {self._kind} of schema {SCHEMA}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError):
            raise PermanentError(f"{self._where} is no {self._kind} that can be read: {error}") from error
