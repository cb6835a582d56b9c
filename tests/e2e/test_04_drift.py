"""Somebody scaled a workload by hand: the plan shows exactly that, and who; the deploy mends exactly that."""

import pytest

pytestmark = pytest.mark.cluster

PAKIT = "StatefulSet belizechain/pakit"
CLAIM = "PersistentVolumeClaim belizechain/data-pakit-3"
"""Of the fourth replica, which was there for a moment: Kubernetes keeps a claim when a StatefulSet is scaled down."""


def scale(lab, replicas: int, workload: str = "statefulset/pakit") -> None:
    lab.kubectl("-n", "belizechain", "scale", workload, f"--replicas={replicas}")


# The API server does not record who scaled to zero.
@pytest.mark.parametrize(("replicas", "who"), [(0, "scale"), (4, "kubectl")])
def test_a_workload_scaled_by_hand_is_shown_and_mended(platform, lab, replicas, who):
    before = {name: o for name, o in lab.declared().items() if name != CLAIM}
    scale(lab, replicas)

    (change,) = platform.plan()
    assert (change["step"], change["verb"], change["fidelity"]) == ("core/pakit", "update", "exact")
    differing = {name: o["diff"] for name, o in change["objects"].items() if o["before"] != o["after"]}
    assert set(differing) == {PAKIT}
    ((path, was, wanted, note),) = differing[PAKIT]
    assert (path, was, wanted) == ("spec.replicas", str(replicas), "3")
    assert f"set to {replicas} by" in note
    assert who in note

    told = platform.runbook("plan", "local", "--detailed-exitcode")
    assert told.exit == 2
    assert "replicas" in told.stdout
    assert note in " ".join(told.stdout.split())

    since = lab.now()
    done = platform.runbook("deploy", "local", "--no-input", "--json")
    assert done.exit == 0, done
    print(f"mended in {done.run['seconds']:.1f} s")
    assert [s["id"] for s in done.run["steps"] if s["status"] == "changed"] == ["core/pakit"]
    written = [w for w in lab.writes("runbook-deployer", since) if "statefulsets" in w or "deployments" in w]
    assert [w.split()[-1] for w in written] == ["belizechain/pakit"]

    assert platform.plan() == []
    assert {name: o for name, o in lab.declared().items() if name != CLAIM} == before


def test_verify_says_what_does_not_hold_and_mends_nothing(platform, lab):
    scale(lab, 0, "statefulset/redis")
    lab.kubectl("-n", "belizechain", "wait", "pod/redis-0", "--for=delete", "--timeout=60s")
    since = lab.now()

    done = platform.runbook("verify", "local", "--json")

    assert done.exit == 1, done
    failed = {s["id"] for s in done.run["steps"] if s["status"] == "failed"}
    assert "base/redis" in failed
    assert "base/postgresql" not in failed
    assert not [w for w in lab.writes("runbook-deployer", since) if "statefulsets" in w]
    assert platform.runbook("deploy", "local", "--no-input").exit == 0
    healthy = platform.runbook("verify", "local", "--json")
    assert healthy.exit == 0, healthy
    assert healthy.run["checks_proved_earlier"] == 0
