"""What is made of a rendered chart and of a release record, without Helm or a cluster."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from engine.actions.chart import chart_version, kept, recorded, rendered
from engine.actions.release import _merged
from engine.adapters.helm import HelmCli
from engine.core.action import Deadline
from engine.core.ports import ReleaseRecord
from engine.core.processes import Finished
from engine.errors import NotYetError, PermanentError, TemporaryError, UsageError

TEXT = """---
# Source: web/crds/things.yaml
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.x}
spec: {group: x, scope: Cluster, names: {kind: Thing}}
---
# Source: web/templates/all.yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {a: b}}
data: {a: "1"}
---
# Source: web/templates/thing.yaml
apiVersion: x/v1
kind: Thing
metadata: {name: one}
---
# Source: web/templates/hook.yaml
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {helm.sh/hook: pre-upgrade}}
"""


class Kinds:
    """The little of a cluster that rendering asks for."""

    def namespaced(self, api_version, kind):
        return None if kind == "Thing" else kind not in ("Namespace", "ClusterRole")

    def masked(self, manifest):
        return manifest


def test_objects_hooks_and_crds_are_told_apart_and_carry_what_helm_adds():
    made = rendered(TEXT, "web-1.0.0", "web", "shop", Kinds())
    assert list(made.crds) == ["crd/things.x"]
    assert list(made.objects) == ["ConfigMap shop/settings", "Thing one"]
    meta = made.objects["ConfigMap shop/settings"]["metadata"]
    assert meta["labels"] == {"a": "b", "app.kubernetes.io/managed-by": "Helm"}
    assert meta["annotations"] == {"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": "shop"}


def test_the_record_of_what_was_rendered_is_what_helm_recorded():
    made = rendered(TEXT, "web-1.0.0", "web", "shop", Kinds())
    _, _, settings, thing, hook = TEXT.split("---\n")
    test = {"manifest": "apiVersion: v1\nkind: Pod\nmetadata: {name: t, annotations: {helm.sh/hook: test}}"}
    record = ReleaseRecord(3, "deployed", "web-1.0.0", f"---\n{thing}---\n{settings}", hooks=[{"manifest": hook}, test])
    assert recorded(record, "web", "shop", Kinds()).record() == made.record()
    other = ReleaseRecord(3, "deployed", "web-1.0.1", f"{thing}---\n{settings}", hooks=[{"manifest": hook}])
    assert recorded(other, "web", "shop", Kinds()).record() != made.record()
    fewer = ReleaseRecord(3, "deployed", "web-1.0.0", f"{thing}---\n{settings}")
    assert recorded(fewer, "web", "shop", Kinds()).record() != made.record()


def test_a_chart_that_says_an_object_twice_is_refused():
    with pytest.raises(PermanentError, match="declared twice: ConfigMap shop/settings"):
        rendered(TEXT + "---" + TEXT.split("---")[2], "web-1.0.0", "web", "shop", Kinds())


def test_keep():
    assert kept({"metadata": {"annotations": {"helm.sh/resource-policy": "keep"}}})
    assert not kept({"metadata": {}})


def test_values_merge_as_in_helm():
    assert _merged({"a": {"b": 1, "c": 2}, "l": [1, 2]}, {"a": {"c": 3}, "l": [4]}) == {"a": {"b": 1, "c": 3}, "l": [4]}


def test_what_is_no_chart_is_said(tmp_path):
    with pytest.raises(UsageError, match="not a Helm chart"):
        chart_version(tmp_path)
    (tmp_path / "Chart.yaml").write_text("name: web\nversion: 1.2.3\n")
    assert chart_version(tmp_path) == "web-1.2.3"


def release_secret(revision, status="deployed"):
    document = {
        "version": revision,
        "info": {"status": status},
        "chart": {"metadata": {"name": "web", "version": "1.0.0"}},
        "manifest": "",
        "config": {"a": 1},
    }
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(document).encode()))).decode()
    return {"metadata": {"name": f"sh.helm.release.v1.web.v{revision}"}, "data": {"release": packed}}


class Listed:
    def __init__(self, *secrets):
        self.secrets = secrets

    def list(self, api_version, kind, namespace="", selector=""):
        return self.secrets if selector == "owner=helm,name=web" else []


class Answers:
    """A launcher that gives one answer and keeps what it was asked."""

    def __init__(self, code=0, stderr=""):
        self.finished = Finished(code, "", stderr)

    def run(self, argv, *, deadline, stdin=b"", env=None, cwd=None, on_line=None):
        self.argv, self.stdin = argv, stdin
        return self.finished


def test_records_come_newest_first_and_damage_is_said(tmp_path):
    cluster = Listed(release_secret(2, "superseded"), release_secret(10), release_secret(9, "failed"))
    found = HelmCli("helm", tmp_path, "c", Answers(), cluster).records("shop", "web")
    assert [(r.revision, r.status, r.chart) for r in found] == [
        (10, "deployed", "web-1.0.0"),
        (9, "failed", "web-1.0.0"),
        (2, "superseded", "web-1.0.0"),
    ]
    broken = {"metadata": {"name": "sh.helm.release.v1.web.v1"}, "data": {"release": "!!"}}
    with pytest.raises(PermanentError, match=r"shop/web: record sh\.helm\.release\.v1\.web\.v1 is damaged"):
        HelmCli("helm", tmp_path, "c", Answers(), Listed(broken)).records("shop", "web")


def test_values_go_by_standard_input_only(tmp_path):
    launcher = Answers()
    HelmCli("helm", tmp_path, "c", launcher, Listed()).upgrade(
        "web", "shop", tmp_path, {"password": "canary"}, deadline=Deadline(60)
    )
    assert "canary" not in str(launcher.argv)
    assert json.loads(launcher.stdin) == {"password": "canary"}
    assert {"--install", "--force-conflicts"} <= set(launcher.argv)


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("Error: Kubernetes cluster unreachable: Get …: connection refused", NotYetError),
        ("Error: UPGRADE FAILED: etcdserver: request timed out", TemporaryError),
        ("Error: UPGRADE FAILED: execution error at (web/templates/a.yaml)", PermanentError),
    ],
)
def test_failures_are_told_apart(tmp_path, stderr, kind):
    helm = HelmCli("helm", tmp_path, "c", Answers(1, stderr), Listed())
    with pytest.raises(kind, match="helm rollback shop/web: "):
        helm.rollback("web", "shop", 1, deadline=Deadline(60))
