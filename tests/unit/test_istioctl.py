"""What is made of istioctl's words, and what a step does with an objection."""

from __future__ import annotations

import json

import pytest
import yaml

from engine.actions.manifest import ManifestAction, ManifestParams
from engine.adapters.istioctl import Istioctl
from engine.core.action import Deadline
from engine.core.change import Fidelity, Verb
from engine.core.ports import Look, Objection, Reference
from engine.core.processes import Finished
from engine.errors import PermanentError, TemporaryError
from tests.fakes.contexts import context

ROUTE = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "web", "namespace": "shop"},
}
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop"}, "data": {"a": "canary"}}


class Answering:
    """A launcher whose program answered."""

    def __init__(self, stdout="[]", stderr="", code=0):
        self.finished, self.argv, self.stdin = Finished(code, stdout, stderr), [], b""

    def run(self, argv, *, deadline, stdin=b"", **_more):
        self.argv, self.stdin = list(argv), stdin
        return self.finished


def analyze(launcher, tmp_path, *, live=True):
    adapter = Istioctl("istioctl", tmp_path / "kubeconfig", "planner", launcher)
    return adapter.analyze([ROUTE, SECRET], live=live, deadline=Deadline(30))


def message(origin, level="Error"):
    return {"code": "IST0101", "level": level, "message": "Referenced host not found", "origin": origin}


def test_only_our_objects_and_no_secret(tmp_path):
    launcher = Answering(json.dumps([message("VirtualService shop/web"), message("VirtualService other/x")]))
    assert analyze(launcher, tmp_path) == [
        Objection("VirtualService shop/web", "IST0101", "Referenced host not found", error=True, missing=True)
    ]
    assert b"canary" not in launcher.stdin
    assert launcher.argv[launcher.argv.index("--context") + 1] == "planner"


def test_without_the_cluster_what_is_only_referred_to_is_not_asked_for(tmp_path):
    launcher = Answering()
    assert analyze(launcher, tmp_path, live=False) == []
    assert "--use-kube=false" in launcher.argv
    assert "--context" not in launcher.argv
    assert "IST0101=*" in launcher.argv


def test_what_cannot_be_read_is_an_objection(tmp_path):
    """It says so beside exit 0 and an empty list, twice."""
    reason = 'failed parsing JSON: unknown value "X" for enum TLSmode'
    line = f"2026\twarn\tfile\terror processing -[0]: {reason} - skipping"
    launcher = Answering(stderr=f"{line}\nError(s) adding files:\n\t* error processing -[0]: {reason}\n")
    assert analyze(launcher, tmp_path) == [Objection("VirtualService shop/web", "unreadable", reason, error=True)]


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [("Error: dial tcp: connect: connection refused", TemporaryError), ("Error: unknown flag", PermanentError)],
)
def test_no_answer_is_an_error(tmp_path, stderr, kind):
    with pytest.raises(kind, match="istioctl analyze: "):
        analyze(Answering("", stderr, 1), tmp_path)


class Judge:
    def __init__(self, *objections):
        self.objections, self.live = objections, None

    def analyze(self, manifests, *, live, deadline):
        self.live = live
        return self.objections


class OneObject:
    """A cluster as ManifestAction needs it to plan."""

    def __init__(self, live=None, missing=""):
        self.live, self.missing = live, missing

    def look(self, objects, *, manager, dry_run=True):
        dry = None if self.missing else self.live or dict(ROUTE)
        return [Look(Reference.of(m), self.live, dry, self.missing) for m in objects]

    def get(self, reference):
        return None

    def masked(self, manifest):
        return manifest


def plan(tmp_path, judge, cluster):
    file = tmp_path / "web.yaml"
    file.write_text(yaml.safe_dump(ROUTE))
    action = ManifestAction(cluster, lambda text, _v, _n: text, analyzers={"istio": judge})
    params, ctx = ManifestParams(path=str(file), analyze="istio"), context()
    return action.plan(params, action.read(params, ctx), ctx)


def test_an_error_is_the_plans(tmp_path):
    judge = Judge(Objection("VirtualService shop/web", "IST0106", "Schema validation error", error=True))
    with pytest.raises(
        PermanentError, match=r"web\.yaml: VirtualService shop/web: Schema validation error \(IST0106\)"
    ):
        plan(tmp_path, judge, OneObject())
    assert judge.live is True


def test_what_an_earlier_step_may_bring_makes_it_deferred_and_stays_sealed(tmp_path):
    judge = Judge(Objection("VirtualService shop/web", "IST0101", "Referenced host not found", True, missing=True))
    change = plan(tmp_path, judge, OneObject())
    assert (change.fidelity, change.verb, change.objects) == (Fidelity.DEFERRED, Verb.CREATE, {})
    assert "VirtualService shop/web: Referenced host not found (IST0101)" in change.reason
    assert set(change.envelope) == {"VirtualService shop/web"}


def test_a_warning_is_not(tmp_path):
    plan(tmp_path, Judge(Objection("VirtualService shop/web", "IST0132", "host", error=False)), OneObject())


def test_while_the_kind_is_missing_it_is_judged_by_itself(tmp_path):
    judge = Judge()
    plan(tmp_path, judge, OneObject(missing="kind VirtualService is not served"))
    assert judge.live is False


def test_nothing_to_change_is_not_judged(tmp_path):
    managed = {"manager": "runbook", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {}}
    live = {**ROUTE, "metadata": {**ROUTE["metadata"], "managedFields": [managed]}}
    judge = Judge()
    plan(tmp_path, judge, OneObject(live))
    assert judge.live is None
