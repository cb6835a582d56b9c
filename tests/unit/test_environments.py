"""Every environment of the project lints and plans offline, with no network and no secret; how they differ is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.offline import found_program
from tests.fakes.platform import charted, variables
from tests.fakes.required import missing

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted(p.name for p in (ROOT / "inventories").iterdir() if p.is_dir())
HELM = found_program("/var/cache/runbook-lab/bin/helm", "helm")
ALONE = ["unshare", "--net", "--map-root-user"]
"""A network namespace in which not even the loopback interface is up."""


def runbook(*arguments: str, alone: bool = False) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # no token, no credentials
    return subprocess.run(
        [*(ALONE if alone else []), sys.executable, "-m", "engine", *arguments],
        cwd=ROOT,
        env=kept | {"LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_there_are_environments_to_deploy_to() -> None:
    assert {"local", "dev", "staging", "production"} <= set(ENVIRONMENTS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_lint_finds_nothing(environment: str) -> None:
    done = runbook("lint", environment)
    assert (done.returncode, done.stdout) == (0, "✓ no mistakes found\n"), done.stdout + done.stderr


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_everything_is_rendered_without_a_network(environment: str) -> None:
    if HELM is None:
        missing("helm", "no helm on PATH, and the local cluster's is not built")
    alone = subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    done = runbook("plan", environment, "--offline", "--json", "-e", f"helm_program={HELM}", alone=alone)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert "exact" not in plan["fidelity"]
    unrendered = plan["offline"]["not_rendered"]
    assert all("does not exist" in why for why in unrendered.values()), unrendered  # charts not staged on this machine
    assert plan["offline"]["objects_judged"] > 0


@pytest.mark.parametrize(("environment", "copies"), [("local", 3), ("dev", 2), ("staging", 3), ("production", 5)])
def test_pakit_has_as_many_copies_as_are_verified(environment: str, copies: int) -> None:
    if HELM is None:
        missing("helm", "no helm on PATH, and the local cluster's is not built")
    made = {(step, o["kind"]): o for step, o in charted(str(HELM), environment) if step == "pakit"}
    assert made["pakit", "StatefulSet"]["spec"]["replicas"] == variables(environment)["pakit_replication"] == copies


@pytest.mark.parametrize(
    ("overlays", "spread"), [([], {"DoNotSchedule"}), (["unified"], {"ScheduleAnyway"})], ids=["none", "unified"]
)
def test_copies_share_a_machine_in_production_only_when_unified(overlays: list[str], spread: set[str]) -> None:
    if HELM is None:
        missing("helm", "no helm on PATH, and the local cluster's is not built")
    made = [o for step, o in charted(str(HELM), "production", overlays=overlays) if step in ("chain", "pakit")]
    pods = [o["spec"]["template"]["spec"] for o in made if o["kind"] == "StatefulSet"]
    assert len(pods) == 2
    assert {rule["whenUnsatisfiable"] for pod in pods for rule in pod["topologySpreadConstraints"]} == spread


def test_staging_and_production_differ_in_size() -> None:
    if HELM is None:
        missing("helm", "no helm on PATH, and the local cluster's is not built")
    done = runbook("diff", "staging", "production", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    replication = next(v for v in found["variables"] if v["path"] == "pakit_replication")
    assert (replication["left"], replication["right"]) == ("3", "5")
    claims = [
        d for d in found["steps"]["base/postgresql"]["StatefulSet belizechain/postgresql"] if "storage" in d["path"]
    ]
    assert [(d["left"], d["right"]) for d in claims] == [("200Gi", "1Ti")]
