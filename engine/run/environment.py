"""The environment record: which journal and run may act on a cluster, as one ConfigMap swapped before each effect.

The record may lag the journal (a crash between the write and the swap), never lead it.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.core.ports import Cluster, Reference
from engine.errors import NotYetError, RefusedError
from engine.run.journal import Journal
from engine.run.lease import holder

NAMESPACE = "runbook-system"


@dataclass(frozen=True, slots=True)
class Record:
    """What the ConfigMap says."""

    journal: str
    run: str
    environment: str
    sequence: str
    head: str
    holder: str
    since: str
    state: str  # "running" or "idle"


class EnvironmentRecord:
    """Compare-and-swap on `runbook-system/environment-RUNBOOK`: one run at a time per runbook and cluster.

    Before the cluster exists every call is a no-op that says so (False); the journal's own lease holds then.
    """

    def __init__(self, cluster: Cluster | None, runbook: str, environment: str, journal: Journal) -> None:
        self._cluster, self._journal, self._environment = cluster, journal, environment
        self._reference = Reference("v1", "ConfigMap", f"environment-{runbook}", NAMESPACE)
        self._lock = threading.Lock()
        self._version: str | None = None
        self._mine: Record | None = None

    def look(self) -> Record | None:
        """What the cluster says now; None when there is no record or no cluster yet."""
        found = self._get()
        return _record(found) if found else None

    def claim(self, run: str, since: str, *, adopt: bool = False) -> bool:
        """Take the environment for a run. RefusedError (exit 4) when another journal's run holds it, or when the
        record is ahead of this journal (events were lost)."""
        with self._lock:
            try:
                found = self._get()
            except NotYetError:
                return False
            if found and not adopt:
                self._may_take(_record(found))
            sequence, head = self._journal.head
            mine = Record(self._journal.id, run, self._environment, str(sequence), head, holder(), since, "running")
            return self._swap(mine, found["metadata"]["resourceVersion"] if found else "")

    def refuse_if_held(self) -> None:
        """Look without taking: RefusedError when `claim` would refuse now."""
        try:
            found = self._get()
        except NotYetError:
            return
        if found:
            self._may_take(_record(found))

    def advance(self, run: str, since: str) -> bool:
        """Before an effect: the record names this run and the journal's head. RefusedError when it moved."""
        if self._mine is None:
            return self.claim(run, since)
        with self._lock:
            sequence, head = self._journal.head
            return self._swap(replace(self._mine, sequence=str(sequence), head=head), self._version or "")

    def release(self) -> None:
        """After a finished run: idle, free for any journal."""
        with self._lock:
            if self._mine is not None:
                sequence, head = self._journal.head
                self._swap(replace(self._mine, sequence=str(sequence), head=head, state="idle"), self._version or "")
                self._mine = self._version = None

    def _may_take(self, found: Record) -> None:
        if found.journal != self._journal.id:
            if found.state == "idle":
                return
            raise RefusedError(_held(found))
        known = self._journal.hash_at(int(found.sequence))
        if known != found.head:
            raise RefusedError(
                f"environment {found.environment}: its record names event {found.sequence} of this journal with hash "
                f"{found.head[:12]}…, but this journal "
                + (f"ends at event {self._journal.head[0]}" if known is None else "has another event there")
                + ": events were lost or changed. Restore the journal, or `runbook adopt`."
            )

    def _swap(self, record: Record, version: str) -> bool:
        if self._cluster is None:
            return False
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self._reference.name, "namespace": NAMESPACE},
            "data": asdict(record),
        }
        try:
            written = self._cluster.swap(manifest, version)
        except NotYetError:
            return False
        if written is None:
            self._mine = self._version = None  # somebody else's now: not ours to advance or to free
            found = self._get()
            raise RefusedError(
                _held(_record(found)) if found else f"the record {self._reference} was deleted meanwhile"
            )
        self._mine, self._version = record, written["metadata"]["resourceVersion"]
        return True

    def _get(self) -> Any:
        return self._cluster.get(self._reference) if self._cluster is not None else None


def _record(manifest: Any) -> Record:
    data = manifest.get("data", {})
    return Record(**{name: str(data.get(name, "")) for name in Record.__slots__})


def _held(record: Record) -> str:
    return (
        f"environment {record.environment} is held by run {record.run} ({record.holder}, since {record.since}; "
        f"journal {record.journal}, not this one).\n"
        f"  watch it      runbook status {record.environment}   (in the directory of that run)\n"
        f"  when it died  runbook adopt {record.environment}   (explains first)"
    )
