"""`kubernetes`: workloads, nodes and their metrics, volumes, jobs and external secrets, as the API server sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.checks.looking import MaybeNamespace
from engine.core.action import Context, Finding
from engine.core.ports import Cluster, Manifest, Reference

_SUBJECTS = ("deployment", "statefulset", "daemonset", "node", "version", "pvc", "externalsecret", "job", "metrics")
_NAMESPACED = ("deployment", "statefulset", "daemonset", "pvc", "externalsecret", "job")
_VERSION = re.compile(r"^(>=|<=|==|>|<)?\s*v?(\d+)\.(\d+)(?:\.(\d+))?$")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


class KubernetesParams(BaseModel):
    """Exactly one subject, and what is expected of it."""

    model_config = ConfigDict(extra="forbid")

    deployment: str | None = Field(default=None, description="A Deployment's name.")
    statefulset: str | None = Field(default=None, description="A StatefulSet's name.")
    daemonset: str | None = Field(default=None, description="A DaemonSet's name.")
    node: str | None = Field(default=None, description="`ready`: every node is; or the name of one that must be.")
    version: str | None = Field(default=None, description="The API server's version: `>=1.28`.")
    pvc: str | None = Field(default=None, description="A PersistentVolumeClaim's name; it must be bound.")
    externalsecret: str | None = Field(default=None, description="An ExternalSecret's name; it must be synced.")
    job: str | None = Field(default=None, description="A Job's name; it must be complete.")
    metrics: Literal["nodes"] | None = Field(
        default=None, description="`nodes`: metrics.k8s.io has CPU and memory of every node; autoscalers need it."
    )
    namespace: MaybeNamespace = Field(default="", description="Of the subject, where it lives in one.")
    available: Literal[True] = Field(
        default=True, description="Every replica, and at least one, is available; always looked at."
    )
    replicas: int | None = Field(default=None, ge=0, description="How many replicas it must have.")
    bound: Literal[True] = Field(default=True, description="The claim has its volume; always looked at.")
    complete: Literal[True] = Field(default=True, description="The job is done; always looked at.")
    synced: bool | str = Field(
        default=True, description="Its Secret is up to date; may name the step that wrote the source."
    )

    @model_validator(mode="after")
    def _one_subject(self) -> KubernetesParams:
        named = [s for s in _SUBJECTS if getattr(self, s) is not None]
        if len(named) != 1:
            raise ValueError(f"name exactly one of {', '.join(_SUBJECTS)}")
        if named[0] in _NAMESPACED and not self.namespace:
            raise ValueError(f"{named[0]} needs a namespace")
        if self.version is not None and not _VERSION.match(self.version):
            raise ValueError(f"version {self.version!r} is not like '>=1.28'")
        return self


class KubernetesCheck:
    """Looks once, with one or two reads."""

    key: ClassVar[str] = "kubernetes"
    Params: ClassVar[type] = KubernetesParams

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def run(self, params: KubernetesParams, ctx: Context) -> Finding:
        looks: tuple[tuple[str | None, Callable[[str], Finding]], ...] = (
            (params.version, self._version),
            (params.node, self._nodes),
            (params.metrics, self._metrics),
            (params.pvc, lambda name: self._claim(name, params.namespace)),
            (params.job, lambda name: self._job(name, params.namespace)),
            (params.externalsecret, lambda name: self._external_secret(name, params.namespace)),
        )
        for subject, look in looks:
            if subject is not None:
                return look(subject)
        return self._workload(params)

    def _version(self, wanted: str) -> Finding:
        seen = self._cluster.version()
        found = _VERSION.match(wanted)
        there = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", seen)
        if found is None or there is None:
            return Finding(False, f"version {seen}", final=True)
        parts = [int(p) for p in found.groups()[1:] if p is not None]
        mine = [int(p or 0) for p in there.groups()][: len(parts)]
        return Finding(_COMPARE[found[1] or "=="](mine, parts), f"version {seen}", final=True)

    def _nodes(self, wanted: str) -> Finding:
        nodes = [n for n in self._cluster.list("v1", "Node") if wanted in ("ready", n["metadata"]["name"])]
        if not nodes:
            return Finding(False, "no nodes" if wanted == "ready" else f"no node {wanted}")
        bad = [n["metadata"]["name"] for n in nodes if not _true(n, "Ready")]
        if bad:
            return Finding(False, f"not ready: {', '.join(bad)}")
        return Finding(True, f"{len(nodes)} of {len(nodes)} nodes ready")

    def _metrics(self, _of: str) -> Finding:
        """TemporaryError, which is looked at again, while the API behind it does not answer."""
        nodes = [n["metadata"]["name"] for n in self._cluster.list("v1", "Node")]
        found = self._cluster.list("metrics.k8s.io/v1beta1", "NodeMetrics")
        served = {m["metadata"]["name"]: m["usage"] for m in found}
        lacking = [n for n in nodes if not {"cpu", "memory"} <= set(served.get(n, {}))]
        if lacking or not nodes:
            return Finding(False, f"no metrics of node {', '.join(lacking)}" if nodes else "no nodes")
        return Finding(True, ", ".join(f"{n}: CPU {served[n]['cpu']}, memory {served[n]['memory']}" for n in nodes))

    def _workload(self, params: KubernetesParams) -> Finding:
        kind, name = next(
            (kind, name)
            for kind, name in (
                ("Deployment", params.deployment),
                ("StatefulSet", params.statefulset),
                ("DaemonSet", params.daemonset),
            )
            if name is not None
        )
        reference = Reference("apps/v1", kind, name, params.namespace)
        found = self._cluster.get(reference)
        if found is None:
            return Finding(False, f"{reference} does not exist")
        status = found.get("status") or {}
        if kind == "DaemonSet":
            wanted, available = status.get("desiredNumberScheduled", 0), status.get("numberAvailable", 0)
        else:
            wanted, available = found["spec"].get("replicas", 1), status.get("availableReplicas", 0)
        saw = f"{available}/{wanted} available"
        if params.replicas is not None and wanted != params.replicas:
            return Finding(False, f"{saw}, {params.replicas} expected")
        if status.get("observedGeneration", 0) < found["metadata"]["generation"]:
            return Finding(False, f"{saw}, a change not seen by its controller yet")
        if wanted == 0 and kind != "DaemonSet" and params.replicas is None:
            return Finding(False, f"{saw}: scaled to 0")
        if available < wanted:
            return Finding(False, ", ".join([saw, *self._trouble(found)]))
        return Finding(True, saw)

    def _trouble(self, workload: Manifest) -> list[str]:
        """`pod x: ImagePullBackOff` for each pod that is not ready."""
        labels = (workload["spec"].get("selector") or {}).get("matchLabels") or {}
        selector = ",".join(f"{k}={v}" for k, v in labels.items())
        lines = []
        for pod in self._cluster.list("v1", "Pod", workload["metadata"]["namespace"], selector):
            if _true(pod, "Ready"):
                continue
            status = pod.get("status") or {}
            waiting = [
                (c.get("state") or {}).get("waiting", {}).get("reason", "")
                for c in status.get("containerStatuses") or []
            ]
            reason = next((w for w in waiting if w), status.get("phase", ""))
            lines.append(f"pod {pod['metadata']['name']}: {reason}")
        return lines

    def _claim(self, name: str, namespace: str) -> Finding:
        found = self._cluster.get(Reference("v1", "PersistentVolumeClaim", name, namespace))
        if found is None:
            return Finding(False, f"claim {namespace}/{name} does not exist")
        status = found.get("status") or {}
        size = (status.get("capacity") or {}).get("storage", "")
        return Finding(status.get("phase") == "Bound", f"{status.get('phase', 'no phase')} {size}".strip())

    def _job(self, name: str, namespace: str) -> Finding:
        found = self._cluster.get(Reference("batch/v1", "Job", name, namespace))
        if found is None:
            return Finding(False, f"job {namespace}/{name} does not exist")
        if _true(found, "Complete"):
            return Finding(True, "complete")
        failed = _condition(found, "Failed")
        if failed.get("status") == "True":
            return Finding(False, f"failed: {failed.get('message') or failed.get('reason')}", final=True)
        return Finding(False, f"{(found.get('status') or {}).get('active', 0)} pods at work")

    def _external_secret(self, name: str, namespace: str) -> Finding:
        found = self._served_external_secret(name, namespace)
        if found is None:
            return Finding(False, f"external secret {namespace}/{name} does not exist")
        ready = _condition(found, "Ready")
        if ready.get("status") != "True":
            return Finding(False, f"not synced: {ready.get('message') or ready.get('reason') or 'no status yet'}")
        status, meta = found.get("status") or {}, found["metadata"]
        version = str(status.get("syncedResourceVersion", ""))
        if version.partition("-")[0] != str(meta.get("generation", "")):
            return Finding(False, "not synced since it was changed")
        target = (found["spec"].get("target") or {}).get("name") or name
        secret = self._cluster.get(Reference("v1", "Secret", target, namespace))
        wanted = {d["secretKey"] for d in found["spec"].get("data") or []}
        lacking = sorted(wanted - set((secret or {}).get("data") or {}))
        if secret is None or lacking:
            return Finding(False, f"secret {target} lacks {', '.join(lacking)}" if secret else f"no secret {target}")
        return Finding(
            True, f"synced at {status.get('refreshTime', '?')}, secret {target} has {len(secret['data'])} keys"
        )

    def _served_external_secret(self, name: str, namespace: str) -> Manifest | None:
        for version in ("external-secrets.io/v1", "external-secrets.io/v1beta1"):
            if self._cluster.namespaced(version, "ExternalSecret"):
                return self._cluster.get(Reference(version, "ExternalSecret", name, namespace))
        return None


def _condition(manifest: Manifest, kind: str) -> Mapping[str, Any]:
    conditions = (manifest.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind), {})


def _true(manifest: Manifest, kind: str) -> bool:
    return _condition(manifest, kind).get("status") == "True"
