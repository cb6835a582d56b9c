"""`mesh`: sidecars, and who may reach whom: asked from inside, by a workload that is there or by a short-lived pod."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.checks.looking import Namespace
from engine.core.action import Context, Deadline, Finding
from engine.core.ports import Cluster, Manifest, Reference
from engine.errors import PermanentError, TemporaryError

_MANAGED = "app.kubernetes.io/managed-by"
_PROBE = "runbook-probe"
_SIDECAR = "istio-proxy"
_ANSWER = 10  # seconds for one request
_PROBE_LIFE = 120  # seconds; the cluster ends the pod itself when the engine dies
_REFUSED = "refused"
# Exit 0 with a status, or with `refused` for a connection that was refused or cut: what strict mTLS does to plain text.
_PYTHON = """
import http.client, ssl, sys, urllib.error, urllib.request
context = ssl._create_unverified_context()
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=int(sys.argv[2]), context=context).status)
except urllib.error.HTTPError as error:
    print(error.code)
except (ConnectionError, http.client.RemoteDisconnected):
    print("refused")
except urllib.error.URLError as error:
    cut = isinstance(error.reason, (ConnectionError, http.client.RemoteDisconnected))
    print("refused" if cut else f"no answer: {error.reason}")
except OSError as error:
    print(f"no answer: {error}")
"""
_SHELL = """
if command -v curl >/dev/null; then curl -ks -o /dev/null -m "$3" -w '%{http_code} ' "$1"; echo $?
else python3 -c "$2" "$1" "$3"; fi
"""
_CURL_REFUSED = {"7", "35", "52", "56"}  # could not connect, TLS failed, empty reply, connection reset


class From(BaseModel):
    """A workload that asks."""

    model_config = ConfigDict(extra="forbid")

    namespace: Namespace = Field(description="Its namespace.")
    workload: str = Field(pattern=r"^(deployment|statefulset|daemonset)/", description="`deployment/web`.")
    container: str = Field(default="", description="Its container; default: the first.")


class Probe(BaseModel):
    """A short-lived pod that asks."""

    model_config = ConfigDict(extra="forbid")

    namespace: Namespace = Field(description="Where it runs.")
    service_account: str = Field(default="default", description="As whom it runs: what an AuthorizationPolicy sees.")
    meshed: bool = Field(default=False, description="With a sidecar, or outside the mesh.")
    image: str = Field(description="An image with python3.")


class MeshParams(BaseModel):
    """Either `namespace` and `sidecars`, or `from` or `probe` with `url` and what must come of it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    namespace: Namespace | None = Field(default=None, description="Whose pods must have a sidecar.")
    sidecars: Literal["all"] = Field(default="all", description="Every running pod that does not opt out.")
    origin: From | None = Field(default=None, alias="from", description="A workload that asks.")
    probe: Probe | None = Field(default=None, description="A short-lived pod that asks.")
    url: str = Field(default="", description="What is asked for.")
    status: int | None = Field(default=None, description="The HTTP status that must come back.")
    refused: bool = Field(default=False, description="The connection must be refused or cut.")

    @model_validator(mode="after")
    def _one_question(self) -> MeshParams:
        if sum(x is not None for x in (self.namespace, self.origin, self.probe)) != 1:
            raise ValueError("name exactly one of namespace, from, probe")
        if self.namespace is None and (not self.url or (self.status is None) == (not self.refused)):
            raise ValueError("from and probe need url, and either status or refused")
        return self


