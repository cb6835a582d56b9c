"""Azurite, Microsoft's own emulator of Azure Storage: installed by npm into a cache once, started for the tests."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.contract.services import free_port, running, wait_until
from tests.fakes.required import missing

VERSION = "3.35.0"  # 190 MB, 12 s the first time


@dataclass(frozen=True)
class Azurite:
    """Its blob service, and the key of its one account."""

    url: str
    account: str
    key: str


@contextlib.contextmanager
def azurite() -> Iterator[Azurite]:
    program, port, account = _installed(), free_port(), "lab"
    key = b64encode(secrets.token_bytes(64)).decode()
    argv = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    argv += ["--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence"]
    with running(argv, env={**os.environ, "AZURITE_ACCOUNTS": f"{account}:{key}"}):
        # An answer, even "that is no request", means that it listens.
        wait_until(lambda: requests.get(f"http://127.0.0.1:{port}/", timeout=2).status_code > 0)
        yield Azurite(f"http://127.0.0.1:{port}/{account}", account, key)


def _installed() -> str:
    """The program; skips the test, or fails it where RUNBOOK_REQUIRE names `azurite`, when it cannot be had."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "runbook-tests" / f"azurite-{VERSION}"
    program = folder / "node_modules/.bin/azurite-blob"
    if program.exists():
        return str(program)
    npm = shutil.which("npm")
    if not npm or not shutil.which("node"):
        return missing("azurite", "npm and node are not here, so Azurite cannot be installed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as fresh:
        argv = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", fresh, f"azurite@{VERSION}"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            return missing("azurite", f"npm install azurite@{VERSION} failed: {done.stderr[-500:]}")
        with contextlib.suppress(OSError):  # another worker was faster: then its copy is there
            Path(fresh).rename(folder)
    return str(program)
