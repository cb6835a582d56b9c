"""The cluster as its administrator sees it, through kubectl: nothing of the engine's own client."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from typing import Any

import yaml

from tests.contract.cluster import KUBECONFIG
from tests.fakes.required import missing


def kubectl(*argv: str, given: Any = None) -> str:
    """Standard output. Skips the test without the program; `given` goes to its input as YAML."""
    program = shutil.which("kubectl", path=f"/var/cache/runbook-lab/bin:{os.environ.get('PATH', '')}")
    if program is None:
        missing("cluster", "no kubectl")
    full = [program, "--kubeconfig", str(KUBECONFIG), "--context", "lab-admin", *argv]
    done = subprocess.run(full, input=yaml.safe_dump_all(given or []), text=True, capture_output=True, check=False)
    assert not done.returncode, f"{' '.join(full)}: {done.stderr}"
    return done.stdout


def settings(namespace: str) -> dict[str, Any]:
    """Every ConfigMap and Opaque Secret of a namespace: `Kind/name` -> its data, decoded."""
    found = {}
    for item in json.loads(kubectl("get", "configmaps,secrets", "-n", namespace, "-o", "json"))["items"]:
        name, data = item["metadata"]["name"], item.get("data", {})
        foreign = name == "kube-root-ca.crt" or name.startswith("istio-ca-")  # put into every namespace
        if foreign or item.get("type", "Opaque") != "Opaque":
            continue
        if item["kind"] == "Secret":
            data = {key: base64.b64decode(value).decode() for key, value in data.items()}
        found[f"{item['kind']}/{name}"] = data
    return found
