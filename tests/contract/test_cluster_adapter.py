"""Port Cluster against a real API server: errors, streams, compare-and-swap, and the checks that use them."""

from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path

import pytest

from engine.actions.rollout import wait_ready
from engine.adapters.kubernetes import KubernetesCluster
from engine.checks.kubernetes import KubernetesCheck, KubernetesParams
from engine.checks.mesh import MeshCheck, MeshParams
from engine.core.action import Deadline
from engine.core.look import after, before
from engine.core.ports import Reference
from engine.core.redaction import Redactor
from engine.errors import NotYetError, PermanentError, TemporaryError
from tests.contract.cluster import PYTHON, connect, deployment, namespace
from tests.fakes.contexts import context

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster():
    return connect()


@pytest.fixture(scope="module")
def ns(cluster):
    with namespace(cluster) as name:
        yield name


@pytest.fixture(scope="module")
def web(cluster, ns):
    """A pod behind a Service, serving what it is given by exec."""
    made = deployment(ns)
    cluster.apply(made, manager="test")
    port = {"name": "http", "port": 80, "targetPort": 8000}
    spec = {"selector": {"app": "web"}, "ports": [port]}
    meta = {"name": "web", "namespace": ns}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}, manager="test")
    wait_ready(cluster, [Reference.of(made)], context())
    (pod,) = cluster.list("v1", "Pod", ns, "app=web")
    return pod["metadata"]["name"]


def config(ns, name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": ns}, "data": data}


def test_no_kubeconfig_and_no_server_mean_not_yet(tmp_path: Path):
    cluster = KubernetesCluster(tmp_path / "none", "lab", Redactor(), lambda: b"")
    with pytest.raises(NotYetError, match=r"no cluster yet: kubeconfig .*none does not exist"):
        cluster.uid()
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "{current-context: lab, clusters: [{name: lab, cluster: {server: 'http://127.0.0.1:1'}}], "
        "users: [{name: lab, user: {}}], contexts: [{name: lab, context: {cluster: lab, user: lab}}]}"
    )
    with pytest.raises(NotYetError, match=r"no cluster yet: http://127\.0\.0\.1:1 does not answer"):
        KubernetesCluster(kubeconfig, "lab", Redactor(), lambda: b"").uid()
    with pytest.raises(PermanentError, match="other"):
        KubernetesCluster(kubeconfig, "other", Redactor(), lambda: b"").uid()


@pytest.fixture
def own(cluster):
    with namespace(cluster) as name:
        yield name


def test_a_dry_run_says_what_will_be_whatever_the_kind(cluster, own):
    ns = own
    meta = {"name": "x", "namespace": ns}
    spec = {"ports": [{"port": 53, "protocol": "UDP", "name": "u"}, {"port": 53, "name": "t"}], "selector": {"a": "b"}}
    rule = {"ports": [{"port": 80}, {"port": 81, "protocol": "UDP"}], "from": [{"podSelector": {}}]}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}
    objects = [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta,
         "spec": {"podSelector": {}, "ingress": [rule]}},
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"requests.cpu": "1000m"}}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": claim},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta,
         "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": {
            "schedule": "0 0 * * *", "suspend": True, "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": PYTHON}]}}}}}},
        {**deployment(ns, "x", replicas=0), "kind": "StatefulSet"},
    ]  # fmt: skip
    objects[-1]["spec"]["serviceName"] = "x"
    for look, manifest in zip(cluster.look(objects, manager="m"), objects, strict=True):
        planned = after(look.dry, "m")
        assert before(look.live, look.dry, "m").absent
        cluster.apply(manifest, manager="m")
        (now,) = cluster.look([manifest], manager="m")
        assert before(now.live, now.dry, "m") == planned, manifest["kind"]


def test_a_missing_right_is_named_in_full(ns):
    planner = connect("runbook-planner")
    reference = Reference("v1", "Node", "lab-0")
    with pytest.raises(PermanentError, match="may read and dry-run only"):
        planner.apply(config(ns, "x", a="1"), manager="m")
    with pytest.raises(PermanentError, match="runbook-planner may not patch nodes: add it to the ClusterRole"):
        planner.patch(reference, {"metadata": {"labels": {"a": "b"}}}, manager="m")


def test_an_error_about_a_secret_never_quotes_it(cluster, ns):
    bad = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": ns}, "data": {"a": "@canary"}}
    with pytest.raises(PermanentError) as caught:
        cluster.look([bad], manager="m")
    assert "canary" not in str(caught.value)


