"""`release` with real Helm on the cluster: an upgrade of a chart whose values hold a secret."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager

from engine.actions.release import ReleaseAction, ReleaseParams
from engine.adapters.helm import HelmCli
from engine.adapters.launcher import ProcessLauncher
from engine.core.redaction import Redactor
from tests.contract.cluster import KUBECONFIG, connect, helm_program, namespace
from tests.contract.conformance.subject import Subject
from tests.contract.kubectl import kubectl, settings

OLD, NEW = "canary-old-7f3a9c51d2", "canary-new-51d27f3a9c"
_TEMPLATES = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: "{{ .Values.a }}"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Values.extra }}}
---
apiVersion: v1
kind: Secret
metadata: {name: token}
stringData: {token: "{{ .Values.token }}"}
"""


@contextmanager
def make(request, tmp_path) -> Iterator[Subject]:
    redactor, chart = Redactor(), tmp_path / "chart"
    cluster = connect(redactor=redactor)
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: web\nversion: 1.0.0\n")
    (chart / "templates" / "all.yaml").write_text(_TEMPLATES)
    launcher = ProcessLauncher(tmp_path / "state", redactor, "conformance")
    helm = HelmCli(helm_program(), KUBECONFIG, "runbook-deployer", launcher, cluster)

    with namespace(cluster) as ns:

        def params(a: str, extra: str, token: str) -> ReleaseParams:
            return ReleaseParams(
                chart=str(chart), name="web", namespace=ns, set={"a": a, "extra": extra, "token": token}
            )

        def world() -> dict:
            records = json.loads(kubectl("get", "secrets", "-n", ns, "-l", "owner=helm,name=web", "-o", "json"))[
                "items"
            ]
            newest = max(records, key=lambda r: int(r["metadata"]["labels"]["version"]), default=None)
            return settings(ns) | ({"release": newest["metadata"]["labels"]["status"]} if newest else {})

        def killed_helm(change) -> None:
            """Its record under way, the first object changed, the rest as before."""
            subject.action.apply(subject.params, change, subject.context())
            _mark(ns, 1, "deployed")
            _mark(ns, 2, "pending-upgrade")
            token = {"stringData": {"token": OLD}}
            kubectl("patch", "secret", "token", "-n", ns, "--field-manager=helm", "-p", json.dumps(token))
            kubectl("delete", "configmap", "new", "-n", ns)

        subject = Subject(
            action=ReleaseAction(helm, cluster),
            params=params("1", "old", OLD),
            world=world,
            wanted={
                "ConfigMap/settings": {"a": "2"},
                "ConfigMap/new": {},
                "Secret/token": {"token": NEW},
                "release": "deployed",
            },
            disturb=killed_helm,
            canaries=lambda: [OLD, NEW],
            redactor=redactor,
            cuts=(0, 1, 2),
        )
        subject.action.apply(subject.params, subject.plan(), subject.context())
        subject.params = params("2", "new", NEW)
        yield subject


def _mark(namespace: str, revision: int, status: str) -> None:
    """Write a status into a release record, as Helm keeps it: JSON, gzipped, base64, and base64 once more."""
    name = f"sh.helm.release.v1.web.v{revision}"
    found = json.loads(kubectl("get", "secret", name, "-n", namespace, "-o", "json"))
    document = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(found["data"]["release"]))))
    document["info"]["status"] = status
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(document).encode()))).decode()
    patch = {"data": {"release": packed}, "metadata": {"labels": {"status": status}}}
    kubectl("patch", "secret", name, "-n", namespace, "--type=merge", "-p", json.dumps(patch))
