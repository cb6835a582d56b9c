"""Kubernetes objects as files and charts write them: parsed, put in order, named, compared with what is live."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import yaml

from engine.actions.rollout import unready
from engine.core.action import Context
from engine.core.change import ABSENT, Delta, Fidelity, Fingerprint, Verb
from engine.core.events import digest_of
from engine.core.look import after, before, diff
from engine.core.model import ObjectId
from engine.core.ports import Declared, Look, Manifest, Reference, source_of
from engine.errors import PermanentError

ROLLING_OUT = "rolling out"
_ORDER = (
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "StorageClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "DaemonSet",
    "Pod",
    "ReplicaSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "StatefulSet",
    "Job",
    "CronJob",
    "IngressClass",
    "Ingress",
    "APIService",
)
"""Helm's install order; what is not in it (custom resources) comes last."""
_DATA_KINDS = ("Namespace", "CustomResourceDefinition", "PersistentVolume", "PersistentVolumeClaim")


class _Loader(yaml.CSafeLoader):
    """YAML without timestamps: an API object has none, only strings that look like one."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str, where: str) -> list[Declared]:
    """The objects of a file of one or more documents; a List is taken apart. PermanentError names the file."""
    found: list[Declared] = []
    try:
        documents = list(yaml.load_all(text, _Loader))
    except yaml.YAMLError as error:
        raise PermanentError(f"{where}: not YAML: {error}") from error
    for document in documents:
        if not document:
            continue
        items = document.get("items") if isinstance(document, dict) and "metadata" not in document else None
        for item in items or [document]:
            _require_object(item, where)
            found.append(Declared(item, where))
    return found


def prepared(manifest: Manifest) -> Declared:
    """As it is sent. `stringData` becomes `data`, or a removed key stays on the server; empty `labels` and
    `annotations` go, or we would own every foreign one."""
    ready = {k: v for k, v in manifest.items() if k not in ("stringData", "status")}
    meta = {k: v for k, v in manifest["metadata"].items() if v or k not in ("labels", "annotations")}
    ready["metadata"] = meta
    if manifest["kind"] == "Secret" and manifest.get("stringData"):
        plain = {k: base64.b64encode(str(v).encode()).decode() for k, v in manifest["stringData"].items()}
        ready["data"] = {**(manifest.get("data") or {}), **plain}
    return Declared(ready, source_of(manifest))


def in_order(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Namespaces before what is in them, accounts before who uses them; otherwise as written."""
    rank = {kind: position for position, kind in enumerate(_ORDER)}
    return sorted(manifests, key=lambda m: rank.get(m["kind"], len(rank)))


def object_ids(references: Sequence[Reference]) -> list[ObjectId]:
    """A name for each; with the API version where two would be called the same."""
    count = Counter(map(str, references))
    return [ObjectId(str(r) if count[str(r)] == 1 else f"{r} ({r.api_version})") for r in references]


def by_name(manifests: Sequence[Manifest], where: str) -> dict[ObjectId, Manifest]:
    """Objects under their names. PermanentError, naming `where`, when one is declared twice."""
    references = [Reference.of(m) for m in manifests]
    if twice := {str(r) for r in references if references.count(r) > 1}:
        raise PermanentError(f"{where}: declared twice: {', '.join(sorted(twice))}")
    return dict(zip(object_ids(references), manifests, strict=True))


def holds_data(reference: Reference) -> bool:
    """Whether deleting it would take with it what no file can bring back."""
    return reference.kind in _DATA_KINDS


def sealed(masked: Callable[[Manifest], Manifest], manifests: Iterable[Manifest]) -> dict[str, str]:
    """Object -> digest of what was rendered: what a deferred step is held to."""
    listed = list(manifests)
    ids = object_ids([Reference.of(m) for m in listed])
    return {name: digest_of(masked(m)) for name, m in zip(ids, listed, strict=True)}


def state_of(look: Look, manager: str, ctx: Context) -> Fingerprint:
    """The `before` form of one object. While resuming, a workload that is not ready is unfinished business of ours."""
    seen = before(look.live, look.dry, manager)
    if ctx.resuming and look.live is not None and not seen.unfinished and unready(look.live):
        return Fingerprint(seen.digest, ROLLING_OUT)
    return seen


def delta_of(look: Look, seen: Fingerprint, manager: str, *, undo_to: Fingerprint | None) -> Delta:
    """From what was seen to what the dry run said; `after` is unknown where none was possible."""
    wanted = after(look.dry, manager) if look.dry is not None else None
    return Delta(seen, wanted, diff(look.live, look.dry, manager), undo_to)


def changed(delta: Delta) -> bool:
    return delta.after is None or delta.before != delta.after


def verb_of(deltas: Iterable[Delta]) -> Verb:
    """One word for a step of many objects."""
    moving = [d for d in deltas if changed(d)]
    if not moving:
        return Verb.NONE
    if all(d.before.absent for d in moving):
        return Verb.CREATE
    return Verb.DELETE if all(d.after == ABSENT for d in moving) else Verb.UPDATE


def fidelity_of(looks: Sequence[Look], manifests: Sequence[Manifest]) -> tuple[Fidelity, str]:
    """Exact where every dry run was possible; predicted where this step itself makes the namespace or kind that was
    missing; deferred where another must. With the first reason."""
    missing = [look for look in looks if look.missing]
    if not missing:
        return Fidelity.EXACT, ""
    made = set(_makes(manifests))
    foreign = [m for m in missing if m.reference.namespace not in made and _kind(m.reference) not in made]
    if foreign:
        return Fidelity.DEFERRED, foreign[0].missing
    return Fidelity.PREDICTED, f"{missing[0].missing} before this step"


def _makes(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Namespaces, and kinds as `Kind.group`, that these objects bring."""
    for manifest in manifests:
        if manifest["kind"] == "Namespace":
            yield manifest["metadata"]["name"]
        if manifest["kind"] == "CustomResourceDefinition":
            yield f"{manifest['spec']['names']['kind']}.{manifest['spec']['group']}"


def _kind(reference: Reference) -> str:
    return f"{reference.kind}.{reference.api_version.partition('/')[0]}"


def _require_object(item: Any, where: str) -> None:
    if not isinstance(item, dict) or not isinstance(item.get("metadata"), dict):
        raise PermanentError(f"{where}: a document is not a Kubernetes object")
    missing = [k for k in ("apiVersion", "kind") if not item.get(k)] + ["metadata.name"] * (
        not item["metadata"].get("name")
    )
    if missing:
        raise PermanentError(f"{where}: an object lacks {', '.join(missing)}")
