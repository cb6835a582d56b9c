"""What the runbook's own charts bring, rendered by helm: accounts, roles, budgets."""

from __future__ import annotations

import shutil

import pytest

from tests.contract.services import require
from tests.fakes.platform import charted
from tests.unit.test_platform_policies import too_much

WANT_A_TOKEN = {"openbao", "prometheus"}
"""OpenBao asks the API server about logins, Prometheus about kubelets."""
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")


@pytest.fixture(scope="module")
def made():
    helm = require("helm", "/var/cache/runbook-lab/bin/helm", shutil.which("helm"))
    return list(charted(helm))


def test_every_service_has_an_account_of_its_own_and_no_token(made):
    """A pod that talks to the API server says so itself, beside its account."""
    accounts = {(chart, o["metadata"]["name"]): o for chart, o in made if o["kind"] == "ServiceAccount"}
    for chart, workload in ((c, o) for c, o in made if o["kind"] in WORKLOADS):
        name = workload["spec"]["template"]["spec"].get("serviceAccountName")
        assert (chart, name) in accounts, f"{chart}: {workload['metadata']['name']} runs as {name}"
        assert accounts[chart, name].get("automountServiceAccountToken") is False, f"{chart}: {name}"
        mounted = workload["spec"]["template"]["spec"].get("automountServiceAccountToken")
        assert not mounted or chart in WANT_A_TOKEN, f"{chart}: {name} mounts a token"


def test_no_role_of_a_chart_has_a_wildcard(made):
    roles = [(c, o) for c, o in made if o["kind"] in ("Role", "ClusterRole")]
    assert {c: too_much(rule) for c, o in roles for rule in o["rules"] if too_much(rule)} == {}


def test_every_replicated_service_has_a_budget(made):
    """Also one that an autoscaler replicates."""
    budgets = [o["spec"]["selector"]["matchLabels"].items() for _, o in made if o["kind"] == "PodDisruptionBudget"]
    scaled = {(c, o["spec"]["scaleTargetRef"]["name"]) for c, o in made if o["kind"] == "HorizontalPodAutoscaler"}
    for chart, workload in ((c, o) for c, o in made if o["kind"] in ("Deployment", "StatefulSet")):
        name = workload["metadata"]["name"]
        if workload["spec"].get("replicas", 1) > 1 or (chart, name) in scaled:
            labels = workload["spec"]["template"]["metadata"]["labels"].items()
            assert any(budget <= labels for budget in budgets), f"{chart}: {name} has no PodDisruptionBudget"
