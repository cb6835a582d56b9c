"""The disasters a drill can cause. Each hits exactly what it named before, and is repeatable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from engine.core.action import Context
from engine.core.change import Outcome
from engine.core.ports import Cluster, Manifest, Reference
from engine.errors import RefusedError, TemporaryError

_LOOK = 0.2  # seconds between two looks whether it is gone


class VolumeLostParams(BaseModel):
    """A claim of a workload, lost with all that is on its volume."""

    model_config = ConfigDict(extra="forbid")

    namespace: str = Field(min_length=1, description="Namespace of the claim.")
    claim: str = Field(min_length=1, description="The PersistentVolumeClaim.")

    @property
    def reference(self) -> Reference:
        return Reference("v1", "PersistentVolumeClaim", self.claim, self.namespace)


class VolumeLost:
    """Deletes the claim and kills every pod that mounts it; the volume's reclaim policy takes the data away.

    The controller of the pods makes an empty volume in its place, as it would after a real loss.
    """

    key: ClassVar[str] = "volume_lost"
    Params: ClassVar[type] = VolumeLostParams

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def target(self, params: VolumeLostParams, ctx: Context) -> Mapping[str, Any]:
        claim = self._cluster.get(params.reference)
        if claim is None or _going(claim) or not claim["spec"].get("volumeName"):
            raise RefusedError(f"{params.reference} is not there and bound: nothing to lose")
        volume = self._volume(claim["spec"]["volumeName"])
        policy = volume["spec"].get("persistentVolumeReclaimPolicy", "") if volume else ""
        pods = [p for p in self._cluster.list("v1", "Pod", params.namespace) if _mounts(p, params.claim)]
        if not pods:
            raise RefusedError(f"no pod mounts {params.reference}: the drill would prove nothing")
        return {
            "claim": claim["metadata"]["uid"],
            "volume": claim["spec"]["volumeName"],
            "policy": policy,
            "pods": {p["metadata"]["name"]: p["metadata"]["uid"] for p in pods},
        }

    def begun(self, params: VolumeLostParams, target: Mapping[str, Any], ctx: Context) -> bool:
        claim = self._cluster.get(params.reference)
        return claim is None or _going(claim) or claim["metadata"]["uid"] != target["claim"]

    def strike(self, params: VolumeLostParams, target: Mapping[str, Any], ctx: Context) -> Outcome:
        claim = self._cluster.get(params.reference)
        if claim is not None and claim["metadata"]["uid"] == target["claim"] and not _going(claim):
            self._cluster.delete(params.reference, ctx.deadline, wait=False)
        kill(self._cluster, params.namespace, target["pods"], ctx)
        while self._is(params.reference, target["claim"]):
            _pause(ctx, f"waiting until {params.reference} is gone")
        kept = target["policy"] != "Delete"
        while not kept and self._volume(target["volume"]) is not None:
            _pause(ctx, f"waiting until volume {target['volume']} is gone")
        names = ", ".join(target["pods"])
        data = f"volume {target['volume']} {'is out of reach, its storage keeps it' if kept else 'is gone'}"
        return Outcome(f"{params.reference} deleted, {data}, {names} killed", evidence=dict(target))

    def _volume(self, name: str) -> Manifest | None:
        return self._cluster.get(Reference("v1", "PersistentVolume", name))

    def _is(self, reference: Reference, uid: str) -> bool:
        found = self._cluster.get(reference)
        return found is not None and bool(found["metadata"]["uid"] == uid)


class PodKilledParams(BaseModel):
    """Pods by their labels."""

    model_config = ConfigDict(extra="forbid")

    namespace: str = Field(min_length=1, description="Namespace of the pods.")
    selector: str = Field(min_length=1, description="Their labels: `app.kubernetes.io/name=web`.")


class PodKilled:
    """Kills pods without a moment to say goodbye."""

    key: ClassVar[str] = "pod_killed"
    Params: ClassVar[type] = PodKilledParams

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def target(self, params: PodKilledParams, ctx: Context) -> Mapping[str, Any]:
        pods = [p for p in self._cluster.list("v1", "Pod", params.namespace, params.selector) if not _going(p)]
        if not pods:
            raise RefusedError(f"no pod in {params.namespace} has {params.selector}: nothing to kill")
        return {"pods": {p["metadata"]["name"]: p["metadata"]["uid"] for p in pods}}

    def begun(self, params: PodKilledParams, target: Mapping[str, Any], ctx: Context) -> bool:
        return len(_alive(self._cluster, params.namespace, target["pods"])) < len(target["pods"])

    def strike(self, params: PodKilledParams, target: Mapping[str, Any], ctx: Context) -> Outcome:
        kill(self._cluster, params.namespace, target["pods"], ctx)
        return Outcome(f"{', '.join(target['pods'])} killed", evidence=dict(target))


def kill(cluster: Cluster, namespace: str, pods: Mapping[str, str], ctx: Context) -> None:
    """End pods (name -> uid) at once, and wait until they are gone; successors of the same name are left alone."""
    for name in _alive(cluster, namespace, pods):
        cluster.delete(Reference("v1", "Pod", name, namespace), ctx.deadline, wait=False, grace=0)
    while any(_pod(cluster, namespace, name, uid) for name, uid in pods.items()):
        _pause(ctx, f"waiting until {', '.join(pods)} are gone")


def _alive(cluster: Cluster, namespace: str, pods: Mapping[str, str]) -> Sequence[str]:
    found = {name: _pod(cluster, namespace, name, uid) for name, uid in pods.items()}
    return [name for name, pod in found.items() if pod is not None and not _going(pod)]


def _pod(cluster: Cluster, namespace: str, name: str, uid: str) -> Manifest | None:
    pod = cluster.get(Reference("v1", "Pod", name, namespace))
    return pod if pod is not None and pod["metadata"]["uid"] == uid else None


def _pause(ctx: Context, doing: str) -> None:
    if not ctx.deadline.remaining():
        raise TemporaryError(f"{doing}: the deadline passed")
    ctx.deadline.wait(_LOOK)


def _going(manifest: Manifest) -> bool:
    return bool(manifest["metadata"].get("deletionTimestamp"))


def _mounts(pod: Manifest, claim: str) -> bool:
    volumes = pod["spec"].get("volumes") or []
    return any((v.get("persistentVolumeClaim") or {}).get("claimName") == claim for v in volumes)
