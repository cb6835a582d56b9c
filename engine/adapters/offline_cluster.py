"""Port Cluster without a cluster: an empty one of a stated version. Schemas judge objects in the server's stead.

Those of Kubernetes itself lie beside this file (made by tools/kubernetes_schemas.py); those of custom resources are
taken from the CustomResourceDefinitions that the plan's own charts and manifests bring.
"""

from __future__ import annotations

import difflib
import json
import lzma
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from engine.core.action import Deadline
from engine.core.look import is_secret, masked
from engine.core.ports import Look, Manifest, Reference, source_of
from engine.core.redaction import Secret
from engine.core.structural import Judge, Mistake, Schema
from engine.errors import NotYetError, PermanentError

_SCHEMAS = Path(__file__).with_name("schemas") / "kubernetes.json.xz"
_METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_CRD = "CustomResourceDefinition"
_KEY = secrets.token_bytes(32)
"""Secrets are masked with it: equal ones look equal as long as this process lives."""
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
_FREE_NAMES = ("rbac.authorization.k8s.io",)  # groups whose objects may be called `system:auth`


@dataclass(frozen=True, slots=True)
class Wrong:
    """One object with what is wrong with it; `source` says in which file it is declared."""

    source: str
    reference: Reference
    mistake: str

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.reference}: {self.mistake}" if self.source else f"{self.reference}: {self.mistake}"
        )


@dataclass(frozen=True, slots=True)
class _Kind:
    """How objects of one kind are judged. `schema` is None for a CRD that keeps any field."""

    judge: Judge
    schema: Schema
    namespaced: bool


