"""The local cluster as its administrator sees it: kubectl, the audit log, and what stands in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.e2e.project import ROOT

NAMESPACES = ("belizechain", "external-secrets", "istio-ingress", "istio-system", "monitoring", "vault")
_DECLARED = (
    "configmaps deployments.apps statefulsets.apps daemonsets.apps services serviceaccounts persistentvolumeclaims "
    "networkpolicies.networking.k8s.io resourcequotas poddisruptionbudgets.policy jobs.batch "
    "externalsecrets.external-secrets.io secretstores.external-secrets.io "
    "authorizationpolicies.security.istio.io peerauthentications.security.istio.io "
    "gateways.networking.istio.io virtualservices.networking.istio.io"
)
_READING = {"get", "list", "watch"}


@dataclass(frozen=True, slots=True)
class Lab:
    """The cluster that `runbook deploy local` builds. `variables` are those of its inventory."""

    variables: dict[str, Any]

    @classmethod
    def of_the_inventory(cls) -> Lab:
        argv = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(ROOT / "inventories/local")]
        done = subprocess.run([*argv, "--host", "localhost"], capture_output=True, text=True, check=True, cwd="/")
        found = json.loads(done.stdout)
        return cls({"lab_dir": found["lab_dir"], "kubectl": f"{found['lab_cache']}/bin/kubectl"})

    @property
    def kubeconfig(self) -> Path:
        return Path(self.variables["lab_dir"]) / "kubeconfig"

    def kubectl(self, *argv: str, stdin: str = "") -> str:
        """As a person at a terminal types it, who is an administrator."""
        command = [self.variables["kubectl"], "--kubeconfig", str(self.kubeconfig), "--context", "lab-admin", *argv]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
        return done.stdout

    def get(self, *argv: str) -> dict[str, Any]:
        """`kubectl get -o json`."""
        return json.loads(self.kubectl("get", *argv, "-o", "json"))

    def declared(self) -> dict[str, Any]:
        """What the platform's namespaces hold, without what the cluster itself writes into it."""
        objects = self.get("namespaces", *NAMESPACES)["items"]
        for namespace in NAMESPACES:
            objects += self.get(_DECLARED.replace(" ", ","), "-n", namespace)["items"]
        return {_name(o): _bare(o) for o in objects if not _name(o).endswith("/kube-root-ca.crt")}

    def versions(self) -> dict[str, str]:
        """The resourceVersion of every workload and Secret of the platform, once nothing moves any more."""
        return self.at_rest(self._versions)

    def at_rest(self, look: Callable[[], Any], seconds: float = 60) -> Any:
        """What two looks in a row agree on: controllers have written what they had to."""
        seen = look()
        for _ in range(int(seconds / 2)):
            time.sleep(2)  # the time in which it must not move
            again = look()
            if again == seen:
                return seen
            seen = again
        raise AssertionError(f"the cluster does not come to rest in {seconds:.0f} s")

    def _versions(self) -> dict[str, str]:
        found = {}
        for namespace in NAMESPACES:
            items = self.get("deployments,statefulsets,daemonsets,secrets,services", "-n", namespace)["items"]
            found |= {_name(o): o["metadata"]["resourceVersion"] for o in items}
        return found

    # --- The audit log ------------------------------------------------------------------------------------------------

    @staticmethod
    def now() -> str:
        """A moment, as the audit log writes it."""
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def requests(self, user: str, since: str) -> list[dict[str, Any]]:
        """What an identity asked of the API server since then: from its own log, not from the engine's."""
        return sorted(self._audited(user, since), key=lambda e: e["requestReceivedTimestamp"])

    def writes(self, user: str, since: str) -> list[str]:
        """Every request of an identity that changed something of the platform, as `verb resource namespace/name`."""
        changing = (
            e
            for e in self.requests(user, since)
            if e["verb"] not in _READING and "dryRun=All" not in e["requestURI"] and e["responseStatus"]["code"] < 400
        )
        return [_described(e) for e in changing if _of_the_platform(e.get("objectRef", {}))]

    def _audited(self, user: str, since: str) -> Iterator[dict[str, Any]]:
        for file in Path(self.variables["lab_dir"], "audit").glob("audit*.log"):
            with file.open() as lines:
                for line in lines:
                    if f'"username":"{user}"' in line:
                        event = json.loads(line)
                        if event["requestReceivedTimestamp"] >= since:
                            yield event


def objects_in(bucket: str, prefix: str) -> set[str]:
    """Keys in the emulated object store."""
    client = boto3.client(
        "s3",
        endpoint_url="http://10.255.0.1:9000",
        region_name="us-east-1",
        aws_access_key_id="lab",
        aws_secret_access_key="lab",
        config=Config(s3={"addressing_style": "path"}),
    )
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {o["Key"] for page in pages for o in page.get("Contents", [])}
    finally:
        client.close()


def _of_the_platform(about: dict[str, Any]) -> bool:
    """Not of another platform on the same cluster, nor of other tests' namespaces."""
    namespace, name = about.get("namespace", ""), about.get("name", "")
    if namespace == "runbook-system":
        return name in ("environment-belizechain", "engine", "engine-planner", "fingerprint-key")
    return namespace in NAMESPACES if namespace else not re.match("test-|crash-|webshop", name)


def _described(event: dict[str, Any]) -> str:
    about = event.get("objectRef", {})
    resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
    return f"{event['verb']} {resource} {about.get('namespace', '')}/{about.get('name', '')}"


def _name(manifest: dict[str, Any]) -> str:
    metadata = manifest["metadata"]
    return f"{manifest['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def _bare(manifest: dict[str, Any]) -> dict[str, Any]:
    """The object without status, versions, and addresses that are given out anew when it is made again."""
    metadata = manifest["metadata"]
    kept = {k: metadata[k] for k in ("labels", "ownerReferences") if k in metadata and manifest["kind"] != "Job"}
    notes = {k: v for k, v in metadata.get("annotations", {}).items() if not _CLUSTERS_OWN.search(k)}
    rest = {k: v for k, v in manifest.items() if k not in ("metadata", "status")}
    if manifest["kind"] == "Service":
        given = ("clusterIP", "clusterIPs", "healthCheckNodePort")
        rest["spec"] = {k: v for k, v in rest["spec"].items() if k not in given}
    return {**rest, "labels": kept.get("labels", {}), "annotations": notes}


_CLUSTERS_OWN = re.compile(
    r"deployment\.kubernetes\.io/revision|kubectl\.kubernetes\.io/last-applied|pv\.kubernetes\.io|/leader$"
)
