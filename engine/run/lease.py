"""One run at a time from this journal: a lease file held by an advisory lock, which the kernel frees on death."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import RefusedError


def holder() -> str:
    """Who acts: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@contextmanager
def lease(state: Path, environment: str, run: str, since: str) -> Iterator[None]:
    """Hold the environment for this process. RefusedError (exit 4) names who holds it, since when."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = state / f"{environment}.lease"
    # os.open makes the descriptor non-inheritable: a child process never keeps the lease alive.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(_held(environment, os.read(descriptor, 4096))) from None
        os.ftruncate(descriptor, 0)
        record = {"run": run, "holder": holder(), "pid": os.getpid(), "since": since}
        os.pwrite(descriptor, json.dumps(record).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def refuse_if_held(state: Path, environment: str) -> None:
    """Look without taking: RefusedError (exit 4) when a living process holds the lease."""
    if is_held(state, environment):
        raise RefusedError(_held(environment, (state / f"{environment}.lease").read_bytes()))


def is_held(state: Path, environment: str) -> bool:
    """Does a living process hold this environment's lease? Read only."""
    try:
        descriptor = os.open(state / f"{environment}.lease", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _held(environment: str, content: bytes) -> str:
    try:
        record = json.loads(content)
    except ValueError:
        record = {}
    run, who = record.get("run", "?"), record.get("holder", "someone")
    return (
        f"environment {environment} is held by run {run} ({who}, pid {record.get('pid', '?')}, "
        f"since {record.get('since', '?')}).\n  watch it      runbook status {environment}"
    )
