"""A second platform, of other phases and another inventory, on the same cluster and the same engine."""

import pytest

from tests.e2e.conftest import deployed

pytestmark = pytest.mark.cluster


def test_another_platform_is_deployed_by_the_same_engine(platform, lab):
    lab.kubectl("delete", "namespace", "webshop", "--ignore-not-found", "--timeout=120s")

    deployed(platform, "webshop")

    (state,) = platform.runbook("status", "webshop", "--json").document["environments"]
    run = state["run"]
    print(f"webshop in {run['seconds']:.1f} s")
    assert (run["runbook"], run["status"], run["steps_done"]) == ("webshop", "succeeded", run["steps_total"])
    assert run["changed"] >= 4
    assert lab.get("deployment", "shop", "-n", "webshop")["status"]["availableReplicas"] >= 1

    again = platform.runbook("deploy", "webshop", "--no-input", "--json")
    assert again.exit == 0, again
    assert (again.run["changed"], again.run["status"]) == (0, "succeeded")
    assert platform.plan() == [], "and it is none of the other platform's business"
