"""A control group per child process: who belongs to it, ending all of them at once, letting daemons go.

Version 2 where the kernel offers it (also beside version 1), else version 1's freezer or pids hierarchy. Where none is
writable, as for most users without root, callers fall back to the process tree.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.adapters.processes import send

_EMPTYING = 5.0  # seconds a killed group may take to empty before we stop waiting


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One group, by its folder. Every method is harmless when the group is gone already."""

    path: Path

    @classmethod
    def create(cls, name: str) -> Cgroup | None:
        """A new group below our own; None when no hierarchy lets us."""
        for parent in _own_groups():
            path = parent / name
            try:
                path.mkdir()
            except OSError:
                continue
            if os.access(path / "cgroup.procs", os.W_OK):
                return cls(path)
            path.rmdir()
        return None

    def members(self) -> list[int]:
        """Process ids, of the groups below it too."""
        found: list[int] = []
        try:
            for procs in [self.path / "cgroup.procs", *self.path.glob("*/**/cgroup.procs")]:
                found += map(int, procs.read_text().split())
        except OSError:
            pass  # it went away while we looked: nobody is left in it
        return found

    def signal(self, number: int) -> None:
        """Send a signal to every member."""
        for pid in self.members():
            send(pid, number)

    def kill(self) -> None:
        """SIGKILL to every member, also to those that are being forked meanwhile; waits until it is empty."""
        try:
            (self.path / "cgroup.kill").write_text("1")  # version 2, Linux 5.14: atomic
        except OSError:
            self.signal(signal.SIGKILL)
        end = time.monotonic() + _EMPTYING
        while self.members() and time.monotonic() < end:
            self.signal(signal.SIGKILL)
            time.sleep(0.01)

    def release(self) -> None:
        """Give who is left (daemons started on purpose) to the parent group, and remove this one."""
        for pid in self.members():
            try:
                (self.path.parent / "cgroup.procs").write_text(str(pid))
            except OSError:
                continue  # it ended meanwhile, or may not be moved; rmdir below tells
        with suppress(OSError):  # already removed, or a member could not be moved: an empty folder at worst
            self.path.rmdir()


def _own_groups() -> list[Path]:
    """Our own group's folder in each usable hierarchy, best first."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    found: list[tuple[int, Path]] = []
    for _, controllers, own in groups:
        for mount in mounts:
            kind, options = mount[mount.index("-") + 1], mount[-1].split(",")
            rank = _rank(controllers, kind, options)
            path = Path(mount[4]) / own.lstrip("/")
            if rank is not None and path.is_dir():
                found.append((rank, path))
    return [path for _, path in sorted(found)]


def _rank(controllers: str, kind: str, options: list[str]) -> int | None:
    if not controllers:
        return 0 if kind == "cgroup2" else None
    for rank, name in enumerate(("freezer", "pids"), start=1):
        if kind == "cgroup" and name in controllers.split(",") and name in options:
            return rank
    return None
