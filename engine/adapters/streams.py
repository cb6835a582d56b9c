"""A child process's outputs: gathered in bounded memory, followed line by line, redacted."""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from engine.core.action import Deadline
from engine.core.redaction import Redactor
from engine.errors import PermanentError

KEPT = 32 * 1024 * 1024
"""Bytes of output kept. Of a stream that is followed line by line: its end. Of one that is not: more is an error."""
_TICK = 0.2  # seconds between two looks at cancellation
_LONGEST_LINE = 1024 * 1024


class Streams:
    """Gathers a child's outputs, in bounded memory."""

    def __init__(
        self,
        program: str,
        process: subprocess.Popen[bytes],
        redactor: Redactor,
        on_line: Callable[[str], None] | None,
    ) -> None:
        self._program = program
        self._process = process
        self._redactor = redactor
        self._on_line = on_line
        self._selector = selectors.DefaultSelector()
        self._kept: dict[int, bytearray] = {}
        self._line: dict[int, bytearray] = {}
        for stream in (process.stdout, process.stderr):
            self._open(stream)

    def follow(self, deadline: Deadline, doing: str) -> None:
        """Until the child ended. Output that a daemon keeps open after it is not waited for."""
        with self._selector:
            while self._process.poll() is None:
                deadline.check(doing)
                timeout = min(_TICK, deadline.remaining())
                if self._selector.get_map():
                    self._turn(timeout)
                else:
                    self._wait(timeout)
            while self._selector.get_map() and self._turn(0):
                pass
            for line in self._line.values():
                self._emit(line, whole=True)

    def stdout(self) -> str:
        return self._text(self._process.stdout)

    def stderr(self) -> str:
        return self._text(self._process.stderr)

    def close(self) -> None:
        """Let go of the pipes."""
        for stream in (self._process.stdout, self._process.stderr):
            if stream and not stream.closed:
                stream.close()

    def _text(self, stream: IO[bytes] | None) -> str:
        return next((data.decode(errors="replace") for key, data in self._kept.items() if key == id(stream)), "")

    def _open(self, stream: IO[bytes] | None) -> None:
        assert stream is not None  # noqa: S101 - Popen was given PIPE for both
        os.set_blocking(stream.fileno(), False)
        self._selector.register(stream, selectors.EVENT_READ, data=stream)
        self._kept[id(stream)], self._line[id(stream)] = bytearray(), bytearray()

    def _wait(self, timeout: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)

    def _turn(self, timeout: float) -> bool:
        """One round of reading; False when nothing was ready."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            self._read(key.data)
        return bool(ready)

    def _read(self, stream: IO[bytes]) -> None:
        data = os.read(stream.fileno(), 65536)
        if not data:
            self._selector.unregister(stream)
            return
        kept = self._kept[id(stream)]
        kept += data
        if len(kept) > KEPT:
            if self._on_line is None and stream is self._process.stdout:
                raise PermanentError(f"{self._program}: printed more than {KEPT // 1024**2} MiB, more than is kept")
            del kept[: len(kept) - KEPT]
        if self._on_line is not None:
            line = self._line[id(stream)]
            line += data
            self._emit(line, whole=False)

    def _emit(self, line: bytearray, *, whole: bool) -> None:
        """Give the complete lines away; of one without an end, all but what may be the start of a secret."""
        if self._on_line is None:
            return
        end = len(line) if whole else line.rfind(b"\n") + 1
        if not end and len(line) > _LONGEST_LINE:
            end = len(line) - self._redactor.carry() * 4  # characters of up to four bytes
        if end > 0:
            text = bytes(line[:end]).decode(errors="replace")
            del line[:end]
            for each in text.splitlines():
                self._on_line(self._redactor.text(each))
