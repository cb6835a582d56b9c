"""What Helm makes of a chart: objects, hooks and CRDs, as they will be on the server and in the release record."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.actions.objects import by_name, parse
from engine.core.change import Fingerprint
from engine.core.events import digest_of
from engine.core.model import ObjectId
from engine.core.ports import Cluster, Declared, Manifest, ReleaseRecord, source_of
from engine.errors import UsageError

_HOOK = "helm.sh/hook"
_POLICY = "helm.sh/resource-policy"
_DOCUMENT = re.compile(r"^---[ \t]*$", re.MULTILINE)
_SOURCE = re.compile(r"^# Source: (\S+)", re.MULTILINE)
DEPLOYED = "deployed"


@dataclass(frozen=True, slots=True)
class Rendered:
    """One rendering of a chart, or the one a release record holds."""

    chart: str
    """`name-version`."""
    objects: Mapping[ObjectId, Manifest]
    """As Helm sends them: with its label, its annotations and the namespace."""
    crds: Mapping[ObjectId, Manifest]
    """From the chart's `crds/` folder: Helm makes them when they are missing and never touches them again."""
    documents: str
    """Digest of the objects as rendered, Secrets masked."""
    hooks: str
    """Digest of the hooks; tests are none."""

    @property
    def digest(self) -> str:
        """What a planned release is held to."""
        return digest_of([self.chart, self.documents, self.hooks, sorted(self.crds)])

    def record(self, status: str = DEPLOYED, unfinished: str = "") -> Fingerprint:
        """The release record's fingerprint: without the revision, so that values which change no byte are no change."""
        return Fingerprint(digest_of([self.chart, status, self.documents, self.hooks]), unfinished)


def rendered(text: str, chart: str, name: str, namespace: str, cluster: Cluster) -> Rendered:
    """From the output of `helm template --include-crds`."""
    plain: list[Manifest] = []
    hooks: list[Manifest] = []
    crds: dict[ObjectId, Manifest] = {}
    for document in _DOCUMENT.split(text):
        source = _SOURCE.search(document)
        for manifest in parse(document, f"chart {chart}: {source[1] if source else 'output'}"):
            if _from_crds_folder(manifest, source[1] if source else ""):
                crds[ObjectId(f"crd/{manifest['metadata']['name']}")] = manifest
            elif _HOOK in _annotations(manifest):
                hooks.append(manifest)
            else:
                plain.append(manifest)
    return _rendered(chart, plain, hooks, crds, name, namespace, cluster)


def recorded(record: ReleaseRecord, name: str, namespace: str, cluster: Cluster) -> Rendered:
    """From a release record."""
    where = f"release {namespace}/{name} revision {record.revision}"
    hooks = [m for hook in record.hooks for m in parse(hook["manifest"], where)]
    return _rendered(record.chart, parse(record.manifest, where), hooks, {}, name, namespace, cluster)


def kept(manifest: Manifest) -> bool:
    """Whether Helm leaves the object alone when the release no longer has it."""
    return _annotations(manifest).get(_POLICY) == "keep"


def chart_version(path: Path) -> str:
    """`name-version` of a chart folder or archive. UsageError when it is none."""
    try:
        if path.is_dir():
            text = (path / "Chart.yaml").read_text()
        else:
            with tarfile.open(path) as archive:
                inner = next(n for n in archive.getnames() if n.count("/") == 1 and n.endswith("/Chart.yaml"))
                member = archive.extractfile(inner)
                text = member.read().decode() if member else ""
        import yaml

        meta = yaml.safe_load(text)
        return f"{meta['name']}-{meta['version']}"
    except (OSError, StopIteration, tarfile.TarError, KeyError, TypeError) as error:
        raise UsageError(f"{path.name}: not a Helm chart: no readable Chart.yaml") from error


def _rendered(
    chart: str,
    plain: Sequence[Manifest],
    hooks: Sequence[Manifest],
    crds: Mapping[ObjectId, Manifest],
    name: str,
    namespace: str,
    cluster: Cluster,
) -> Rendered:
    scopes = _scopes([*plain, *crds.values()])
    sent = [_as_sent(m, name, namespace, scopes, cluster) for m in plain]
    tests = [h for h in hooks if "test" in _annotations(h)[_HOOK]]
    return Rendered(
        chart=chart,
        objects=by_name(sent, f"chart {chart}"),
        crds=crds,
        documents=_digest(plain, cluster.masked),
        hooks=_digest([h for h in hooks if h not in tests], cluster.masked),
    )


def _digest(manifests: Sequence[Manifest], masked: Callable[[Manifest], Manifest]) -> str:
    return digest_of(sorted(digest_of(masked(m)) for m in manifests))


def _as_sent(
    manifest: Manifest, name: str, namespace: str, scopes: Mapping[tuple[str, str], bool], cluster: Cluster
) -> Manifest:
    """What Helm adds before it applies: who manages the object, and the release's namespace."""
    meta: dict[str, Any] = dict(manifest["metadata"])
    version, kind = manifest["apiVersion"], manifest["kind"]
    namespaced = scopes.get((version.partition("/")[0], kind), cluster.namespaced(version, kind))
    if namespaced is not False:
        meta["namespace"] = meta.get("namespace") or namespace
    meta["labels"] = {**(meta.get("labels") or {}), "app.kubernetes.io/managed-by": "Helm"}
    meta["annotations"] = {
        **(meta.get("annotations") or {}),
        "meta.helm.sh/release-name": name,
        "meta.helm.sh/release-namespace": namespace,
    }
    return Declared({**manifest, "metadata": meta}, source_of(manifest))


def _scopes(manifests: Sequence[Manifest]) -> dict[tuple[str, str], bool]:
    """Group and kind -> namespaced, of the CRDs the chart brings itself."""
    return {
        (m["spec"]["group"], m["spec"]["names"]["kind"]): m["spec"]["scope"] == "Namespaced"
        for m in manifests
        if m["kind"] == "CustomResourceDefinition"
    }


def _from_crds_folder(manifest: Manifest, source: str) -> bool:
    return manifest["kind"] == "CustomResourceDefinition" and "/crds/" in source and "/templates/" not in source


def _annotations(manifest: Manifest) -> Mapping[str, str]:
    return manifest["metadata"].get("annotations") or {}
