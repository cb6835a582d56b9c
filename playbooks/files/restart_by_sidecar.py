"""Restart the workloads whose pods have a sidecar, or have none: restart_by_sidecar.py with|without KUBECTL <PODS.

KUBECTL is the command as a JSON list, PODS the items of a pod list. Prints what it restarted. Running it again
restarts only what is left.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

SIDECAR = "istio-proxy"
DEADLINE = "180s"  # for one workload to come back


def workloads(pods: Iterable[dict[str, Any]], sidecar: bool) -> Iterator[tuple[str, str, str]]:
    """Namespace, kind and name of each workload with a running pod that has a sidecar, or has none and could."""
    for pod in pods:
        meta, spec = pod["metadata"], pod["spec"]
        # a sidecar is a container, or, since Kubernetes has such, an init container that keeps running
        names = {container["name"] for container in spec["containers"] + spec.get("initContainers", [])}
        out = meta.get("labels", {}).get("sidecar.istio.io/inject") == "false" or spec.get("hostNetwork")
        finished = pod["status"]["phase"] in ("Succeeded", "Failed")
        owner = next((o for o in meta.get("ownerReferences", []) if o.get("controller")), None)
        if (SIDECAR in names) is not sidecar or out or finished or "deletionTimestamp" in meta or owner is None:
            continue
        if owner["kind"] == "ReplicaSet":  # its name is the Deployment's and the template's hash
            yield meta["namespace"], "deployment", owner["name"].rpartition("-")[0]
        elif owner["kind"] in ("StatefulSet", "DaemonSet"):
            yield meta["namespace"], owner["kind"].lower(), owner["name"]


def main() -> None:
    """Restart them one after the other."""
    kubectl: list[str] = json.loads(sys.argv[2])
    for namespace, kind, name in sorted(set(workloads(json.load(sys.stdin), sys.argv[1] == "with"))):
        workload = [f"{kind}/{name}", "-n", namespace]
        for step in (["rollout", "restart", *workload], ["rollout", "status", *workload, f"--timeout={DEADLINE}"]):
            done = subprocess.run([*kubectl, *step], text=True, capture_output=True, check=False)
            if done.returncode:
                sys.exit(f"{kind} {namespace}/{name}: {(done.stderr or done.stdout).strip()}")
        print(f"{kind} {namespace}/{name}")


if __name__ == "__main__":
    main()
