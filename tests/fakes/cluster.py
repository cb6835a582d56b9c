"""A cluster that holds ConfigMaps and does compare-and-swap: enough for the environment record."""

from __future__ import annotations

import copy
from typing import Any

from engine.core.ports import Reference
from engine.errors import NotYetError


class RecordCluster:
    """`exists` False: there is no cluster yet."""

    def __init__(self) -> None:
        self.exists = True
        self.objects: dict[Reference, dict[str, Any]] = {}
        self.swaps = 0

    def get(self, reference: Reference) -> dict[str, Any] | None:
        self._reach()
        return copy.deepcopy(self.objects.get(reference))

    def swap(self, manifest: dict[str, Any], resource_version: str) -> dict[str, Any] | None:
        self._reach()
        reference = Reference.of(manifest)
        found = self.objects.get(reference)
        if (found["metadata"]["resourceVersion"] if found else "") != resource_version:
            return None
        self.swaps += 1
        written = copy.deepcopy(manifest)
        written["metadata"]["resourceVersion"] = str(self.swaps)
        self.objects[reference] = written
        return copy.deepcopy(written)

    def _reach(self) -> None:
        if not self.exists:
            raise NotYetError("there is no cluster yet")
