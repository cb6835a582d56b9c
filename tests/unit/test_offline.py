"""A plan that asks nobody: the cluster that stands in, charts rendered twice, and a guard on connections."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.offline import RenderingHelm, nothing_connects
from engine.adapters.offline_cluster import OfflineCluster, schemas
from engine.core.action import Deadline
from engine.core.ports import Declared
from engine.errors import NotYetError, UsageError

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "flags.shop.example.com"},
    "spec": {
        "group": "shop.example.com",
        "scope": "Cluster",
        "names": {"kind": "Flag", "plural": "flags"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


def flag(**meta: Any) -> dict[str, Any]:
    return {"apiVersion": "shop.example.com/v1", "kind": "Flag", "metadata": {"name": "basket", **meta}}


def said(cluster: OfflineCluster, *, complete: bool = True) -> list[str]:
    return [str(w) for w in cluster.wrong(complete=complete)]


def test_every_kind_of_the_version_is_known() -> None:
    assert schemas().kinds["apps/v1/Deployment"]["namespaced"] is True
    assert schemas().kinds["v1/Namespace"]["namespaced"] is False
    assert "apps/v1/Deployment" in OfflineCluster().api_versions()
    assert OfflineCluster("1.31.0").version() == "v1.31.0"


def test_a_definition_that_comes_later_counts() -> None:
    cluster = OfflineCluster()
    assert cluster.namespaced("shop.example.com/v1", "Flag") is None
    cluster.look([{**flag(), "spec": {}}], manager="x")
    assert [str(r) for r in cluster.unjudged] == ["Flag basket"]
    cluster.look([CRD], manager="x", dry_run=False)
    assert said(cluster) == ["Flag basket: spec: unknown field"]
    assert cluster.unjudged == []
    assert cluster.asked_too_early
    assert not cluster.asked_too_early  # told once
    assert cluster.namespaced("shop.example.com/v1", "Flag") is False


@pytest.mark.parametrize(
    ("kind", "version", "complete", "excused"),
    [
        ("Flagg", "shop.example.com/v1", True, False),  # its group is defined here, this kind of it is not
        ("Flagg", "shop.example.com/v1", False, True),  # unless by a chart that could not be rendered
        ("Flag", "shop.exampel.com/v1", True, False),  # a letter beside a group that is
        ("Monitor", "metrics.example.org/v1", True, True),  # somebody else's: the cluster may have it
        ("Flag", "shop/v1", True, False),  # no custom group at all
    ],
)
def test_a_kind_that_nothing_brings(kind: str, version: str, complete: bool, excused: bool) -> None:
    cluster = OfflineCluster()
    cluster.look([CRD], manager="x", dry_run=False)
    cluster.look([{**flag(), "apiVersion": version, "kind": kind}], manager="x")
    assert (said(cluster, complete=complete) == []) is excused


def test_an_unknown_version_of_a_known_group_is_never_excused() -> None:
    cluster = OfflineCluster()
    manifest = {
        "apiVersion": "networking.k8s.io/v1beta1",
        "kind": "Ingress",
        "metadata": {"name": "a", "namespace": "b"},
    }
    cluster.look([manifest], manager="x")
    expected = "networking.k8s.io/v1beta1 has no kind Ingress; networking.k8s.io/v1 has"
    assert expected in said(cluster, complete=False)[0]


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}, "metadata.namespace: is missing"),
        (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "namespace": "b"}},
            "metadata.namespace: Namespace belongs to no namespace",
        ),
        ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "A_b"}}, "metadata.name: should be lower-case"),
        (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"x": 1}}},
            "metadata.labels.x: should be text, is a whole number: 1",
        ),
    ],
)
def test_what_every_object_must_have(manifest: dict[str, Any], expected: str) -> None:
    cluster = OfflineCluster()
    cluster.look([Declared(manifest, "files/a.yaml")], manager="x")
    (line,) = said(cluster)
    assert line.startswith("files/a.yaml: ")
    assert expected in line


def test_nothing_connects_and_no_name_is_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with nothing_connects(), socket.socket() as client:
            with pytest.raises(NotYetError, match=r"offline: 127\.0\.0\.1:\d+ is not asked"):
                client.connect(("127.0.0.1", port))
            with pytest.raises(NotYetError, match=r"offline: example\.com is not asked"):
                socket.getaddrinfo("example.com", 443)
        socket.create_connection(("127.0.0.1", port)).close()  # and afterwards it does again


class Templates:
    """Renders what it is told to: by turns, or by whether it is an upgrade."""

    def __init__(self, *turns: str, upgrade: str = "") -> None:
        self.turns, self.by_upgrade, self.calls = list(turns), upgrade, 0

    def render(
        self, name: str, namespace: str, chart: Path, values: Mapping[str, Any], *, upgrade: bool, deadline: Deadline
    ) -> str:
        self.calls += 1
        text = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        return self.by_upgrade if upgrade and self.by_upgrade else text


def rendering(templates: Any) -> RenderingHelm:
    return RenderingHelm(lambda: templates)


def render(helm: RenderingHelm) -> str:
    return helm.render("shop", "shop", Path("charts/shop"), {}, upgrade=False, deadline=Deadline(5))


def test_a_chart_is_rendered_twice_and_remembered() -> None:
    templates = Templates("same")
    helm = rendering(templates)
    assert [render(helm), render(helm)] == ["same", "same"]
    assert templates.calls == 2
    assert helm.installs_differently == {}


def test_a_chart_that_renders_differently_twice_is_refused() -> None:
    one, two, three = (f"# Source: shop/templates/key.yaml\nkey: {n}\n" for n in range(3))
    helm = rendering(Templates(one, two, three))
    with pytest.raises(UsageError, match=r"chart shop renders differently each time \(shop/templates/key.yaml\)"):
        render(helm)


def test_a_chart_that_asks_whether_it_is_an_upgrade_is_named() -> None:
    first, second = (f"# Source: shop/templates/a.yaml\nfirst: {n}\n" for n in ("true", "false"))
    helm = rendering(Templates(first, upgrade=second))
    assert render(helm) == first
    assert helm.installs_differently == {"shop/shop": "shop/templates/a.yaml"}
