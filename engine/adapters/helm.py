"""The `helm` program (version 4) and the release records it keeps in Secrets (port Helm)."""

from __future__ import annotations

import base64
import binascii
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.core.action import Deadline
from engine.core.ports import Cluster, Reference, ReleaseRecord
from engine.core.processes import Finished, Launcher
from engine.errors import NotYetError, PermanentError, RunbookError, TemporaryError

_RECORD = "sh.helm.release.v1"
_PASSING = (
    "connection refused",
    "i/o timeout",
    "TLS handshake timeout",
    "etcdserver",
    "the server is currently unable",
)


class HelmCli:
    """Port Helm. Values go by standard input, never by argument or file; helm's own waiting is not used."""

    def __init__(self, program: str, kubeconfig: Path, context: str, launcher: Launcher, cluster: Cluster) -> None:
        self._program = program
        self._access = ["--kubeconfig", str(kubeconfig), "--kube-context", context]
        self._launcher = launcher
        self._cluster = cluster

    def records(self, namespace: str, name: str) -> Sequence[ReleaseRecord]:
        found = self._cluster.list("v1", "Secret", namespace, f"owner=helm,name={name}")
        return sorted((_record(s, f"{namespace}/{name}") for s in found), key=lambda r: -r.revision)

    def render(
        self,
        name: str,
        namespace: str,
        chart: Path,
        values: Mapping[str, Any],
        *,
        upgrade: bool,
        deadline: Deadline,
    ) -> str:
        argv = ["template", name, str(chart), "--namespace", namespace, "--include-crds", "--skip-tests"]
        argv += ["--is-upgrade"] * upgrade + self._versions()
        return self._run(argv, f"render {name}", deadline, values=values).stdout

    def upgrade(self, name: str, namespace: str, chart: Path, values: Mapping[str, Any], *, deadline: Deadline) -> None:
        argv = ["upgrade", name, str(chart), "--install", "--namespace", namespace]
        argv += ["--server-side=true", "--force-conflicts", "--hide-notes", *_timeout(deadline), *self._access]
        self._run(argv, f"upgrade {namespace}/{name}", deadline, values=values)

    def rollback(self, name: str, namespace: str, revision: int, *, deadline: Deadline) -> None:
        argv = ["rollback", name, str(revision), "--namespace", namespace]
        argv += ["--server-side=true", "--force-conflicts", *_timeout(deadline), *self._access]
        self._run(argv, f"rollback {namespace}/{name}", deadline)

    def uninstall(self, name: str, namespace: str, *, deadline: Deadline) -> None:
        argv = ["uninstall", name, "--namespace", namespace, "--ignore-not-found", *_timeout(deadline), *self._access]
        self._run(argv, f"uninstall {namespace}/{name}", deadline)

    def forget(self, name: str, namespace: str, revision: int) -> None:
        secret = Reference("v1", "Secret", f"{_RECORD}.{name}.v{revision}", namespace)
        self._cluster.delete(secret, Deadline(30))

    def _versions(self) -> list[str]:
        """What charts see as `.Capabilities`. Asked each time (3 ms): an earlier step may have added a kind."""
        return ["--kube-version", self._cluster.version(), "--api-versions", ",".join(self._cluster.api_versions())]

    def _run(
        self, argv: Sequence[str], what: str, deadline: Deadline, *, values: Mapping[str, Any] | None = None
    ) -> Finished:
        stdin = b""
        full = [self._program, *argv]
        if values is not None:
            full += ["--values", "-"]
            stdin = json.dumps(values).encode()
        done = self._launcher.run(full, deadline=deadline, stdin=stdin)
        if done.code:
            raise _failure(what, done)
        return done


def _timeout(deadline: Deadline) -> list[str]:
    """Helm's own limit, for hooks: the step's, not its five minutes."""
    return ["--timeout", f"{max(1, int(deadline.remaining()))}s"]


def _failure(what: str, done: Finished) -> RunbookError:
    text = done.stderr.strip().removeprefix("Error: ") or f"exit {done.code}"
    message = f"helm {what}: {text}"
    if "Kubernetes cluster unreachable" in text:
        return NotYetError(message)
    return TemporaryError(message) if any(words in text for words in _PASSING) else PermanentError(message)


def _record(secret: Mapping[str, Any], where: str) -> ReleaseRecord:
    """A record is JSON, gzipped, base64, and base64 once more as a Secret's value."""
    try:
        raw = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        document = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
        chart = document["chart"]["metadata"]
        return ReleaseRecord(
            revision=document["version"],
            status=document["info"]["status"],
            chart=f"{chart['name']}-{chart['version']}",
            manifest=document.get("manifest", ""),  # a chart of nothing but CRDs has none
            hooks=document.get("hooks") or (),
            values=document.get("config") or {},
        )
    except (KeyError, ValueError, OSError, binascii.Error) as error:
        raise PermanentError(f"helm release {where}: record {secret['metadata']['name']} is damaged") from error
