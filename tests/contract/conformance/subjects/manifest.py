"""`manifest` on the cluster: over an earlier version of itself, with a Secret, a new object and one that goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyrage
import yaml

from engine.actions.manifest import MANAGER, ManifestAction, ManifestParams
from engine.adapters.age import Age
from engine.core.redaction import Redactor
from tests.contract.cluster import connect, namespace
from tests.contract.conformance.subject import Subject
from tests.contract.kubectl import kubectl, settings

OLD, NEW = "canary-old-7f3a9c51d2", "canary-new-51d27f3a9c"


@contextmanager
def make(request, tmp_path) -> Iterator[Subject]:
    redactor, identity, folder = Redactor(), pyrage.x25519.Identity.generate(), tmp_path / "manifests"
    cluster = connect(redactor=redactor)
    folder.mkdir()

    def write(*objects: dict) -> None:
        (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))

    with namespace(cluster) as ns:

        def thing(kind: str, name: str, **data: str) -> dict:
            field = "stringData" if kind == "Secret" else "data"
            return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": ns}, field: data}

        def first_only(_change) -> None:
            changed = thing("ConfigMap", "settings", a="2")
            kubectl("apply", "--server-side", f"--field-manager={MANAGER}", "-f", "-", given=[changed])

        age = Age([str(identity.to_public())], lambda: [str(identity)])
        subject = Subject(
            action=ManifestAction(cluster, lambda text, _variables, _name: text, encryption=age, scope=ns),
            params=ManifestParams(path=str(folder)),
            world=lambda: settings(ns),
            wanted={"ConfigMap/settings": {"a": "2"}, "ConfigMap/new": {"n": "1"}, "Secret/token": {"token": NEW}},
            disturb=first_only,
            canaries=lambda: [OLD, NEW],
            redactor=redactor,
        )
        write(thing("ConfigMap", "settings", a="1"), thing("ConfigMap", "gone"), thing("Secret", "token", token=OLD))
        subject.action.apply(subject.params, subject.plan(), subject.context())
        write(
            thing("ConfigMap", "settings", a="2"), thing("ConfigMap", "new", n="1"), thing("Secret", "token", token=NEW)
        )
        inventory = subject.action._inventory_name(subject.context())
        subject.stored = lambda: kubectl("get", "configmap", "-n", "runbook-system", inventory, "-o", "yaml").encode()
        try:
            yield subject
        finally:
            kubectl("delete", "configmap", "-n", "runbook-system", inventory, "--ignore-not-found")
