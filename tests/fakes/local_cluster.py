"""A cluster of one machine, this one: `exec` runs the program here, `tunnel` leads to a known address."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from engine.errors import NotYetError, PermanentError


class LocalCluster:
    """What of port Cluster backups and checks use."""

    def __init__(
        self,
        services: Mapping[str, tuple[str, int]] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        user: str = "",
    ) -> None:
        self.services = dict(services or {})
        self.env = {**os.environ, **(env or {})}
        self.user = user
        self.ready = True

    def exec(self, namespace, pod, argv: Sequence[str], *, container="", stdin=b"", deadline) -> Iterator[bytes]:
        with (
            subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.env,
                user=self.user or None,
                cwd="/",
            ) as process,
            _feeding(process, stdin),
        ):
            while piece := process.stdout.read(4096):
                yield piece
            stderr = process.stderr.read().decode()
            if process.wait():
                raise PermanentError(
                    f"{argv[0]} in {namespace}/{pod} ended with {process.returncode}: {stderr.strip()}"
                )

    def get(self, reference):
        return {"status": {"conditions": [{"type": "Ready", "status": "True" if self.ready else "False"}]}}

    @contextmanager
    def tunnel(self, service: str) -> Iterator[tuple[str, int]]:
        if service not in self.services:
            raise NotYetError(f"service {service} has no ready pod")
        yield self.services[service]


@contextmanager
def _feeding(process: subprocess.Popen, stdin) -> Iterator[None]:
    """Give it its standard input while its output is read; an error of the pieces ends it and is raised here."""
    failure: list[BaseException] = []

    def feed() -> None:
        try:
            for piece in [stdin] if isinstance(stdin, bytes) else stdin:
                process.stdin.write(piece)
        except BrokenPipeError:
            return  # it ended early: what it said is still to be read
        except Exception as error:  # noqa: BLE001 (raised below)
            failure.append(error)
            process.kill()
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    except PermanentError:
        thread.join()
        if failure:
            raise failure[0] from None
        raise
    finally:
        thread.join()
