"""Child processes: every one through here, in its own session and control group, under a lock that outlives the engine.

A killed engine's child lives on: helm finishes its upgrade, a playbook its tasks. So each child holds a lock on
`STATE/locks/child-SCOPE-N.lock` from its first moment (launch_child.py), and whoever goes on in that scope, which is an
environment, waits for it.
The group is used to end everything at a deadline. A daemon started on purpose is let go when the child ends well.

Without a writable control group (no root, no delegation) the process tree and the session stand in: a process that left
both, by forking twice, then escapes a kill. A command that starts a daemon must see that it closes what it inherited.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.adapters.cgroup import Cgroup
from engine.adapters.processes import running, send, started_at, tree
from engine.adapters.streams import Streams
from engine.core.action import Deadline
from engine.core.processes import Finished
from engine.core.redaction import Redactor
from engine.errors import PermanentError

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL: helm needs some to mark its release as failed."""
_DYING = 5.0  # seconds a killed process may take to go
_LOOK = 0.05  # seconds between two looks at an orphan's lock
_CHILD = Path(__file__).with_name("launch_child.py")


def launch_argv(lock: Path | str, cgroup: str, argv: Sequence[str]) -> list[str]:
    """The command that becomes `argv` holding the lock."""
    return [sys.executable, "-I", "-S", str(_CHILD), str(lock), cgroup, *argv]


class ProcessLauncher:
    """`core.processes.Launcher` on Linux. Thread-safe: one child per call, nothing shared but the folder of locks."""

    def __init__(self, state: Path, redactor: Redactor, scope: str) -> None:
        """`scope` must be the same for the engine that dies and the one that goes on: the environment's name."""
        self._locks = state / "locks"
        self._redactor = redactor
        self._scope = scope

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        name: str = "",
    ) -> Finished:
        """Run to the end. `stdout` comes back as it was, `stderr` and the lines given to `on_line` redacted.

        The environment is PATH, HOME, LANG and `env`. Raises PermanentError when the program does not exist, and
        what `Deadline.check` raises once every process of the group is ended.
        """
        full_env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(Path.home()), "LANG": "C.UTF-8"}
        full_env |= dict(env or {})
        program = _find(argv[0], full_env["PATH"], cwd)
        name = name or Path(argv[0]).name
        deadline.check(f"starting {name}")
        with self._registered(name) as child, _in_memory(stdin) as given:
            process = _started(
                launch_argv(child.lock, child.group_path, [program, *argv[1:]]), name, given, full_env, cwd
            )
            streams = Streams(child.program, process, self._redactor, on_line)
            try:
                streams.follow(deadline, f"running {name}")
            except BaseException:
                child.end(process.pid, process)
                raise
            finally:
                streams.close()
        return Finished(process.returncode, streams.stdout(), self._redactor.text(streams.stderr()))

    def wait_for_orphans(self, deadline: Deadline) -> None:
        """Wait for children of this scope whose engine is dead; at the deadline end them. Those of a living engine
        (a `plan` beside us) are its own.

        A cancellation leaves them alone and raises CancelledError. Raises PermanentError when one cannot be ended.
        """
        if not self._locks.is_dir():
            return
        for lock in sorted(self._locks.glob(f"child-{self._scope}-*.lock")):
            orphan = _Child.recorded(lock)
            if orphan is None or lock.name.rpartition("-")[0] != f"child-{self._scope}":
                continue
            while not orphan.finish_if_free():
                if deadline.cancelled:
                    deadline.check(f"waiting for {orphan.program}, which a killed engine left running")
                if not deadline.remaining():
                    orphan = _Child.recorded(lock) or orphan  # its pid may have come late
                    orphan.end(orphan.pid)
                    if orphan.finish_if_free():
                        break
                    raise PermanentError(
                        f"{orphan.program} (pid {orphan.pid}), left running by a killed engine, does not end.\n"
                        f"  look at it    ps -fp {orphan.pid}\n  then          runbook resume"
                    )
                deadline.wait(_LOOK)

    @contextmanager
    def _registered(self, program: str) -> Iterator[_Child]:
        """A lock file and a control group for one child, both gone at the end."""
        self._locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        unique = uuid.uuid4().hex[:12]
        lock = self._locks / f"child-{self._scope}-{unique}.lock"
        group = Cgroup.create(f"runbook-{self._scope}-{unique}")
        child = _Child(lock, program.replace("\n", " "), group)
        descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            engine = f"{os.getpid()} {started_at(os.getpid())}"
            fields = f"program={child.program}\ncgroup={child.group_path}\nengine={engine}\n"
            os.write(descriptor, fields.encode())
        finally:
            os.close(descriptor)
        try:
            yield child
        finally:
            child.forget()