def test_swap_is_compare_and_swap(cluster, ns):
    first = cluster.swap(config(ns, "record", a="1"), "")
    assert cluster.swap(config(ns, "record", a="1"), "") is None
    version = first["metadata"]["resourceVersion"]
    assert cluster.swap(config(ns, "record", a="2"), version)["data"] == {"a": "2"}
    assert cluster.swap(config(ns, "record", a="3"), version) is None


def test_exec_is_binary_safe_both_ways_and_tells_how_it_ended(cluster, ns, web):
    sent = bytes(range(256)) * 4096  # 1 MiB
    code = "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d[::-1])"
    back = b"".join(cluster.exec(ns, web, ["python3", "-c", code], stdin=sent, deadline=Deadline(30)))
    assert hashlib.sha256(back).digest() == hashlib.sha256(sent[::-1]).digest()
    with pytest.raises(PermanentError, match="exit 3: no such ledger"):
        list(cluster.exec(ns, web, ["sh", "-c", "echo no such ledger >&2; exit 3"], deadline=Deadline(30)))
    with pytest.raises(TemporaryError, match="deadline"):
        list(cluster.exec(ns, web, ["sleep", "60"], deadline=Deadline(1)))


def test_a_tunnel_carries_many_connections_and_ends(cluster, ns, web):
    big = b"x" * 3_000_000
    write = "import sys; open('/tmp/big', 'wb').write(sys.stdin.buffer.read())"
    list(cluster.exec(ns, web, ["python3", "-c", write], stdin=big, deadline=Deadline(30)))
    with cluster.tunnel(f"{ns}/web:http") as (host, port):
        for _ in range(3):
            with urllib.request.urlopen(f"http://{host}:{port}/big", timeout=10) as answer:
                assert answer.read() == big
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{host}:{port}/big", timeout=10)
    with pytest.raises(NotYetError, match="does not exist yet"), cluster.tunnel(f"{ns}/none:80"):
        pass
    with pytest.raises(PermanentError, match="has no port 81"), cluster.tunnel(f"{ns}/web:81"):
        pass


def test_a_service_account_token_prints_as_nothing(cluster, ns):
    token = cluster.service_account_token(ns, "default")
    assert token.reveal().count(".") == 2
    assert "ey" not in str(token)


def check(cluster, **params):
    return KubernetesCheck(cluster).run(KubernetesParams(**params), context())


def test_the_kubernetes_check_says_what_it_saw(cluster, ns, web):
    assert check(cluster, version=">=1.28").ok
    assert check(cluster, version=">=9.9").saw.startswith("version v1.")
    assert check(cluster, node="ready").saw == "1 of 1 nodes ready"
    assert check(cluster, deployment="web", namespace=ns, replicas=1).saw == "1/1 available"
    assert not check(cluster, deployment="web", namespace=ns, replicas=2).ok
    assert check(cluster, deployment="none", namespace=ns).saw == f"Deployment {ns}/none does not exist"
    bad = deployment(ns, "bad", image="docker.io/lab/none:1")
    cluster.apply(bad, manager="test")
    with pytest.raises(PermanentError, match="ErrImageNeverPull"):
        wait_ready(cluster, [Reference.of(bad)], context())
    saw = check(cluster, deployment="bad", namespace=ns).saw
    assert saw.startswith("0/1 available, pod bad-")
    assert saw.endswith(": ErrImageNeverPull")
    assert not check(cluster, pvc="none", namespace=ns).ok


def mesh(cluster, **params):
    return MeshCheck(cluster).run(MeshParams(**params), context(deadline=Deadline(60)))


def test_the_mesh_check_asks_from_a_workload_and_from_a_probe(cluster, ns, web):
    url = f"http://web.{ns}.svc/"
    origin = {"namespace": ns, "workload": "deployment/web"}
    probe = {"namespace": ns, "image": PYTHON}
    assert mesh(cluster, **{"from": origin}, url=url, status=200).saw == f"{url}: 200, 200 expected"
    assert mesh(cluster, **{"from": origin}, url=f"{url}x", status=404).ok
    assert mesh(cluster, probe=probe, url=url, status=200).ok
    assert not mesh(cluster, probe=probe, url=url, refused=True).ok
    assert mesh(cluster, probe=probe, url="http://127.0.0.1:1/", refused=True).ok
    assert not mesh(cluster, namespace=ns).ok
    probes = cluster.list("v1", "Pod", ns, "app=runbook-probe")
    assert all(p["metadata"].get("deletionTimestamp") for p in probes)
