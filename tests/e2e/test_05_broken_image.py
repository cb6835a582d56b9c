"""An image that does not exist: the deploy fails with the pod's reason, goes back in reverse order to what the plan
named, and the next one works on the volumes that stayed."""

import hashlib

import pytest

pytestmark = pytest.mark.cluster

VALUES = "runbooks/belizechain/charts/pakit/values-local.yaml"
GOOD, MISSING = 'tag: "1"', "tag: missing"
SERVICE = "runbooks/belizechain/charts/chain/templates/service.yaml"
CONTENT = b"kept on the volume"
STORE = """
import sys, urllib.request
asked = urllib.request.Request("http://localhost:8080" + sys.argv[1], data=sys.argv[2].encode() or None)
print(urllib.request.urlopen(asked).read().decode())
"""


def ask_pakit(lab, path: str, body: str = "") -> str:
    return lab.kubectl("-n", "belizechain", "exec", "pakit-0", "-c", "pakit", "--", "python3", "-c", STORE, path, body)


def volume(lab) -> str:
    return lab.get("pvc", "data-pakit-0", "-n", "belizechain")["metadata"]["uid"]


def test_a_missing_image_fails_at_once_and_the_phase_goes_back(platform, lab, tmp_path):
    ask_pakit(lab, "/store", CONTENT.decode())
    before, kept = lab.declared(), volume(lab)
    edited = platform.copy(tmp_path / "checkout", journal=True)
    edited.edit(VALUES, GOOD, MISSING)
    label_chain_services(edited)
    lab.kubectl("-n", "belizechain", "scale", "statefulset/pakit", "--replicas=0")
    planned = {c["step"]: c for c in edited.plan()}
    assert set(planned) == {"core/chain", "core/pakit"}

    done = edited.runbook("deploy", "local", "--no-input", "--json")

    assert done.exit == 1, done
    run = done.run
    print(f"failed and rolled back in {run['seconds']:.1f} s")
    assert (run["status"], run["rollback_to"]) == ("rolled back", "base")
    assert run["failure"]["step"] == "core/pakit"
    assert "ErrImageNeverPull" in run["failure"]["error"]
    assert "pod pakit-" in run["failure"]["error"]
    for late in ("deadline", "timed out", "in time"):
        assert late not in run["failure"]["error"]

    events = edited.events(run["id"])
    undone = [step for kind, step, _ in events if kind == "undone"]
    assert undone == ["core/pakit", "core/chain"], "the reverse of the order they stand in"
    reached(lab, before, planned)
    assert volume(lab) == kept
    assert platform.plan() == []

    works_on_the_volume(platform, lab, edited, kept)


def label_chain_services(edited) -> None:
    """A change beside the one that fails, of another step of the same phase."""
    file = edited.root / SERVICE
    marked = 'labels: {{- include "labels" . | nindent 4 }}'
    assert marked in file.read_text()
    file.write_text(file.read_text().replace(marked, f"annotations: {{changed: beside}}\n  {marked}"))


def reached(lab, before: dict, planned: dict) -> None:
    """All that the plan said would come back is what it was, on the cluster itself."""
    now = lab.at_rest(lab.declared)
    promised = {o for c in planned.values() for o, delta in c["objects"].items() if delta["undo_to"] and o in before}
    assert {"StatefulSet belizechain/pakit", "Service belizechain/chain"} <= promised
    assert {o: now.get(o) for o in promised} == {o: before[o] for o in promised}


def works_on_the_volume(platform, lab, edited, kept: str) -> None:
    edited.edit(VALUES, MISSING, GOOD)
    edited.edit("runbooks/belizechain/charts/pakit/templates/statefulset.yaml", "value: /data}", 'value: "/data/"}')
    done = edited.runbook("deploy", "local", "--no-input", "--json")
    assert done.exit == 0, done
    assert {s["id"] for s in done.run["steps"] if s["status"] == "changed"} == {"core/chain", "core/pakit"}
    assert volume(lab) == kept
    assert CONTENT.decode() in ask_pakit(lab, f"/store/{hashlib.sha256(CONTENT).hexdigest()}")

    assert platform.runbook("deploy", "local", "--no-input").exit == 0
    assert CONTENT.decode() in ask_pakit(lab, f"/store/{hashlib.sha256(CONTENT).hexdigest()}")
    assert platform.plan() == []
