"""What the phases check of the chain, checked of the stand-ins as the chart's local values start them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from engine.adapters.http import Requests
from engine.checks.http import HttpCheck
from engine.checks.jsonrpc import JsonRpcCheck
from engine.checks.substrate import SubstrateCheck
from engine.load.render import Scope, render
from tests.contract.services import free_port
from tests.fakes.contexts import context
from tests.fakes.local_cluster import LocalCluster
from tests.fakes.platform import ROOT, RUNBOOK, _Files, variables

STANDINS = ROOT / "playbooks/roles/images/files/standins"
FAMILIES = (HttpCheck, JsonRpcCheck, SubstrateCheck)


def checks(phase: str, step: str) -> Iterator[tuple[type, dict[str, Any]]]:
    """Those of a step that ask a service of the platform through a tunnel."""
    steps = yaml.safe_load((RUNBOOK / f"phases/{phase}.yml").read_text())["steps"]
    (found,) = (s for s in steps if s["id"] == step)
    for one in found.get("verify") or found["check"]:
        for family in FAMILIES:
            if "belizechain/" in (one.get(family.key) or {}).get("service", ""):
                yield family, render(one[family.key], Scope(values=variables()))


def wrong(cluster: LocalCluster, phase: str, step: str) -> list[str]:
    """What the checks saw that is not so."""
    asked = list(checks(phase, step))
    assert asked
    findings = [
        family(Requests(), cluster).run(family.Params.model_validate(params), context(inputs=_Files()))
        for family, params in asked
    ]
    return [f.saw for f in findings if not f.ok]


@pytest.fixture
def start():
    """Starts a stand-in with an environment; it has said a first line when this returns."""
    running: list[subprocess.Popen[str]] = []

    def start(name: str, **environment: str) -> None:
        argv = [sys.executable, "-u", str(STANDINS / f"{name}.py")]
        made = subprocess.Popen(argv, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
        running.append(made)
        assert made.stdout
        assert made.stdout.readline()

    yield start
    for one in running:
        one.terminate()
    for one in running:
        one.communicate(timeout=10)


def test_the_chain_passes_what_phases_4_and_7_ask(start, tmp_path):
    values = yaml.safe_load((RUNBOOK / "charts/chain/values-local.yaml").read_text())
    given = {one["name"]: one["value"] for one in values["env"]}
    ports = [free_port() for _ in range(3)]
    for i, port in enumerate(ports):
        key = tmp_path / f"key-{i}"
        key.write_text(f"{i:064x}")
        start(
            "chain",
            **given,
            NAME=f"chain-{i}",
            PEERS=",".join(f"http://127.0.0.1:{other}" for other in ports if other != port),
            DATA_DIR=str(tmp_path / str(i)),
            PORT=str(port),
            BLOCK_SECONDS=str(variables()["block_seconds"]),
            CHAIN_SPEC=str(RUNBOOK / "chain-specs/chain-spec-local.json"),
            NODE_KEY_FILE=str(key),
        )
    cluster = LocalCluster({"belizechain/chain:9944": ("127.0.0.1", ports[0])})
    within(lambda: wrong(cluster, "04-core", "chain"))
    within(lambda: wrong(cluster, "07-verification", "chain-finality"))


def within(found: Any, tries: int = 10) -> None:
    """Nothing is wrong, at the latest when looked at that often: each look at the chain waits for a block."""
    for _ in range(tries):
        if not (left := found()):
            return
    assert left == []
