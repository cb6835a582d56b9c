"""Watching workloads until they are ready, or until it is plain that they never will be.

Helm's own waiting says "context deadline exceeded" after the whole timeout; the reason stands in the pods, or, where no
pod was made, in the conditions and events of what should have made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core.action import Context
from engine.core.ports import Cluster, Manifest, Reference
from engine.errors import PermanentError, RunbookError, TemporaryError

_LOOK = 0.5  # seconds between two looks
_HOPELESS = frozenset(
    {"ErrImagePull", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "ImageInspectError"}
)
_SOON_HOPELESS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_PATIENCE = 20  # looks: a Secret or ConfigMap that another controller is just writing
_CRASHES = 3
_UNSEEN = "not seen by its controller yet"
_REFUSALS = ("exceeded quota", "forbidden", "is invalid", "Invalid value")
_PASSING_REFUSAL = "error looking up service account"  # the account's cache is a moment behind


def unready(workload: Manifest) -> str:
    """What is missing until this object does its work; empty when it does, or is nothing that rolls out."""
    judge = _JUDGES.get(workload["kind"])
    if judge is None:
        return ""
    status = workload.get("status") or {}
    if (
        workload["kind"] not in ("Job", "Pod")
        and status.get("observedGeneration", 0) < workload["metadata"]["generation"]
    ):
        return _UNSEEN
    return judge(workload.get("spec") or {}, status)


def rolls_out(reference: Reference) -> bool:
    """Whether waiting for this object means anything."""
    return reference.kind in _JUDGES


def wait_ready(cluster: Cluster, references: Sequence[Reference], ctx: Context) -> None:
    """Return when every workload is ready: one read each when they are already.

    PermanentError as soon as a pod cannot start, with the pod's reason, and at the deadline, with what was missing.
    """
    waiting = [r for r in references if rolls_out(r)]
    watch = _Watch(cluster, ctx)
    while waiting:
        waiting = [r for r in waiting if watch.look(r)]
        if not waiting:
            return
        if not ctx.deadline.remaining():
            raise PermanentError(watch.report(waiting[0], "did not become ready in time"))
        ctx.deadline.check(f"waiting for {', '.join(map(str, waiting))}")
        ctx.deadline.wait(_LOOK)


class _Watch:
    """One wait: what was seen of each workload and its pods."""

    def __init__(self, cluster: Cluster, ctx: Context) -> None:
        self._cluster = cluster
        self._ctx = ctx
        self._lines: dict[Reference, list[str]] = {}
        self._strikes: dict[str, int] = {}
        self._events: dict[str, int] = {}
        self._shown = ""

    def look(self, reference: Reference) -> str:
        """What is missing; empty when ready. Raises when it is hopeless, not when the API server is away a moment."""
        try:
            return self._look(reference)
        except TemporaryError as error:
            self._show(str(error))
            self._lines[reference] = [str(error)]
            return "cannot be looked at"

    def _look(self, reference: Reference) -> str:
        workload = self._cluster.get(reference)
        if workload is None:
            return "does not exist"
        missing = unready(workload)
        if not missing:
            return ""
        pods = self._pods(workload)
        self._lines[reference] = [_describe(p) for p in pods if not _pod_ready(p)] or [missing]
        self._show(self._lines[reference][0])
        if missing == _UNSEEN:
            return missing  # its pods and conditions are still of the revision before
        if problem := self._refused(workload) or self._failed(workload) or self._stuck(workload, pods):
            self._lines[reference] = [problem]
            raise PermanentError(self.report(reference, "did not become available"))
        return missing

    def report(self, reference: Reference, what: str) -> str:
        return "\n".join([f"{reference} {what}", *(f"  {line}" for line in self._lines.get(reference, []))])

    def _show(self, line: str) -> None:
        if line != self._shown:
            self._shown = line
            self._ctx.progress(f"waiting: {line}")

    def _pods(self, workload: Manifest) -> list[Manifest]:
        if workload["kind"] == "Pod":
            return [workload]
        labels = (workload["spec"].get("selector") or {}).get("matchLabels") or {}
        selector = ",".join(f"{k}={v}" for k, v in labels.items())
        namespace = workload["metadata"]["namespace"]
        return list(self._cluster.list("v1", "Pod", namespace, selector)) if selector else []

    def _refused(self, workload: Manifest) -> str:
        """Why no pod could be made: a quota, a policy. A StatefulSet or Job tells it in an event only."""
        for condition in (workload.get("status") or {}).get("conditions") or []:
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                message = str(condition.get("message", ""))
                if _is_refusal(message):
                    return f"no pod could be created: {message}"
        if workload["kind"] in ("Deployment", "Pod"):
            return ""
        uid, namespace = workload["metadata"]["uid"], workload["metadata"]["namespace"]
        for event in self._cluster.list("v1", "Event", namespace):
            about = event.get("involvedObject") or {}
            if event.get("reason") != "FailedCreate" or about.get("uid") != uid:
                continue
            # An event may be an hour old; it is about now when it came again while we watched.
            key, count = event["metadata"]["uid"], int(event.get("count") or 1)
            if count > self._events.setdefault(key, count) and _is_refusal(event.get("message", "")):
                return f"no pod could be created: {event['message']}"
        return ""

    def _failed(self, workload: Manifest) -> str:
        if workload["kind"] != "Job":
            return ""
        for condition in (workload.get("status") or {}).get("conditions") or []:
            if condition.get("type") == "Failed" and condition.get("status") == "True":
                tail = "".join(self._tail(pod, "") for pod in self._pods(workload)[-1:])
                return f"job failed: {condition.get('message') or condition.get('reason')}{tail}"
        return ""

    def _stuck(self, workload: Manifest, pods: Sequence[Manifest]) -> str:
        """The first pod of the wanted revision that cannot start."""
        current = self._current(workload)
        for pod in pods:
            if pod["metadata"].get("deletionTimestamp"):
                continue
            problem = self._hopeless(pod)
            if not problem:
                continue
            labels = pod["metadata"].get("labels") or {}
            if current and any(labels.get(k) != v for k, v in current.items()):
                self._clear_way(workload, pod)
                continue
            return problem
        return ""

    def _current(self, workload: Manifest) -> Mapping[str, str]:
        """The labels that tell pods of the wanted revision from those on their way out."""
        meta, status = workload["metadata"], workload.get("status") or {}
        annotations = meta.get("annotations") or {}
        if workload["kind"] == "StatefulSet":
            return {"controller-revision-hash": status.get("updateRevision", "")}
        if workload["kind"] == "DaemonSet":
            return {"pod-template-generation": annotations.get("deprecated.daemonset.template.generation", "")}
        if workload["kind"] != "Deployment":
            return {}
        wanted = annotations.get("deployment.kubernetes.io/revision")
        for owned in self._cluster.list("apps/v1", "ReplicaSet", meta["namespace"]):
            owners = owned["metadata"].get("ownerReferences") or []
            revision = (owned["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision")
            if revision == wanted and any(o["uid"] == meta["uid"] for o in owners):
                return {"pod-template-hash": owned["metadata"]["labels"]["pod-template-hash"]}
        return {}

    def _clear_way(self, workload: Manifest, pod: Manifest) -> None:
        """A StatefulSet never replaces a pod that was never ready ("Forced rollback" in its documentation)."""
        if workload["kind"] == "StatefulSet":
            self._ctx.progress(f"removing pod {pod['metadata']['name']} of the earlier revision: it cannot start")
            self._cluster.delete(Reference.of(pod), self._ctx.deadline, wait=False)

    def _hopeless(self, pod: Manifest) -> str:
        status, name = pod.get("status") or {}, pod["metadata"]["name"]
        for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            waiting = (container.get("state") or {}).get("waiting") or {}
            reason, message = waiting.get("reason", ""), str(waiting.get("message") or "")
            where = f"pod {name}: container {container['name']}: {reason}"
            if reason in _HOPELESS:
                return f"{where} {message}".rstrip()
            if reason in _SOON_HOPELESS:
                strikes = self._strikes[where] = self._strikes.get(where, 0) + 1
                if strikes >= _PATIENCE:
                    return f"{where} {message}".rstrip()
            if reason == "CrashLoopBackOff" and container.get("restartCount", 0) >= _CRASHES:
                ended = (container.get("lastState") or {}).get("terminated") or {}
                crash = f" (exit {ended.get('exitCode', '?')}, {container['restartCount']} restarts)"
                return f"{where}{crash}{self._tail(pod, container['name'])}"
        return ""

    def _tail(self, pod: Manifest, container: str) -> str:
        """The end of a container's log, indented; empty when it has none."""
        name = container or pod["spec"]["containers"][0]["name"]
        try:
            text = self._cluster.logs(pod["metadata"]["namespace"], pod["metadata"]["name"], name, lines=8)
        except RunbookError as error:
            return f"\n    (no log: {error})"
        return "".join(f"\n    {line}" for line in text.strip().splitlines())


