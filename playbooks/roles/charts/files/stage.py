"""Stage third-party charts: stage.py TARGET ISTIO_MODULE EXTERNAL_SECRETS_MODULE. Prints the charts it changed.

A chart is put together beside its place and moved there whole, and only if its content differs.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

ISTIO = {
    "istio-base": "base",
    "istio-cni": "istio-cni",
    "istiod": "istio-control/istio-discovery",
    "istio-gateway": "gateway",
}
# These and all generators: 1.6 MB of CRDs, a release record of 0.43 MB (a Secret holds 1 MB).
KINDS = {
    "ExternalSecret",
    "SecretStore",
    "ClusterExternalSecret",
    "ClusterSecretStore",
    "PushSecret",
    "ClusterPushSecret",
}


def external_secrets(source: Path, chart: Path) -> None:
    """The operator's chart without its one subchart, which would have to be downloaded and is off by default."""
    copy(source / "deploy/charts/external-secrets", chart)
    (chart / "Chart.lock").unlink()
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    del about["dependencies"]
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about, sort_keys=False))


def external_secrets_crds(source: Path, chart: Path) -> None:
    """A chart of nothing but CRDs: Helm installs them first, waits until they are served, and never removes them."""
    (chart / "crds").mkdir(parents=True)
    version = yaml.safe_load((source / "deploy/charts/external-secrets/Chart.yaml").read_text())["version"]
    about = {"apiVersion": "v2", "name": "external-secrets-crds", "version": version}
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
    for crd in yaml.load_all((source / "deploy/crds/bundle.yaml").read_text(), Loader=yaml.CSafeLoader):
        if crd["spec"]["names"]["kind"] in KINDS or crd["spec"]["group"].startswith("generators."):
            (chart / "crds" / f"{crd['metadata']['name']}.yaml").write_text(yaml.safe_dump(crd, sort_keys=False))


def copy(source: Path, chart: Path) -> None:
    """Copy a chart out of the module cache, which is read-only, without its documentation and tests."""
    shutil.copytree(source, chart, ignore=shutil.ignore_patterns("README.md*", "tests", "ci"))
    for path in [chart, *chart.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def stage(chart: Path, build: Callable[[Path], None]) -> bool:
    """Build a chart beside its place and swap it in. Returns whether the content changed."""
    fresh = chart.with_name(f".{chart.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    build(fresh)
    if dict(content(fresh)) == dict(content(chart)):
        shutil.rmtree(fresh)
        return False
    shutil.rmtree(chart, ignore_errors=True)
    fresh.rename(chart)
    return True


def content(chart: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a chart by its name; nothing if there is no chart."""
    for path in sorted(chart.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(chart)), path.read_bytes()


def main() -> None:
    """Stage all charts."""
    target, istio, operator = (Path(argument) for argument in sys.argv[1:])
    target.mkdir(parents=True, exist_ok=True)
    builds: dict[str, Callable[[Path], None]] = {
        name: lambda chart, folder=folder: copy(istio / "manifests/charts" / folder, chart)  # type: ignore[misc]
        for name, folder in ISTIO.items()
    }
    builds["external-secrets"] = lambda chart: external_secrets(operator, chart)
    builds["external-secrets-crds"] = lambda chart: external_secrets_crds(operator, chart)
    for name, build in builds.items():
        if stage(target / name, build):
            print(name)


if __name__ == "__main__":
    main()
