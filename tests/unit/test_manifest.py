"""Objects of files, and when a workload is ready or hopeless, without a cluster."""

from __future__ import annotations

import base64

import pytest

from engine.actions import objects, rollout
from engine.core.action import Deadline
from engine.core.change import ABSENT, Delta, Fidelity, Fingerprint, Verb
from engine.core.ports import Look, Reference
from engine.errors import PermanentError, TemporaryError
from tests.fakes.contexts import context


def test_documents_are_taken_apart_and_dates_stay_text():
    item = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {d: 2026-01-01}}"
    text = f"---\n---\napiVersion: v1\nkind: List\nitems:\n- {item}\n"
    (found,) = objects.parse(text, "x.yaml")
    assert found["data"] == {"d": "2026-01-01"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "x.yaml: not YAML"),
        ("just text", "x.yaml: a document is not a Kubernetes object"),
        ("kind: ConfigMap\nmetadata: {}", "x.yaml: an object lacks apiVersion, metadata.name"),
    ],
)
def test_mistakes_name_the_file(text, message):
    with pytest.raises(PermanentError, match=message):
        objects.parse(text, "x.yaml")


def test_prepared_for_sending():
    sent = objects.prepared(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s", "labels": {}, "annotations": None, "namespace": "n"},
            "data": {"a": "MQ=="},
            "stringData": {"b": "2"},
            "status": {},
        }
    )
    assert sent["metadata"] == {"name": "s", "namespace": "n"}
    assert sent["data"] == {"a": "MQ==", "b": base64.b64encode(b"2").decode()}
    assert "stringData" not in sent
    assert "status" not in sent


def test_order_is_helms_and_otherwise_as_written():
    kinds = ["Gateway", "Deployment", "Service", "Namespace", "CustomResourceDefinition", "VirtualService"]
    written = [{"kind": k, "metadata": {"name": k}} for k in kinds]
    assert [m["kind"] for m in objects.in_order(written)] == [
        "Namespace",
        "CustomResourceDefinition",
        "Service",
        "Deployment",
        "Gateway",
        "VirtualService",
    ]


def test_two_kinds_of_one_name_are_told_apart():
    ids = objects.object_ids(
        [
            Reference("a/v1", "Gateway", "g", "n"),
            Reference("b/v1", "Gateway", "g", "n"),
            Reference("v1", "Pod", "p", "n"),
        ]
    )
    assert ids == ["Gateway n/g (a/v1)", "Gateway n/g (b/v1)", "Pod n/p"]


ONE, TWO = Fingerprint("1"), Fingerprint("2")


@pytest.mark.parametrize(
    ("deltas", "verb"),
    [
        ([Delta(ONE, ONE)], Verb.NONE),
        ([Delta(ONE, ONE), Delta(ABSENT, TWO)], Verb.CREATE),
        ([Delta(ABSENT, None)], Verb.CREATE),
        ([Delta(ONE, TWO), Delta(ABSENT, TWO)], Verb.UPDATE),
        ([Delta(ONE, ABSENT), Delta(ONE, ONE)], Verb.DELETE),
        ([Delta(ONE, ABSENT), Delta(ONE, TWO)], Verb.UPDATE),
    ],
)
def test_one_verb_for_many_objects(deltas, verb):
    assert objects.verb_of(deltas) is verb


NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.x"},
    "spec": {"group": "x", "names": {"kind": "Thing"}},
}


@pytest.mark.parametrize(
    ("missing", "manifests", "fidelity"),
    [
        ("", [], Fidelity.EXACT),
        ("namespace shop does not exist", [NAMESPACE], Fidelity.PREDICTED),
        ("namespace shop does not exist", [], Fidelity.DEFERRED),
        ("kind Thing (x/v1) is not served", [CRD], Fidelity.PREDICTED),
        ("kind Thing (x/v1) is not served", [], Fidelity.DEFERRED),
    ],
)
def test_what_this_step_makes_itself_is_not_deferred(missing, manifests, fidelity):
    look = Look(Reference("x/v1", "Thing", "t", "shop"), None, None, missing)
    assert objects.fidelity_of([look], manifests)[0] is fidelity


def workload(kind, spec, status, **annotations):
    meta = {"name": "web", "namespace": "shop", "uid": "u1", "generation": 2, "annotations": annotations}
    selector = {"matchLabels": {"app": "web"}}
    status = {"observedGeneration": 2, **status}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": meta,
        "spec": {"selector": selector, **spec},
        "status": status,
    }


