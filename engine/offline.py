"""The outside of an environment when nothing of it may be asked: everything is rendered, and nothing is there yet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.adapters.helm import HelmCli
from engine.adapters.istioctl import Istioctl
from engine.adapters.offline import EmptyObjects, EmptySecrets, NoEvidence, NoRecords, RenderingHelm
from engine.adapters.offline_cluster import OfflineCluster
from engine.core.action import Deadline
from engine.core.ports import Analyzer, Cluster, Evidence, Helm, Manifest, Objection
from engine.core.processes import PlaybookRecords
from engine.errors import UsageError
from engine.outside import Outside


@dataclass(frozen=True)
class OfflineOutside(Outside):
    """As Outside, with every port that a plan asks replaced. What is left and connects is refused by the guard."""

    cluster: OfflineCluster = field(default_factory=OfflineCluster)

    @cached_property
    def planner(self) -> Any:
        return self.cluster

    @cached_property
    def deployer(self) -> Any:
        return self.cluster

    @cached_property
    def secret_store(self) -> Any:
        return EmptySecrets()

    @cached_property
    def object_store(self) -> Any:
        return EmptyObjects()

    @cached_property
    def helm(self) -> RenderingHelm:
        return RenderingHelm(self._found_helm)

    def _found_helm(self) -> Helm:
        """UsageError when there is none."""
        program = found_program(self.settings.helm_program, "helm")
        if program is None:
            raise UsageError(
                f"no helm to render the charts with: helm_program ({self.settings.helm_program}) does not exist, and "
                "there is none on PATH. Install Helm 4, or say where it is: -e helm_program=FILE"
            )
        return HelmCli(program, self._kubeconfig, "", self.launcher, self.cluster)

    def target(self) -> str:
        return ""

    def _helm(self, cluster: Cluster, context: str) -> Helm:
        return self.helm

    def _analyzers(self, context: str) -> Mapping[str, Analyzer]:
        program = found_program(self.settings.istioctl_program, "istioctl")
        if program is None:
            return {"istio": _NoAnalyzer()}
        return {"istio": _Unconnected(Istioctl(program, self._kubeconfig, context, self.launcher))}

    def _evidence(self) -> Evidence:
        return NoEvidence()

    def _playbook_records(self) -> PlaybookRecords:
        return NoRecords()


class _NoAnalyzer:
    def analyze(self, manifests: Sequence[Manifest], *, live: bool, deadline: Deadline) -> Sequence[Objection]:
        return ()


@dataclass(frozen=True, slots=True)
class _Unconnected:
    """Judges the objects by themselves, never beside a cluster's."""

    analyzer: Analyzer

    def analyze(self, manifests: Sequence[Manifest], *, live: bool, deadline: Deadline) -> Sequence[Objection]:
        return self.analyzer.analyze(manifests, live=False, deadline=deadline)


def found_program(named: str, usual: str) -> str | None:
    """The program a setting names, else the one of the usual name on PATH."""
    for name in (named, usual):
        if os.sep in name:
            path = Path(name).expanduser()
            if path.is_file() and os.access(path, os.X_OK):
                return str(path)
        elif found := shutil.which(name):
            return found
    return None
