"""Processes as /proc shows them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def send(pid: int, number: int) -> None:
    """Send a signal; a process that is gone is fine."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def started_at(pid: int) -> str:
    """When it started, in the kernel's clock ticks since boot; empty when it is gone."""
    stat = _stat(pid)
    return stat[19] if stat else ""


def running(pid: int) -> bool:
    """It exists and is no zombie."""
    stat = _stat(pid)
    return bool(stat) and stat[0] not in "ZX"


def tree(roots: Iterable[int]) -> set[int]:
    """Processes, their descendants, and everybody in sessions that any of them leads or led."""
    stats = {int(p.name): _stat(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()}
    found = set(roots)
    while True:
        sessions = {stats[pid][3] for pid in found if stats.get(pid)} | {str(pid) for pid in found}
        more = {p for p, s in stats.items() if s and (int(s[1]) in found or s[3] in sessions)} | found
        if more == found:
            return found
        found = more


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, group, session, …; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