@pytest.mark.parametrize(
    ("kind", "spec", "status", "missing"),
    [
        ("Deployment", {}, {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}, ""),
        ("Deployment", {"replicas": 0}, {}, ""),
        ("Deployment", {"replicas": 2}, {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}, "1/2 available"),
        ("Deployment", {"replicas": 2}, {"replicas": 3, "updatedReplicas": 1, "availableReplicas": 2}, "1/2 updated"),
        (
            "Deployment",
            {"replicas": 1},
            {"replicas": 2, "updatedReplicas": 1, "availableReplicas": 2},
            "1 of the earlier revision still there",
        ),
        ("Deployment", {}, {"observedGeneration": 1}, "not seen by its controller yet"),
        ("StatefulSet", {}, {"availableReplicas": 1, "currentRevision": "a", "updateRevision": "a"}, ""),
        (
            "StatefulSet",
            {"replicas": 2},
            {"availableReplicas": 2, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"},
            "1/2 updated",
        ),
        ("DaemonSet", {}, {"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}, ""),
        ("Job", {}, {"conditions": [{"type": "Complete", "status": "True"}]}, ""),
        ("Job", {}, {}, "0 completions"),
        ("ConfigMap", {}, {}, ""),
    ],
)
def test_readiness(kind, spec, status, missing):
    assert rollout.unready(workload(kind, spec, status)) == missing


class Fixed:
    """A cluster that answers what it was given."""

    def __init__(self, workload, pods=(), events=(), sets=()):
        self.workload, self.listed = workload, {"Pod": pods, "Event": events, "ReplicaSet": sets}
        self.reads = self.deleted = 0

    def get(self, reference):
        self.reads += 1
        return self.workload

    def list(self, api_version, kind, namespace="", selector=""):
        return self.listed[kind]

    def logs(self, namespace, pod, container, *, lines=20):
        return "cannot open the ledger\n"

    def delete(self, reference, deadline, *, wait=True):
        self.deleted += 1


def pod(name="web-1", labels=None, **status):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": labels or {}},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": "Pending", **status},
    }


def waiting(reason, message="", restarts=0):
    state = {"waiting": {"reason": reason, "message": message}}
    return [{"name": "main", "ready": False, "state": state, "restartCount": restarts}]


def wait(cluster, **given):
    rollout.wait_ready(cluster, [Reference("apps/v1", cluster.workload["kind"], "web", "shop")], context(**given))


def test_ready_costs_one_read():
    cluster = Fixed(workload("Deployment", {"replicas": 0}, {}))
    wait(cluster)
    assert cluster.reads == 1


def test_an_api_server_that_is_away_for_a_moment_is_waited_for():
    class Flapping(Fixed):
        def get(self, reference):
            if super().get(reference) and self.reads == 1:
                raise TemporaryError("does not answer")
            return self.workload

    cluster = Flapping(workload("Deployment", {"replicas": 0}, {}))
    wait(cluster)
    assert cluster.reads == 2


def test_a_pod_that_cannot_start_is_the_reason():
    cluster = Fixed(
        workload("Deployment", {}, {}), [pod(containerStatuses=waiting("ErrImageNeverPull", "not present"))]
    )
    with pytest.raises(PermanentError) as caught:
        wait(cluster)
    assert str(caught.value) == (
        "Deployment shop/web did not become available\n  pod web-1: container main: ErrImageNeverPull not present"
    )


def test_a_crash_needs_three_restarts_and_shows_the_log():
    for restarts, seconds, words in ((2, 0.1, "in time"), (3, 5, "cannot open the ledger")):
        cluster = Fixed(
            workload("Deployment", {}, {}), [pod(containerStatuses=waiting("CrashLoopBackOff", restarts=restarts))]
        )
        with pytest.raises(PermanentError, match=words):
            wait(cluster, deadline=Deadline(seconds))


def test_a_pod_of_the_revision_before_is_no_reason():
    old = pod(labels={"pod-template-hash": "old"}, containerStatuses=waiting("ImagePullBackOff"))
    meta = {"labels": {"pod-template-hash": "new"}, "ownerReferences": [{"uid": "u1"}]}
    current = {"metadata": meta | {"annotations": {"deployment.kubernetes.io/revision": "2"}}}
    cluster = Fixed(workload("Deployment", {}, {}, **{"deployment.kubernetes.io/revision": "2"}), [old], sets=[current])
    with pytest.raises(PermanentError, match="in time"):
        wait(cluster, deadline=Deadline(0.1))


def test_a_stateful_sets_pod_of_the_revision_before_is_taken_out_of_the_way():
    old = pod(labels={"controller-revision-hash": "old"}, containerStatuses=waiting("ImagePullBackOff"))
    cluster = Fixed(workload("StatefulSet", {}, {"updateRevision": "new"}), [old])
    with pytest.raises(PermanentError, match="in time"):
        wait(cluster, deadline=Deadline(0.1))
    assert cluster.deleted


def test_a_quota_is_seen_in_the_condition_or_in_an_event_that_comes_again():
    message = 'pods "web-1" is forbidden: exceeded quota: none'
    condition = {"type": "ReplicaFailure", "status": "True", "message": message}
    with pytest.raises(PermanentError, match=r"no pod could be created: .*exceeded quota"):
        wait(Fixed(workload("Deployment", {}, {"conditions": [condition]})))
    event = {
        "metadata": {"uid": "e"},
        "involvedObject": {"uid": "u1"},
        "reason": "FailedCreate",
        "message": message,
        "count": 1,
    }
    stale = Fixed(workload("StatefulSet", {}, {}), events=[event])
    with pytest.raises(PermanentError, match="in time"):
        wait(stale, deadline=Deadline(0.1))

    class Again(Fixed):
        def list(self, api_version, kind, namespace="", selector=""):
            event["count"] += kind == "Event"
            return super().list(api_version, kind, namespace, selector)

    with pytest.raises(PermanentError, match=r"no pod could be created: .*exceeded quota"):
        wait(Again(workload("StatefulSet", {}, {}), events=[event]))