def _is_refusal(message: str) -> bool:
    return _PASSING_REFUSAL not in message and any(words in message for words in _REFUSALS)


def _pod_ready(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _describe(pod: Manifest) -> str:
    """`pod redis-0 0/1 Running`, with a reason where there is one."""
    status = pod.get("status") or {}
    containers = status.get("containerStatuses") or []
    ready = sum(bool(c.get("ready")) for c in containers)
    reasons = [(c.get("state") or {}).get("waiting", {}).get("reason", "") for c in containers]
    reasons += [
        str(c.get("message") or c.get("reason"))
        for c in status.get("conditions") or []
        if c["type"] == "PodScheduled" and c["status"] == "False"
    ]
    reason = next((r for r in reasons if r), "")
    total = len(pod["spec"]["containers"])
    return f"pod {pod['metadata']['name']} {ready}/{total} {status.get('phase', '')} {reason}".strip()


# --- Readiness of each kind -------------------------------------------------------------------------------------


def _deployment(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    wanted = spec.get("replicas", 1)
    updated, total = status.get("updatedReplicas", 0), status.get("replicas", 0)
    available = status.get("availableReplicas", 0)
    if updated < wanted:
        return f"{updated}/{wanted} updated"
    if available < wanted:
        return f"{available}/{wanted} available"
    return f"{total - updated} of the earlier revision still there" if total > updated else ""


def _stateful_set(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    wanted, available = spec.get("replicas", 1), status.get("availableReplicas", 0)
    strategy = spec.get("updateStrategy") or {}
    partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
    moved = status.get("currentRevision") != status.get("updateRevision")
    if strategy.get("type") != "OnDelete" and moved and status.get("updatedReplicas", 0) < wanted - partition:
        return f"{status.get('updatedReplicas', 0)}/{wanted} updated"
    return f"{available}/{wanted} available" if available < wanted else ""


def _daemon_set(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    wanted = status.get("desiredNumberScheduled", 0)
    updated, available = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    if (spec.get("updateStrategy") or {}).get("type") != "OnDelete" and updated < wanted:
        return f"{updated}/{wanted} updated"
    return f"{available}/{wanted} available" if available < wanted else ""


def _job(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    done = any(c["type"] == "Complete" and c["status"] == "True" for c in status.get("conditions") or [])
    return "" if done or spec.get("suspend") else f"{status.get('succeeded', 0)} completions"


def _pod(_spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    done = status.get("phase") == "Succeeded" or _pod_ready({"status": status})
    return "" if done else str(status.get("phase", "not started"))


_JUDGES = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "Pod": _pod,
}
