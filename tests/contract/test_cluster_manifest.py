"""`manifest` against a real API server: the contract of a STATE action, and failures that show at once."""

from __future__ import annotations

import json
import re
import time
from types import SimpleNamespace

import pytest
import yaml

from engine.actions.manifest import MANAGER, ManifestAction, ManifestParams
from engine.core.action import Deadline
from engine.core.change import ABSENT, Fidelity, Verb
from engine.core.convergence import Decision, converge, undo_verdict
from engine.core.ports import Reference
from engine.errors import PermanentError
from tests.contract.cluster import connect, deployment, namespace
from tests.fakes.contexts import context

pytestmark = pytest.mark.cluster


class Plain:
    """Stands in for age where only the round trip matters."""

    def seal(self, document: bytes) -> str:
        return document.hex()

    def open(self, blob: str) -> bytes:
        return bytes.fromhex(blob)


@pytest.fixture
def cluster():
    return connect()


@pytest.fixture
def ns(cluster):
    with namespace(cluster) as name:
        yield name


@pytest.fixture
def world(cluster, ns, tmp_path):
    """A step of one folder: `write` replaces its files, `deploy` plans and applies them."""
    action = ManifestAction(cluster, lambda text, variables, name: text, encryption=Plain(), scope=ns)
    params = ManifestParams(path=str(tmp_path))

    def write(*objects):
        (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(objects))

    def plan(**given):
        ctx = context(**given)
        now = action.read(params, ctx)
        return action.plan(params, now, ctx), now

    def deploy(**given):
        change, now = plan()
        ctx = context(**given)
        preimage = action.capture(params, change, now, ctx)
        preimage = type(preimage).from_json(json.loads(json.dumps(preimage.to_json())))
        action.apply(params, change, ctx)
        return change, preimage

    yield SimpleNamespace(action=action, params=params, write=write, plan=plan, deploy=deploy, ns=ns)
    cluster.delete(Reference("v1", "ConfigMap", action._inventory_name(context()), "runbook-system"), Deadline(10))


def config(ns, name="settings", **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": ns}, "data": data}


def undo(world, change, preimage):
    ctx = context()
    assert undo_verdict(change, world.action.read_back(world.params, change, preimage, ctx)).decision is Decision.APPLY
    world.action.undo(world.params, change, preimage, ctx)
    back = world.action.read_back(world.params, change, preimage, ctx)
    assert undo_verdict(change, back).decision is Decision.ALREADY


def test_created_then_nothing_then_undone(world, cluster):
    world.write(config(world.ns, a="1"), deployment(world.ns))
    change, preimage = world.deploy()
    assert (change.verb, change.fidelity) == (Verb.CREATE, Fidelity.EXACT)
    again, now = world.plan()
    assert again.verb is Verb.NONE
    assert converge(change, now.state, resuming=False).decision is Decision.ALREADY
    assert world.plan()[0] == again
    undo(world, change, preimage)
    assert cluster.get(Reference("v1", "ConfigMap", "settings", world.ns)) is None


def test_drift_is_named_with_its_manager_and_mended_and_undone_to_the_drift(world, cluster):
    web = deployment(world.ns, replicas=1)
    world.write(web)
    world.deploy()
    reference = Reference.of(web)
    cluster.patch(reference, {"spec": {"replicas": 2}}, manager="someone")
    change, _ = world.plan()
    (line,) = change.objects[str(reference)].diff
    assert (line.path, line.before, line.after) == ("spec.replicas", "2", "1")
    assert re.fullmatch(r"set to 2 by someone, \d{4}-\d\d-\d\d \d\d:\d\d", line.note)
    change, preimage = world.deploy()
    assert cluster.get(reference)["spec"]["replicas"] == 1
    undo(world, change, preimage)
    assert cluster.get(reference)["spec"]["replicas"] == 2


def test_a_field_and_a_file_that_go_away_are_taken_away_and_come_back(world, cluster):
    world.write(config(world.ns, a="1", b="2"), config(world.ns, "other", x="1"))
    world.deploy()
    world.write(config(world.ns, a="1"))
    change, preimage = world.deploy()
    assert {o: d.after == ABSENT for o, d in change.objects.items()} == {
        f"ConfigMap {world.ns}/settings": False,
        f"ConfigMap {world.ns}/other": True,
    }
    assert cluster.get(Reference("v1", "ConfigMap", "settings", world.ns))["data"] == {"a": "1"}
    assert cluster.get(Reference("v1", "ConfigMap", "other", world.ns)) is None
    assert world.plan()[0].verb is Verb.NONE
    undo(world, change, preimage)
    assert cluster.get(Reference("v1", "ConfigMap", "settings", world.ns))["data"] == {"a": "1", "b": "2"}
    assert cluster.get(Reference("v1", "ConfigMap", "other", world.ns))["data"] == {"x": "1"}


def test_a_secret_shows_nowhere_and_comes_back(world, cluster):
    def secret(value):
        meta = {"name": "login", "namespace": world.ns}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"password": value}}

    world.write(secret("canary-one-4711"))
    world.deploy()
    assert world.plan()[0].verb is Verb.NONE
    world.write(secret("canary-two-4711"))
    change, preimage = world.deploy()
    shown = json.dumps(change.to_json()) + json.dumps(dict(preimage.references))
    assert "canary" not in shown
    assert "Y2FuYXJ5" not in shown  # base64
    assert change.objects[f"Secret {world.ns}/login"].diff[0].before == "(sensitive)"
    undo(world, change, preimage)
    live = cluster.get(Reference("v1", "Secret", "login", world.ns))
    assert live["data"]["password"] == "Y2FuYXJ5LW9uZS00NzEx"


