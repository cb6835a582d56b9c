"""A second deploy reads everything, changes nothing, says so; the API server's own log agrees."""

import re

import pytest

pytestmark = pytest.mark.cluster

ALLOWED = (
    r"(create|update) configmaps runbook-system/environment-belizechain",  # the environment's record
    r"create serviceaccounts/token runbook-system/engine(-planner)?",  # its login at the secret store
    r"(patch|create|delete) pods [a-z-]+/runbook-probe-\w+",  # what a check looks through, gone again at its end
    r"create self\w+reviews /",
    r"create pods/(exec|portforward) .*",
)


def test_a_second_deploy_changes_nothing(platform, lab):
    declared, versions, since = lab.declared(), lab.versions(), lab.now()

    done = platform.runbook("deploy", "local", "--no-input", "--json")

    assert done.exit == 0, done
    run = done.run
    print(f"second deploy: {run['seconds']:.1f} s, {run['steps_total']} steps, {run['checks_passed']} checks")
    assert (run["status"], run["changed"]) == ("succeeded", 0)
    assert run["unchanged"] + run["left_out"] == run["steps_total"]
    assert run["steps_total"] >= 30
    assert run["checks_passed"] > 0
    assert run["checks_failed"] == 0
    kinds = {kind for kind, _, _ in platform.events(run["id"])}
    assert "intent" not in kinds, "nothing was even begun: no playbook, no helm"

    written = lab.writes("runbook-deployer", since)
    assert "update configmaps runbook-system/environment-belizechain" in written, "the log is of this deploy"
    assert [w for w in written if not any(re.fullmatch(a, w) for a in ALLOWED)] == []
    assert lab.writes("runbook-planner", since) == []
    assert lab.versions() == versions
    assert lab.declared() == declared


def test_it_says_so_to_a_person(platform):
    steps = len(platform.runbook("plan", "local", "--json").document["changes"])
    done = platform.runbook("deploy", "local", "--no-input")
    assert done.exit == 0, done
    assert done.stdout.startswith(f"✓ nothing to change   {steps} steps read")


def test_it_has_read_every_step(platform, lab):
    """Each release, manifest and bucket is read live: the planner asks for what it plans."""
    since = lab.now()
    done = platform.runbook("plan", "local", "--json", "--detailed-exitcode")
    assert done.exit == 0, done
    changes = done.document["changes"]
    phases = platform.runbook("graph", "local", "--json").document["phases"]
    actions = {s["id"]: s["action"] for phase in phases for s in phase["steps"]}
    assert {c["step"] for c in changes} | set(done.document["left_out"]) == set(actions)
    assert {actions[c["step"]] for c in changes if c["fidelity"] == "assumed"} <= {"playbook", "check"}
    asked = {_what(e) for e in lab.requests("runbook-planner", since)}
    assert {"statefulsets pakit", "statefulsets chain", "deployments istiod", "namespaces vault"} <= asked


def _what(request: dict) -> str:
    about = request.get("objectRef", {})
    return f"{about.get('resource')} {about.get('name')}"
