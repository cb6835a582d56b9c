"""Sentinels of a drill: written one after another by a thread, each acknowledged one noted outside the environment."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.core.action import Context
from engine.core.drill import Acknowledged, SentinelStore
from engine.errors import RefusedError, RunbookError

WRITE_SECONDS = 5.0
"""How long one sentinel may take to be acknowledged."""
_GLANCE = 0.5  # seconds between two looks whether the writer still lives


class SentinelLog:
    """`.runbook/drills/RUN.jsonl`, mode 0600: a line per acknowledged sentinel, on disk before the next is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, state: Path, run: str) -> SentinelLog:
        return cls(state / "drills" / f"{run}.jsonl")

    def open(self) -> int:
        """A descriptor to append with."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return descriptor

    @staticmethod
    def note(descriptor: int, one: Acknowledged) -> None:
        line = json.dumps({"number": one.number, "token": one.token, "at": one.at}) + "\n"
        os.write(descriptor, line.encode())
        os.fsync(descriptor)

    def read(self) -> list[Acknowledged]:
        """All of them. A last line that a crash cut off was not acknowledged to anybody.

        RefusedError when any other line cannot be read.
        """
        lines = self.path.read_text().split("\n") if self.path.exists() else [""]
        try:
            return [Acknowledged(**json.loads(line)) for line in lines[:-1]]
        except (ValueError, TypeError) as error:
            raise RefusedError(f"{self.path}: not a log of sentinels, or damaged: the loss cannot be judged") from error

    def evidence(self) -> Mapping[str, Any]:
        """What the journal keeps of it: the digest makes an edit visible."""
        noted = self.read()
        return {
            "acknowledged": len(noted),
            "first": noted[0].at if noted else "",
            "last": noted[-1].at if noted else "",
            "log": f"{self.path.parent.name}/{self.path.name}",
            "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest() if noted else "",
        }

    def sealed(self, evidence: Mapping[str, Any]) -> Sequence[Acknowledged]:
        """Read again at the end. RefusedError when it is not what the journal says it was."""
        now = self.evidence()
        if now["sha256"] != evidence["sha256"]:
            raise RefusedError(f"{self.path} was changed since the journal noted its digest: the loss cannot be judged")
        return self.read()


class SentinelWriter:
    """Writes at a set rate from a thread of its own until it is told to stop.

    A sentinel that is not acknowledged is never tried again: the next one has the next number. Each has a deadline of
    its own, so they go on however long the rest takes. As a context manager: it stops at the end, whatever ended it.
    """

    def __init__(
        self,
        store: SentinelStore,
        params: Any,
        run: str,
        ctx: Context,
        log: SentinelLog,
        *,
        rate: float,
        clock: Callable[[], str],
    ) -> None:
        self._store, self._params, self._run, self._ctx, self._log = store, params, run, ctx, log
        self._pause, self._clock = 1 / rate, clock
        self._stop = threading.Event()
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="sentinels", daemon=True)
        self.acknowledged = 0
        self.refused = 0
        self.trouble = ""
        """What the last one that was not acknowledged met."""

    def __enter__(self) -> SentinelWriter:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Returns when the last one is noted. Twice is fine."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def wait_for(self, count: int, seconds: float) -> bool:
        """Until so many were acknowledged; False when that takes longer than `seconds`, or somebody wants to stop."""
        deadline = self._ctx.deadline.renewed(seconds)
        with self._moved:
            while self.acknowledged < count and deadline.remaining() and not deadline.cancelled:
                if not self._thread.is_alive():
                    break
                self._moved.wait(min(_GLANCE, deadline.remaining()))
            return self.acknowledged >= count

    def _work(self) -> None:
        descriptor = self._log.open()
        number = 0
        try:
            while not self._stop.is_set():
                try:
                    with self._store.writing(self._params, self._run, self._ctx) as write:
                        while not self._stop.is_set():
                            number += 1
                            token = secrets.token_hex(16)
                            write(number, token, self._ctx.deadline.renewed(WRITE_SECONDS))
                            self._log.note(descriptor, Acknowledged(number, token, self._clock()))
                            self._tell(acknowledged=1)
                            self._stop.wait(self._pause)
                except RunbookError as error:
                    self._tell(refused=1, trouble=str(error))
                    self._stop.wait(self._pause)
                except OSError as error:  # the log does not take it: go no further, what is noted is noted
                    self._tell(trouble=f"{self._log.path}: {error.strerror}")
                    return
        finally:
            os.close(descriptor)

    def _tell(self, *, acknowledged: int = 0, refused: int = 0, trouble: str = "") -> None:
        with self._moved:
            self.acknowledged += acknowledged
            self.refused += refused
            self.trouble = trouble or self.trouble
            self._moved.notify_all()