@dataclass(slots=True)
class OfflineCluster:
    """What actions plan against when no cluster may be asked: nothing is there yet, every kind of `version` is served.

    Each object that is looked at is kept under its name; `wrong` then judges all of them, since the definition of a
    custom resource may come with a later step than the one that was planned first. Safe to use from several threads.
    """

    kubernetes: str = ""
    """The version to plan for, `1.36.3`; empty: that of the schemas."""
    declared: dict[Reference, Manifest] = field(default_factory=dict)
    _definitions: dict[str, Manifest] = field(default_factory=dict)
    _unknown: set[tuple[str, str]] = field(default_factory=set)
    _key: bytes = _KEY

    # --- What it says of itself -------------------------------------------------------------------------------------

    def version(self) -> str:
        return "v" + (self.kubernetes or schemas().version)

    def api_versions(self) -> Sequence[str]:
        """Those of Kubernetes alone, whatever order steps are planned in: a chart renders as at a first deploy."""
        kinds = schemas().kinds
        return sorted({name.rpartition("/")[0] for name in kinds} | set(kinds))

    def namespaced(self, api_version: str, kind: str) -> bool | None:
        found = self._kind(api_version, kind)
        if found is None:
            self._unknown.add((api_version, kind))
        return found.namespaced if found else None

    @property
    def asked_too_early(self) -> bool:
        """Somebody was told that a kind is unknown whose definition came later: plan again, now that it is known."""
        late = {pair for pair in self._unknown if self._kind(*pair)}
        self._unknown -= late
        return bool(late)

    def look(self, objects: Sequence[Manifest], *, manager: str, dry_run: bool = True) -> Sequence[Look]:
        return [self._look(manifest, dry_run=dry_run) for manifest in objects]

    def masked(self, manifest: Manifest) -> Manifest:
        return masked(manifest, lambda: self._key)

    def get(self, reference: Reference) -> Manifest | None:
        return None

    # --- Judging ----------------------------------------------------------------------------------------------------

    def wrong(self, *, complete: bool = True) -> list[Wrong]:
        """Every mistake in every object, in order of files. Without `complete` (some charts could not be rendered) a
        custom resource of an unknown kind is no mistake, nor ever one of a group that nothing here defines: `unjudged`
        names it."""
        found = [
            Wrong(source_of(manifest), reference, mistake)
            for reference, manifest in self.declared.items()
            for mistake in self._mistakes(reference, manifest, complete=complete)
        ]
        return sorted(found, key=lambda w: (w.source, str(w.reference)))

    @property
    def unjudged(self) -> list[Reference]:
        """Custom resources whose definition nothing brings that could be rendered."""
        unknown = (r for r in self.declared if self._kind(r.api_version, r.kind) is None)
        return sorted((r for r in unknown if self._excused(r, complete=False)), key=str)

    def _mistakes(self, reference: Reference, manifest: Manifest, *, complete: bool) -> Iterator[str]:
        kind = self._kind(reference.api_version, reference.kind)
        if kind is None:
            if not self._excused(reference, complete=complete):
                yield self._unknown_kind(reference)
            return
        if kind.namespaced and not reference.namespace:
            yield "metadata.namespace: is missing"
        if not kind.namespaced and reference.namespace:
            yield f"metadata.namespace: {reference.kind} belongs to no namespace"
        if not _NAME.match(reference.name) and reference.api_version.partition("/")[0] not in _FREE_NAMES:
            yield "metadata.name: should be lower-case letters, digits, - and ."
        yield from map(str, self._judged(kind, manifest))

    def _excused(self, reference: Reference, *, complete: bool) -> bool:
        """Whether the kind may be somebody else's: of a chart that could not be rendered, or of a group that nothing
        here defines, so that the cluster has it already. A group one letter beside a known one is a typing mistake."""
        group = reference.api_version.rpartition("/")[0]
        known = {crd["spec"]["group"] for crd in self._definitions.values()}
        known |= {name.rpartition("/")[0].rpartition("/")[0] for name in schemas().kinds} - {""}
        if group in known or not _custom(reference.api_version):
            return not complete and _custom(reference.api_version)
        return not difflib.get_close_matches(group, known, n=1, cutoff=0.9)

    @staticmethod
    def _judged(kind: _Kind, manifest: Manifest) -> list[Mistake]:
        """A custom resource's metadata is Kubernetes' own, and its `status` the server's."""
        quote = not is_secret(manifest)
        if kind.judge is schemas().judge:
            return kind.judge.mistakes(manifest, kind.schema, quote=quote)
        body = {k: v for k, v in manifest.items() if k not in ("apiVersion", "kind", "metadata", "status")}
        fields = {k: v for k, v in (kind.schema.get("properties") or {}).items() if k in body}
        required = [
            name for name in kind.schema.get("required") or () if name not in ("apiVersion", "kind", "metadata")
        ]
        found = kind.judge.mistakes(body, {**kind.schema, "properties": fields, "required": required})
        meta = schemas().judge.mistakes(manifest["metadata"], {"$ref": _METADATA})
        return found + [Mistake(f"metadata.{m.path}".rstrip("."), m.message) for m in meta]

    def _unknown_kind(self, reference: Reference) -> str:
        version, kind = reference.api_version, reference.kind
        others = sorted({v for v, k in self._known() if k == kind})
        if others:
            return f"apiVersion: {version} has no kind {kind}; {' and '.join(others)} has"
        return (
            f"kind: no {kind} in {version}: neither Kubernetes {schemas().version} has it nor a {_CRD} of this runbook"
        )

    def _known(self) -> Iterator[tuple[str, str]]:
        for name in schemas().kinds:
            version, _, kind = name.rpartition("/")
            yield version, kind
        for crd in list(self._definitions.values()):
            for version in crd["spec"]["versions"]:
                yield f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]

    def _look(self, manifest: Manifest, *, dry_run: bool) -> Look:
        reference = Reference.of(manifest)
        if manifest["kind"] == _CRD and "spec" in manifest:
            self._define(manifest)
        if dry_run:
            self.declared[reference] = manifest
        return Look(reference, None, self.masked(manifest) if dry_run else None)

    def _define(self, crd: Manifest) -> None:
        spec = crd["spec"]
        try:
            self._definitions[f"{spec['group']}/{spec['names']['kind']}"] = crd
        except (KeyError, TypeError) as error:
            name = crd["metadata"]["name"]
            raise PermanentError(f"{source_of(crd) or name}: {_CRD} {name}: spec names no group and kind") from error

    def _kind(self, api_version: str, kind: str) -> _Kind | None:
        own = schemas().kinds.get(f"{api_version}/{kind}")
        if own is not None:
            return _Kind(schemas().judge, {"$ref": own["schema"]}, own["namespaced"])
        group, _, version = api_version.rpartition("/")
        crd = self._definitions.get(f"{group}/{kind}")
        if crd is None:
            return None
        for each in crd["spec"]["versions"]:
            if each["name"] == version and each.get("served", True):
                schema = (each.get("schema") or {}).get("openAPIV3Schema") or {}
                return _Kind(_CUSTOM, schema, crd["spec"]["scope"] == "Namespaced")
        return None

    # --- What there is nobody to ask ----------------------------------------------------------------------------------

    def uid(self) -> NoReturn:
        _nobody("which cluster it is")

    def logs(self, namespace: str, pod: str, container: str, *, lines: int = 20) -> NoReturn:
        _nobody(f"logs of {namespace}/{pod}")

    def exec(
        self,
        namespace: str,
        pod: str,
        argv: Sequence[str],
        *,
        container: str = "",
        stdin: bytes | Iterator[bytes] = b"",
        deadline: Deadline,
    ) -> Iterator[bytes]:
        _nobody(f"pod {namespace}/{pod}")

    def tunnel(self, service: str) -> AbstractContextManager[tuple[str, int]]:
        _nobody(f"service {service}")

    def service_account_token(self, namespace: str, name: str) -> Secret:
        _nobody(f"a token of {namespace}/{name}")

    def apply(self, manifest: Manifest, *, manager: str) -> Manifest:
        _nobody(f"applying {Reference.of(manifest)}")

    def patch(self, reference: Reference, body: Mapping[str, Any], *, manager: str) -> None:
        _nobody(f"changing {reference}")

    def delete(self, reference: Reference, deadline: Deadline, *, wait: bool = True, grace: int | None = None) -> None:
        _nobody(f"deleting {reference}")

    def swap(self, manifest: Manifest, resource_version: str) -> Manifest | None:
        _nobody(f"writing {Reference.of(manifest)}")

    def list(self, api_version: str, kind: str, namespace: str = "", selector: str = "") -> Sequence[Manifest]:
        return []


class _Schemas:
    """Kubernetes' own kinds, read when first asked for (4 ms)."""

    @cached_property
    def _document(self) -> dict[str, Any]:
        return dict(json.loads(lzma.decompress(_SCHEMAS.read_bytes())))

    @property
    def version(self) -> str:
        return str(self._document["version"])

    @property
    def kinds(self) -> Mapping[str, Mapping[str, Any]]:
        """`apiVersion/Kind` -> `schema`, `namespaced`."""
        kinds: Mapping[str, Mapping[str, Any]] = self._document["kinds"]
        return kinds

    @cached_property
    def judge(self) -> Judge:
        return Judge(self._document["definitions"])


_CUSTOM = Judge({}, null_is_absent=False)
_OWN = _Schemas()


def schemas() -> _Schemas:
    """Those that were shipped with the engine."""
    return _OWN


def _nobody(what: str) -> NoReturn:
    raise NotYetError(f"offline: no cluster is asked for {what}")


def _custom(api_version: str) -> bool:
    """Whether the group is somebody else's than Kubernetes'."""
    group = api_version.rpartition("/")[0]
    return "." in group and not any(name.startswith(f"{group}/") for name in schemas().kinds)
