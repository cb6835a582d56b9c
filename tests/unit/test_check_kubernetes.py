"""When a workload counts as available, and when resource metrics are served, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from engine.checks.kubernetes import KubernetesCheck, KubernetesParams
from tests.fakes.contexts import context


class OneWorkload:
    """A cluster that holds one workload and no pods."""

    def __init__(self, replicas: int, available: int, seen: int = 1) -> None:
        self._replicas, self._available, self._seen = replicas, available, seen

    def get(self, reference: Any) -> dict[str, Any]:
        return {
            "metadata": {"generation": 1, "name": reference.name, "namespace": reference.namespace},
            "spec": {"replicas": self._replicas},
            "status": {"availableReplicas": self._available, "observedGeneration": self._seen},
        }

    def list(self, *_arguments: Any) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("cluster", "replicas", "ok", "saw"),
    [
        (OneWorkload(2, 2), None, True, "2/2 available"),
        (OneWorkload(2, 1), None, False, "1/2 available"),
        (OneWorkload(0, 0), None, False, "0/0 available: scaled to 0"),
        (OneWorkload(0, 0), 0, True, "0/0 available"),
        (OneWorkload(2, 2), 3, False, "2/2 available, 3 expected"),
        (OneWorkload(2, 2, seen=0), None, False, "2/2 available, a change not seen by its controller yet"),
    ],
)
def test_available(cluster: Any, replicas: int | None, ok: bool, saw: str) -> None:
    params = KubernetesParams(deployment="web", namespace="shop", replicas=replicas)
    finding = KubernetesCheck(cluster).run(params, context())
    assert (finding.ok, finding.saw) == (ok, saw)


class Nodes:
    """A cluster with these nodes, and metrics of some of them."""

    def __init__(self, nodes: list[str], usage: dict[str, dict[str, str]]) -> None:
        self._nodes, self._usage = nodes, usage

    def list(self, _version: str, kind: str) -> list[dict[str, Any]]:
        names = self._nodes if kind == "Node" else self._usage
        return [{"metadata": {"name": n}, "usage": self._usage.get(n)} for n in names]


@pytest.mark.parametrize(
    ("cluster", "ok", "saw"),
    [
        (Nodes(["a"], {"a": {"cpu": "310m", "memory": "2Gi"}}), True, "a: CPU 310m, memory 2Gi"),
        (Nodes(["a", "b"], {"a": {"cpu": "310m", "memory": "2Gi"}}), False, "no metrics of node b"),
        (Nodes(["a"], {"a": {"memory": "2Gi"}}), False, "no metrics of node a"),
        (Nodes(["a"], {}), False, "no metrics of node a"),  # also when nothing serves them
        (Nodes([], {}), False, "no nodes"),
    ],
)
def test_metrics_of_every_node(cluster: Any, ok: bool, saw: str) -> None:
    finding = KubernetesCheck(cluster).run(KubernetesParams(metrics="nodes"), context())
    assert (finding.ok, finding.saw) == (ok, saw)
