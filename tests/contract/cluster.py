"""The local cluster for tests: its clients, and namespaces of the tests' own that are removed again."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.adapters.kubernetes import KubernetesCluster
from engine.core.action import Deadline
from engine.core.ports import Reference
from engine.core.redaction import Redactor
from tests.fakes.required import missing

KUBECONFIG = Path(os.environ.get("RUNBOOK_TEST_KUBECONFIG", "/var/lib/runbook-lab/kubeconfig"))
PYTHON = "docker.io/lab/python:3.11"


def connect(context: str = "runbook-deployer", redactor: Redactor | None = None) -> KubernetesCluster:
    """A client as one of the lab's identities; skips the test without a cluster, unless it is required."""
    if not KUBECONFIG.is_file():
        missing("cluster", f"no cluster: {KUBECONFIG} does not exist")
    return KubernetesCluster(KUBECONFIG, context, redactor or Redactor(), lambda: b"k" * 32)


@contextmanager
def namespace(cluster: KubernetesCluster, *, create: bool = True) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    reference = Reference("v1", "Namespace", name)
    if create:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, manager="test")
    try:
        yield name
    finally:
        cluster.delete(reference, Deadline(60), wait=False)


def deployment(namespace: str, name: str = "web", *, image: str = PYTHON, replicas: int = 1, **container) -> dict:
    """One that is ready at once: a Python HTTP server."""
    labels = {"app": name}
    command = ["python3", "-m", "http.server", "8000", "--directory", "/tmp"]
    main = {"name": "main", "image": image, "imagePullPolicy": "Never", "command": command, **container}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [main]},
            },
        },
    }


def helm_program() -> str:
    """Helm 4, from the lab's programs or the PATH."""
    found = shutil.which("helm", path=f"/var/cache/runbook-lab/bin:{os.environ.get('PATH', '')}")
    if not found:
        missing("cluster", "no helm")
    return found
