"""Kubeconfigs as people have them: the current context, none, and files that are something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.adapters.kubernetes_session import Resource, Session
from engine.core.redaction import Redactor
from engine.errors import NotYetError, PermanentError

GOOD = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}, {name: y, context: {cluster: c, user: u}}]
current-context: y
"""


def session(path: Path, content: str, context: str = "") -> Session:
    path.write_text(content)
    return Session(path, context, Redactor(), 1)


@pytest.mark.parametrize("context", ["", "x"])
def test_without_a_context_the_current_one(tmp_path: Path, context: str) -> None:
    made = session(tmp_path / "k", GOOD, context)
    assert made.configuration().host == "https://127.0.0.1:1"
    with pytest.raises(NotYetError, match="does not answer"):
        made.json("GET", "/version")


def test_an_unknown_context_is_named(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"z in .*contexts list"):
        session(tmp_path / "k", GOOD, "z").configuration()


@pytest.mark.parametrize(
    "content", ["root:x:0:0::/root:/bin/sh\n", "a: [b\n", "", "[]", "5", "users: 5\n", "\0", "clusters: [x]\n"]
)
def test_what_is_no_kubeconfig_is_said(tmp_path: Path, content: str) -> None:
    with pytest.raises(PermanentError, match="kubeconfig"):
        session(tmp_path / "k", content).configuration()


def test_a_name_cannot_leave_its_place_in_the_path() -> None:
    resource = Resource("v1", "configmaps", True)
    assert resource.path("a/../b", "c?x=1") == "/api/v1/namespaces/a%2F..%2Fb/configmaps/c%3Fx%3D1"
    assert (
        Resource("rbac.authorization.k8s.io/v1", "clusterroles", False).path("", "system:node").endswith("system:node")
    )
