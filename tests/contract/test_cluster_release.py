"""`release` against a real API server and Helm 4: the contract of a STATE action, and what a crash leaves behind."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from types import SimpleNamespace

import pytest
import yaml

from engine.actions.release import ReleaseAction, ReleaseParams
from engine.adapters.helm import HelmCli
from engine.adapters.launcher import ProcessLauncher
from engine.core.action import Deadline
from engine.core.change import Change, Fidelity, Preimage, Verb
from engine.core.convergence import Decision, converge, undo_verdict
from engine.core.ports import Reference
from engine.core.redaction import Redactor
from engine.errors import PermanentError, RefusedError, UsageError
from tests.contract.cluster import KUBECONFIG, connect, deployment, helm_program, namespace
from tests.fakes.contexts import context

pytestmark = pytest.mark.cluster


@pytest.fixture
def cluster():
    return connect()


@pytest.fixture
def ns(cluster):
    with namespace(cluster) as name:
        yield name


@pytest.fixture
def world(cluster, ns, tmp_path, request):
    """A chart of plain files, deployed as release `web`."""
    identity = getattr(request, "param", "runbook-deployer")
    cluster = connect(identity)
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: web\nversion: 1.0.0\n")
    launcher = ProcessLauncher(tmp_path / "state", Redactor(), "test")
    helm = HelmCli(helm_program(), KUBECONFIG, identity, launcher, cluster)
    action = ReleaseAction(helm, cluster)

    def params(**values):
        return ReleaseParams(chart=str(chart), name="web", namespace=ns, set=values)

    def write(*objects, extra=""):
        (chart / "templates" / "all.yaml").write_text(yaml.safe_dump_all(objects) + extra)

    def plan(params, **given):
        now = action.read(params, context(**given))
        return Change.from_json(json.loads(json.dumps(action.plan(params, now, context(**given)).to_json()))), now

    def deploy(params):
        change, now = plan(params)
        preimage = Preimage.from_json(json.loads(json.dumps(action.capture(params, change, now, context()).to_json())))
        action.apply(params, change, context())
        return change, preimage

    return SimpleNamespace(
        action=action, helm=helm, params=params, write=write, plan=plan, deploy=deploy, ns=ns, chart=chart
    )


def web(ns, **more):
    made = deployment(ns, **more)
    del made["metadata"]["namespace"]
    made["spec"]["replicas"] = "REPLICAS"
    return made


def replicas(chart):
    """Make the number of replicas a value."""
    file = chart / "templates" / "all.yaml"
    file.write_text(file.read_text().replace("REPLICAS", "{{ .Values.replicas | default 1 }}"))


def undo(world, params, change, preimage):
    ctx = context(resuming=True)
    assert undo_verdict(change, world.action.read_back(params, change, preimage, ctx)).decision is Decision.APPLY
    world.action.undo(params, change, preimage, ctx)
    back = world.action.read_back(params, change, preimage, ctx)
    assert undo_verdict(change, back).decision is Decision.ALREADY


def settings(**data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data}


def test_installed_then_nothing_then_upgraded_and_taken_back_twice(world, cluster):
    world.write(web(world.ns), settings(a="1"))
    replicas(world.chart)
    first, nothing = world.deploy(world.params())
    assert (first.verb, first.fidelity, nothing.references["revision"]) == (Verb.CREATE, Fidelity.EXACT, 0)
    again, now = world.plan(world.params())
    assert again.verb is Verb.NONE
    assert converge(first, now.state, resuming=False).decision is Decision.ALREADY
    assert world.plan(world.params(unused="value"))[0].verb is Verb.NONE

    world.write(web(world.ns), {**settings(b="2"), "metadata": {"name": "other"}})
    replicas(world.chart)
    second, preimage = world.deploy(world.params(replicas=2))
    assert {o for o, d in second.objects.items() if d.before != d.after} == {
        f"Deployment {world.ns}/web",
        f"ConfigMap {world.ns}/settings",
        f"ConfigMap {world.ns}/other",
        f"helm/{world.ns}/web",
    }
    undo(world, world.params(replicas=2), second, preimage)
    assert cluster.get(Reference("apps/v1", "Deployment", "web", world.ns))["spec"]["replicas"] == 1
    assert cluster.get(Reference("v1", "ConfigMap", "settings", world.ns))["data"] == {"a": "1"}
    assert cluster.get(Reference("v1", "ConfigMap", "other", world.ns)) is None

    world.write(web(world.ns), settings(a="1"))
    replicas(world.chart)
    assert world.plan(world.params())[0].verb is Verb.NONE
    undo(world, world.params(), first, nothing)
    assert cluster.get(Reference("apps/v1", "Deployment", "web", world.ns)) is None
    assert world.helm.records(world.ns, "web") == []


def test_drift_is_named_and_mended_and_undo_says_that_it_does_not_restore_it(world, cluster):
    world.write(web(world.ns))
    replicas(world.chart)
    world.deploy(world.params())
    cluster.patch(Reference("apps/v1", "Deployment", "web", world.ns), {"spec": {"replicas": 2}}, manager="someone")
    change, preimage = world.deploy(world.params())
    (line,) = change.objects[f"Deployment {world.ns}/web"].diff
    assert (line.path, line.before, line.after) == ("spec.replicas", "2", "1")
    assert re.fullmatch(r"set to 2 by someone, \d{4}-\d\d-\d\d \d\d:\d\d", line.note)
    assert "drift not restored" in change.reason
    assert world.plan(world.params())[0].verb is Verb.NONE
    assert preimage.references["revision"] == 1


def test_a_missing_image_on_a_drifted_release_fails_at_once_and_is_taken_back(world, cluster):
    world.write(web(world.ns))
    replicas(world.chart)
    world.deploy(world.params())
    reference = Reference("apps/v1", "Deployment", "web", world.ns)
    cluster.patch(reference, {"spec": {"replicas": 2}}, manager="someone")
    world.write(web(world.ns, image="docker.io/lab/none:1"))
    replicas(world.chart)
    change, now = world.plan(world.params())
    preimage = world.action.capture(world.params(), change, now, context())
    started = time.monotonic()
    with pytest.raises(PermanentError, match=r"(?s)did not become available.*ErrImageNeverPull"):
        world.action.apply(world.params(), change, context())
    undo(world, world.params(), change, preimage)
    print(f"bad image to verified rollback: {time.monotonic() - started:.1f} s")
    live = cluster.get(reference)
    assert live["spec"]["replicas"] == 1
    assert "none" not in str(live["spec"])


def _pending(cluster, ns, revision, status):
    """What a killed helm leaves: its newest record under way."""
    reference = Reference("v1", "Secret", f"sh.helm.release.v1.web.v{revision}", ns)
    found = cluster.get(reference)
    document = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(found["data"]["release"]))))
    document["info"]["status"] = status
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(document).encode()))).decode()
    cluster.patch(reference, {"data": {"release": packed}, "metadata": {"labels": {"status": status}}}, manager="test")


@pytest.mark.parametrize("revision", [1, 2])
def test_a_killed_helm_is_refused_to_strangers_and_gone_on_with_by_ours(world, cluster, revision):
    world.write(settings(a="1"))
    if revision == 2:
        world.deploy(world.params())
        world.write(settings(a="2"))
    change, _ = world.deploy(world.params())
    _pending(cluster, world.ns, revision, "pending-install" if revision == 1 else "pending-upgrade")
    if revision == 2:
        _pending(cluster, world.ns, 1, "deployed")
    with pytest.raises(RefusedError, match="not by this run"):
        world.plan(world.params())
    live = world.action.read(world.params(), context(resuming=True)).state
    assert live[f"helm/{world.ns}/web"].unfinished.endswith(f":{revision}")
    assert converge(change, live, resuming=False).decision is Decision.STALE
    assert converge(change, live, resuming=True).decision is Decision.APPLY
    world.action.apply(world.params(), change, context(resuming=True))
    live = world.action.read(world.params(), context()).state
    assert converge(change, live, resuming=False).decision is Decision.ALREADY


def test_a_killed_upgrade_is_taken_back(world, cluster):
    world.write(settings(a="1"))
    world.deploy(world.params())
    world.write(settings(a="2"))
    change, preimage = world.deploy(world.params())
    _pending(cluster, world.ns, 2, "pending-upgrade")
    _pending(cluster, world.ns, 1, "deployed")
    undo(world, world.params(), change, preimage)
    assert cluster.get(Reference("v1", "ConfigMap", "settings", world.ns))["data"] == {"a": "1"}


def test_a_first_install_whose_record_was_lost_is_taken_back(world, cluster):
    world.write(settings(a="1"))
    change, preimage = world.deploy(world.params())
    world.helm.forget("web", world.ns, 1)
    undo(world, world.params(), change, preimage)
    assert cluster.get(Reference("v1", "ConfigMap", "settings", world.ns)) is None


def test_what_is_kept_stays_and_what_is_lost_is_said(world, cluster):
    def claim(name, **annotations):
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
        meta = {"name": name, "annotations": annotations}
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}

    world.write(settings(a="1"), claim("bare"))
    assert "PersistentVolumeClaim" in world.plan(world.params())[0].irreversible
    world.write(settings(a="1"), claim("data", **{"helm.sh/resource-policy": "keep"}))
    change, preimage = world.deploy(world.params())
    assert change.irreversible is None
    assert change.residue == (f"PersistentVolumeClaim {world.ns}/data",)
    undo(world, world.params(), change, preimage)
    assert cluster.get(Reference("v1", "PersistentVolumeClaim", "data", world.ns)) is not None
    world.deploy(world.params())  # adopts what was kept
    assert world.plan(world.params())[0].verb is Verb.NONE


def test_a_chart_that_renders_differently_each_time_is_refused(world):
    world.write(
        settings(a="1"),
        extra="---\napiVersion: v1\nkind: ConfigMap\n"
        "metadata: {name: random}\ndata: {a: {{ randAlphaNum 8 | quote }}}\n",
    )
    with pytest.raises(UsageError, match=r"renders differently each time .*random"):
        world.plan(world.params())


def test_a_chart_changed_after_the_plan_is_not_applied(world):
    world.write(settings(a="1"))
    change, _ = world.plan(world.params())
    world.write(settings(a="2"))
    with pytest.raises(RefusedError, match="renders differently than planned"):
        world.action.apply(world.params(), change, context())


def test_hooks_count_in_the_record_only_and_secrets_show_nowhere(world):
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {"p": "canary-4711"}}
    hook = {
        **settings(a="1"),
        "metadata": {"name": "hook", "annotations": {"helm.sh/hook": "post-install,post-upgrade"}},
    }
    world.write(settings(a="1"), secret, hook)
    change, _ = world.deploy(world.params())
    assert world.plan(world.params())[0].verb is Verb.NONE
    assert "canary" not in json.dumps(change.to_json())
    assert f"ConfigMap {world.ns}/hook" not in change.objects
    world.write(settings(a="1"), secret, {**hook, "data": {"a": "2"}})
    change, _ = world.plan(world.params())
    assert [o for o, d in change.objects.items() if d.before != d.after] == [f"helm/{world.ns}/web"]


@pytest.mark.parametrize("world", ["lab-admin"], indirect=True)  # the deployer's rights end at known groups
def test_crds_of_the_crds_folder_are_there_and_stay(world, cluster):
    group = f"{world.ns}.example.com"
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "Thing", "plural": "things", "singular": "thing"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                }
            ],
        },
    }
    (world.chart / "crds").mkdir()
    (world.chart / "crds" / "thing.yaml").write_text(yaml.safe_dump(crd))
    world.write({"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "one"}, "spec": {"a": 1}})
    try:
        change, preimage = world.deploy(world.params())
        assert change.fidelity is Fidelity.PREDICTED
        assert f"crd/things.{group}" in change.residue
        assert world.plan(world.params())[0].verb is Verb.NONE
        undo(world, world.params(), change, preimage)
        assert cluster.get(Reference.of(crd)) is not None
    finally:
        cluster.delete(Reference.of(crd), Deadline(20), wait=False)


def test_a_namespace_that_is_not_there_defers(world):
    world.write(settings(a="1"))
    params = ReleaseParams(chart=str(world.chart), name="web", namespace="no-such-namespace")
    change, _ = world.plan(params)
    assert change.fidelity is Fidelity.DEFERRED
    assert "no-such-namespace does not exist" in change.reason
    assert "chart" in change.envelope