@dataclass(slots=True)
class _Child:
    """One child process as its lock file records it."""

    lock: Path
    program: str
    group: Cgroup | None
    pid: int = 0

    @property
    def group_path(self) -> str:
        return str(self.group.path) if self.group else ""

    @classmethod
    def recorded(cls, lock: Path) -> _Child | None:
        """What a dead engine's lock file says; None when the engine lives, or the file is gone. The pid is 0 when
        that process is gone, whoever has its number now."""
        try:
            fields = dict(line.partition("=")[::2] for line in lock.read_text().splitlines())
        except FileNotFoundError:
            return None
        if _alive(fields.get("engine", "")):
            return None
        pid = fields.get("pid", "")
        group = Cgroup(Path(fields["cgroup"])) if fields.get("cgroup") else None
        return cls(lock, fields.get("program", "a program"), group, _alive(pid))

    def finish_if_free(self) -> bool:
        """When nobody holds the lock any more: clean up after it. A child that only now starts finds it gone."""
        descriptor = os.open(self.lock, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.forget()
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def forget(self) -> None:
        if self.group:
            self.group.release()
        self.lock.unlink(missing_ok=True)

    def end(self, pid: int, process: subprocess.Popen[bytes] | None = None) -> None:
        """SIGTERM to all of it, then SIGKILL to what is left after the grace. `process` is reaped when it is ours."""
        seen = self._members({pid} - {0})
        for member in seen:
            send(member, signal.SIGTERM)
        seen = self._until_gone(seen, process, GRACE, _wait_only)
        if self.group:
            self.group.kill()
        self._until_gone(seen, process, _DYING, _kill_all)
        if process:
            process.wait()

    def _until_gone(
        self,
        seen: set[int],
        process: subprocess.Popen[bytes] | None,
        seconds: float,
        treat: Callable[[Iterable[int]], None],
    ) -> set[int]:
        """Treat who is left, also the newly forked, until nobody is or the time is over. Everybody ever seen."""
        end = time.monotonic() + seconds
        while True:
            if process:
                process.poll()
            seen = seen | self._members(seen)
            left = [member for member in seen if running(member)]
            treat(left)
            if not left or time.monotonic() >= end:
                return seen
            time.sleep(0.02)

    def _members(self, known: set[int]) -> set[int]:
        """Also those known already: one that has only just been started has not joined its group yet."""
        return known | set(self.group.members()) if self.group else tree(known)


def _alive(process: str) -> int:
    """The pid of a process recorded as `PID START`, or 0 when it is gone."""
    pid, _, started = process.partition(" ")
    return int(pid) if pid and started_at(int(pid)) == started else 0


@contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """Standard input that is whole before the child starts: through a pipe, an engine killed just then would leave
    `helm upgrade --values -` with none, and helm would go on with the chart's own."""
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        with open(os.dup(descriptor), "wb") as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _kill_all(left: Iterable[int]) -> None:
    for member in left:
        send(member, signal.SIGKILL)


def _wait_only(_left: Iterable[int]) -> None:
    return None


def _started(
    argv: Sequence[str], name: str, given: int, env: Mapping[str, str], cwd: Path | None
) -> subprocess.Popen[bytes]:
    """PermanentError for what the system cannot pass on: an argument of more than 128 KiB, a NUL character."""
    try:
        return subprocess.Popen(
            argv,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise PermanentError(f"{name} cannot be started: {error.strerror}") from error
    except ValueError as error:  # its words name the trouble, never a value
        raise PermanentError(f"{name} cannot be started: {error}") from error


def _find(program: str, path: str, cwd: Path | None) -> str:
    if os.sep in program:
        full = (cwd or Path.cwd()) / program
        found = str(full) if os.access(full, os.X_OK) and full.is_file() else None
    else:
        found = shutil.which(program, path=path)
    if found is None:
        raise PermanentError(f"{program}: no such program. Install it, or put its folder on PATH ({path}).")
    return found