def test_objects_in_a_namespace_of_the_same_step(world, cluster):
    with namespace(cluster, create=False) as fresh:
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": fresh}}
        world.write(config(fresh, a="1"), manifest)
        change, _ = world.deploy()
        assert change.fidelity is Fidelity.PREDICTED
        assert change.objects[f"ConfigMap {fresh}/settings"].after is None
        assert change.residue == (f"Namespace {fresh}",)
        assert world.plan()[0].verb is Verb.NONE


def test_objects_in_a_namespace_of_another_step_are_deferred_and_sealed(world):
    world.write(config("no-such-namespace", a="1"))
    change, _ = world.plan()
    assert change.fidelity is Fidelity.DEFERRED
    assert "no-such-namespace does not exist" in change.reason
    assert list(change.envelope) == ["ConfigMap no-such-namespace/settings"]


def test_a_missing_image_fails_at_once_with_the_pods_reason(world):
    world.write(deployment(world.ns, image="docker.io/lab/none:1"))
    started = time.monotonic()
    with pytest.raises(
        PermanentError, match=r"(?s)Deployment .*/web did not become available\n  pod web-.*ErrImageNeverPull"
    ):
        world.deploy()
    assert time.monotonic() - started < 15


def test_a_crash_shows_the_end_of_the_log(world):
    probe = {"tcpSocket": {"port": 8000}}
    crash = ["python3", "-c", "raise SystemExit('cannot open the ledger')"]
    world.write(deployment(world.ns, command=crash, readinessProbe=probe))
    with pytest.raises(PermanentError, match=r"(?s)CrashLoopBackOff \(exit 1, .*cannot open the ledger"):
        world.deploy(deadline=Deadline(120))


def test_a_quota_that_forbids_the_pod_is_the_reason(world, cluster):
    meta = {"name": "none", "namespace": world.ns}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"pods": "0"}}}
    cluster.apply(quota, manager="test")
    web = deployment(world.ns)
    stateful = {**deployment(world.ns, "db"), "kind": "StatefulSet"}
    stateful["spec"] = {**stateful["spec"], "serviceName": "db"}
    for workload in (web, stateful):
        world.write(workload)
        with pytest.raises(PermanentError, match=r"no pod could be created: .*exceeded quota"):
            world.deploy()


def test_a_bad_revision_of_a_stateful_set_is_undone(world, cluster):
    db = {**deployment(world.ns, "db"), "kind": "StatefulSet"}
    db["spec"] = {**db["spec"], "serviceName": "db"}
    world.write(db)
    world.deploy()
    bad = json.loads(json.dumps(db))
    bad["spec"]["template"]["spec"]["containers"][0]["image"] = "docker.io/lab/none:1"
    world.write(bad)
    change, now = world.plan()
    preimage = world.action.capture(world.params, change, now, context())
    with pytest.raises(PermanentError, match="ErrImageNeverPull"):
        world.action.apply(world.params, change, context())
    undo(world, change, preimage)
    assert cluster.get(Reference.of(db))["status"]["readyReplicas"] == 1


def test_half_applied_goes_on(world, cluster):
    one, two = config(world.ns, "one", a="1"), config(world.ns, "two", a="1")
    world.write(one, two)
    change, _ = world.plan()
    cluster.apply(one, manager=MANAGER)
    live = world.action.read(world.params, context(resuming=True)).state
    assert converge(change, live, resuming=True).decision is Decision.APPLY
    world.action.apply(world.params, change, context(resuming=True))
    assert world.plan()[0].verb is Verb.NONE


def test_a_typo_and_an_immutable_field_are_refused_at_plan_time(world):
    world.write({**config(world.ns, a="1"), "dta": {}})
    with pytest.raises(PermanentError, match=r"settings: .*\.dta: field not declared in schema"):
        world.plan()
    web = deployment(world.ns)
    world.write(web)
    world.deploy()
    web["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    web["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    world.write(web)
    with pytest.raises(PermanentError, match="field is immutable"):
        world.plan()