class MeshCheck:
    """Looks once. A probe pod is removed at the end of the look; leftovers of dead runs before the next."""

    key: ClassVar[str] = "mesh"
    Params: ClassVar[type] = MeshParams

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def run(self, params: MeshParams, ctx: Context) -> Finding:
        if params.namespace is not None:
            return self._sidecars(params.namespace)
        try:
            if params.origin is not None:
                answer = self._ask_from(params.origin, params.url, ctx.deadline)
            else:
                assert params.probe is not None  # noqa: S101 - the model says so
                answer = self._ask_by_probe(params.probe, params.url, ctx)
        except TemporaryError as error:
            return Finding(False, str(error))
        if params.refused:
            return Finding(answer == _REFUSED, f"{params.url}: {answer}")
        return Finding(answer == str(params.status), f"{params.url}: {answer}, {params.status} expected")

    def _sidecars(self, namespace: str) -> Finding:
        pods = [p for p in self._cluster.list("v1", "Pod", namespace) if _running(p) and not _opts_out(p)]
        bare = [p["metadata"]["name"] for p in pods if _SIDECAR not in _containers(p)]
        if bare:
            return Finding(False, f"without a sidecar: {', '.join(bare)}")
        return Finding(bool(pods), f"{len(pods)} of {len(pods)} pods have a sidecar" if pods else "no running pod")

    def _ask_from(self, origin: From, url: str, deadline: Deadline) -> str:
        kind, _, name = origin.workload.partition("/")
        kinds = {"deployment": "Deployment", "statefulset": "StatefulSet", "daemonset": "DaemonSet"}
        reference = Reference("apps/v1", kinds[kind], name, origin.namespace)
        workload = self._cluster.get(reference)
        if workload is None:
            raise TemporaryError(f"{reference} does not exist")
        labels = workload["spec"]["selector"].get("matchLabels") or {}
        selector = ",".join(f"{k}={v}" for k, v in labels.items())
        pods = [p for p in self._cluster.list("v1", "Pod", origin.namespace, selector) if _running(p)]
        if not pods:
            raise TemporaryError(f"{reference} has no running pod")
        return self._ask(pods[0], origin.container, url, deadline)

    def _ask(self, pod: Manifest, container: str, url: str, deadline: Deadline) -> str:
        """By curl, or by Python where there is none."""
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        argv = ["sh", "-c", _SHELL, "sh", url, _PYTHON, str(_ANSWER)]
        container = container or _containers(pod)[0]
        pieces = self._cluster.exec(namespace, name, argv, container=container, deadline=deadline)
        answer = b"".join(pieces).decode(errors="replace").strip()
        status, _, code = answer.partition(" ")
        if not code.isdigit():
            return answer  # Python's own words
        if code == "0":
            return status
        return _REFUSED if code in _CURL_REFUSED else f"no answer (curl {code})"

    def _ask_by_probe(self, probe: Probe, url: str, ctx: Context) -> str:
        with self._pod(probe, ctx) as pod:
            return self._ask(pod, _PROBE, url, ctx.deadline)

    @contextmanager
    def _pod(self, probe: Probe, ctx: Context) -> Iterator[Manifest]:
        """A probe pod that is ready. Always removed."""
        self._sweep(probe.namespace)
        manifest = _probe_pod(probe)
        reference = Reference.of(manifest)
        self._cluster.apply(manifest, manager="runbook")
        try:
            yield self._ready(reference, ctx)
        finally:
            self._cluster.delete(reference, Deadline(30), wait=False)

    def _ready(self, reference: Reference, ctx: Context) -> Manifest:
        while True:
            found = self._cluster.get(reference)
            if found is None:
                raise TemporaryError(f"{reference} disappeared")
            conditions = (found.get("status") or {}).get("conditions") or []
            if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                return found
            for container in (found.get("status") or {}).get("containerStatuses") or []:
                reason = (container.get("state") or {}).get("waiting", {}).get("reason", "")
                if "Image" in reason:
                    raise PermanentError(f"{reference}: {reason} {container['image']}")
            ctx.deadline.check(f"waiting for {reference}")
            ctx.deadline.wait(0.3)

    def _sweep(self, namespace: str) -> None:
        """Remove finished probes; one that still runs may be another check's and ends by itself."""
        for pod in self._cluster.list("v1", "Pod", namespace, f"{_MANAGED}=runbook,app={_PROBE}"):
            if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                self._cluster.delete(Reference.of(pod), Deadline(30), wait=False)


def _probe_pod(probe: Probe) -> dict[str, Any]:
    """As PodSecurity `restricted` wants it."""
    inject = "true" if probe.meshed else "false"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{_PROBE}-{uuid.uuid4().hex[:8]}",
            "namespace": probe.namespace,
            "labels": {_MANAGED: "runbook", "app": _PROBE, "sidecar.istio.io/inject": inject},
            "annotations": {"sidecar.istio.io/inject": inject},
        },
        "spec": {
            "serviceAccountName": probe.service_account,
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _PROBE_LIFE,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": _PROBE,
                    "image": probe.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-c", f"import time; time.sleep({_PROBE_LIFE})"],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "32Mi"},
                        "limits": {"memory": "64Mi"},
                    },
                }
            ],
        },
    }


def _running(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


def _containers(pod: Manifest) -> list[str]:
    """Sidecars may be init containers that stay."""
    spec = pod["spec"]
    return [c["name"] for c in [*spec["containers"], *(spec.get("initContainers") or [])]]


def _opts_out(pod: Manifest) -> bool:
    meta = pod["metadata"]
    said = {**(meta.get("annotations") or {}), **(meta.get("labels") or {})}
    return said.get("sidecar.istio.io/inject") == "false" or bool(pod["spec"].get("hostNetwork"))
