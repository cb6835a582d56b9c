"""The container this process runs in, in the place of a pod: its programs run here and reach the server over TCP.

Only what a backup needs of port Cluster. Each child leads a session of its own and is killed with all of it at the
deadline, also while it says nothing.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.core.action import Deadline
from engine.core.ports import Reference
from engine.core.redaction import Redactor, Secret
from engine.errors import PermanentError

_PIECE = 64 * 1024
_TAIL = 2000  # bytes of standard error kept for a message
_LOOK = 0.2  # seconds between looks at the deadline while nothing arrives


class Container:
    """The part of port Cluster that `backup` uses, for a process in a pod without rights in the cluster."""

    def __init__(self, environment: Mapping[str, str], redactor: Redactor) -> None:
        """`environment`: variables of the programs, beside PATH."""
        self._environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **environment}
        self._redactor = redactor

    def get(self, reference: Reference) -> Mapping[str, Any]:
        """The database's pod is taken to be ready: nobody is asked, and who connects finds out."""
        return {
            "metadata": {"name": reference.name},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }

    def exec(
        self,
        namespace: str,
        pod: str,
        argv: Sequence[str],
        *,
        container: str = "",
        stdin: bytes | Iterator[bytes] = b"",
        deadline: Deadline,
    ) -> Iterator[bytes]:
        """See Cluster. The pod's name is only told of; the program runs here."""
        what = f"{argv[0]} for {namespace}/{pod}"
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise PermanentError(f"{what} cannot be started: {error.strerror}") from error
        with _ended(process), _fed(process, [stdin] if isinstance(stdin, bytes) else stdin) as failure:
            tail = yield from _output(process, deadline, what)
            code = process.wait()
            if failure:
                raise failure[0]
            if code:
                said = tail.decode(errors="replace").strip()
                raise PermanentError(self._redactor.text(f"{what}: exit {code}: {said}".rstrip(": ")))


def _output(process: subprocess.Popen[bytes], deadline: Deadline, what: str) -> Generator[bytes, None, bytes]:
    """Standard output in pieces; at the end the last of standard error. Raises at the deadline, silent or not."""
    assert process.stdout is not None  # noqa: S101 (for mypy)
    assert process.stderr is not None  # noqa: S101
    out, err, tail = process.stdout.fileno(), process.stderr.fileno(), b""
    streams = {out, err}
    while streams:
        deadline.check(what)
        for ready in select.select(list(streams), [], [], _LOOK)[0]:
            piece = os.read(ready, _PIECE)
            if not piece:
                streams.discard(ready)
            elif ready == out:
                yield piece
            else:
                tail = (tail + piece)[-_TAIL:]
    while process.poll() is None:
        deadline.check(what)
        deadline.wait(_LOOK)
    return tail


@contextmanager
def _fed(process: subprocess.Popen[bytes], pieces: Any) -> Iterator[list[BaseException]]:
    """Its standard input comes while its output is read. An error of the pieces ends it, and is in what is given."""
    failure: list[BaseException] = []

    def feed() -> None:
        assert process.stdin is not None  # noqa: S101 (for mypy)
        try:
            for piece in pieces:
                process.stdin.write(piece)
        except BrokenPipeError:
            return  # it ended early: what it said is still to be read
        except BaseException as error:  # noqa: BLE001 (raised by the reader)
            failure.append(error)
            _kill(process)
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()

    thread = threading.Thread(target=feed, name="feeding", daemon=True)
    thread.start()
    try:
        yield failure
    finally:
        _kill(process)  # a program that ended well has no session left
        thread.join()


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """However the block is left, nothing of its session lives on."""
    try:
        yield
    finally:
        _kill(process)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def password_file(folder: Path, user: str, password: Secret) -> Path:
    """A file for PGPASSFILE, 0600. `folder` should be in memory."""
    path = folder / "pgpass"
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(f"*:*:*:{_escaped(user)}:{_escaped(password.reveal())}\n")
    return path


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")
