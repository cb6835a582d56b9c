"""The journal: append-only, hash-chained events in one SQLite file. The write happens before the effect."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.core.events import GENESIS, SCHEMA, Event, EventType, canonical, event_hash
from engine.core.model import StepId
from engine.errors import PermanentError, RefusedError

_PATIENCE = 30  # seconds for another process that writes
_TABLES = """
create table if not exists meta (key text primary key, value text not null) strict;
create table if not exists events (
    sequence integer primary key,
    schema integer not null,
    at text not null,
    type text not null,
    run text not null,
    step text not null,
    data text not null,
    previous text not null,
    hash text not null
) strict;
create index if not exists events_by_run on events (run, sequence);
create trigger if not exists no_update before update on events
    begin select raise(abort, 'events are never changed'); end;
create trigger if not exists no_delete before delete on events
    begin select raise(abort, 'events are never deleted'); end;
"""


_NOT_DAMAGED = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY}
)
"""What the file system refuses: the journal itself may be whole."""


class Journal:
    """Events in SQLite (WAL, synchronous=FULL, mode 0600).

    Safe for several threads, and for several processes: runs of two environments may write side by side.

    Raises RefusedError when an event was altered or is missing, PermanentError when the disk does not take a write or
    another process stays in the middle of one.
    """

    def __init__(self, path: Path, *, clock: Callable[[], str], redact: Callable[[Any], Any]) -> None:
        self.path = path
        self._clock, self._redact = clock, redact
        self._lock = threading.Lock()
        self._connection = _open(path)
        self.id = self._identity()
        self.verify()

    def append(self, kind: EventType, run: str, step: str = "", data: Mapping[str, Any] | None = None) -> Event:
        """Seal and write one event; when this returns it is on disk. Every value passes the redactor."""
        with self._lock, self._writing():
            sequence, previous = self._newest()
            event = Event.sealed(
                sequence + 1, self._clock(), kind, run, StepId(step), self._redact(dict(data or {})), previous
            )
            self._connection.execute(
                "insert into events values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    event.sequence,
                    event.schema,
                    event.at,
                    event.type,
                    event.run,
                    event.step,
                    canonical(event.data),
                    event.previous,
                    event.hash,
                ),
            )
            return event

    def events(self, run: str = "") -> list[Event]:
        """All events, or one run's, in order."""
        where, arguments = ("where run = ?", (run,)) if run else ("", ())
        query = f"select * from events {where} order by sequence"  # noqa: S608 (a constant clause)
        with self._lock:
            rows = self._connection.execute(query, arguments).fetchall()
        return [_event(row) for row in rows]

    @property
    def head(self) -> tuple[int, str]:
        """Sequence and hash of the newest event; (0, zeros) when empty."""
        with self._lock:
            return self._newest()

    def hash_at(self, sequence: int) -> str | None:
        """The hash of one event; None when there is no such event."""
        if sequence == 0:
            return GENESIS
        with self._lock:
            row = self._connection.execute("select hash from events where sequence = ?", (sequence,)).fetchone()
        return row["hash"] if row else None

    def verify(self) -> int:
        """Read and check the whole chain again; returns the number of events. RefusedError names the first bad one."""
        with self._lock:
            return self._verified()

    def close(self) -> None:
        self._connection.close()

    def _identity(self) -> str:
        """Made once. It is read before it is written: whoever only looks does not wait for a writer."""
        query = "select value from meta where key = 'id'"
        if (row := self._connection.execute(query).fetchone()) is None:
            with self._writing():
                self._connection.execute(
                    "insert or ignore into meta values ('id', ?), ('schema', ?)", (secrets.token_hex(8), str(SCHEMA))
                )
            row = self._connection.execute(query).fetchone()
        return str(row["value"])

    def _newest(self) -> tuple[int, str]:
        row = self._connection.execute("select sequence, hash from events order by sequence desc limit 1").fetchone()
        return (row["sequence"], row["hash"]) if row else (0, GENESIS)

    def _verified(self) -> int:
        sequence, previous = 0, GENESIS
        try:
            for row in self._connection.execute("select * from events order by sequence"):
                event = _event(row)
                expected = event_hash(
                    event.schema, event.sequence, event.at, event.type, event.run, event.step, event.data, previous
                )
                if event.sequence != sequence + 1 or event.previous != previous or event.hash != expected:
                    raise RefusedError(
                        f"journal {self.path.name}: event {event.sequence} ({row['type']}) was altered, or one "
                        f"before it is missing. Restore the file from a backup, or keep it aside and `runbook adopt`."
                    )
                sequence, previous = event.sequence, event.hash
        except (sqlite3.DatabaseError, ValueError) as error:
            raise RefusedError(
                f"journal {self.path.name}: damaged after event {sequence}: {error}. "
                "Restore the file from a backup, or keep it aside and `runbook adopt`."
            ) from error
        return sequence

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction that holds the write lock from its first read."""
        try:
            self._connection.execute("begin immediate")
            with self._connection:
                yield
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            what = "let the other process that writes it end" if busy else "free the disk"
            raise PermanentError(
                f"journal {self.path}: cannot write ({error}). Nothing further was done; {what}, then `runbook resume`."
            ) from error


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    try:
        connection = sqlite3.connect(path, check_same_thread=False, timeout=_PATIENCE, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.executescript(_TABLES)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in _NOT_DAMAGED:
            raise PermanentError(
                f"journal {path}: {error}. It and its folder must be writable, also to look, with room on the disk."
            ) from error
        raise RefusedError(f"journal {path}: {error}. Restore it from a backup, or move it aside.") from error
    return connection


def _event(row: sqlite3.Row) -> Event:
    return Event(
        sequence=row["sequence"],
        at=row["at"],
        type=EventType(row["type"]),
        run=row["run"],
        step=StepId(row["step"]),
        data=json.loads(row["data"]),
        previous=row["previous"],
        hash=row["hash"],
        schema=row["schema"],
    )
