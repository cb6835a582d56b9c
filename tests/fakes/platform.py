"""The reference platform's objects as the runbook's files render for an environment; nothing live is looked at."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from engine.actions.release import ReleaseParams, _values
from engine.load.inventory import load_environment
from engine.load.render import Scope, render
from engine.load.runbook import load_runbook
from engine.load.text import render_file
from engine.registry import ACTION_TYPES, CHECK_TYPES
from tests.fakes.contexts import context

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "runbooks" / "belizechain"


@cache
def variables(environment: str = "local") -> dict[str, Any]:
    found = load_environment(ROOT, environment, ROOT / ".runbook" / "cache").variables
    return dict(load_runbook(ROOT, "belizechain", ACTION_TYPES, CHECK_TYPES, found).scope.settled())


def objects(folder: str, environment: str = "local", **over: Any) -> list[dict[str, Any]]:
    """Of a folder of the runbook, `policies/mesh`."""
    values = {**variables(environment), **over}
    texts = [render_file(f.read_text(), values, f.name) for f in sorted((RUNBOOK / folder).glob("*.yaml"))]
    return [o for text in texts for o in yaml.safe_load_all(text) if o]


class _Files:
    """The runbook's files as they lie on disk."""

    digest = "0"

    def path(self, name: str) -> Path:
        return RUNBOOK / name

    def digest_of(self, name: str) -> str:
        return "0"


def charted(helm: str, environment: str = "local", **over: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Step and object, of every release of a chart that is the runbook's own, with the values its step gives."""
    given = {**variables(environment), **over}
    scope = Scope(values=given)
    for phase in sorted((RUNBOOK / "phases").glob("*.yml")):
        for step in yaml.safe_load(phase.read_text())["steps"]:
            if not str(step.get("release", {}).get("chart", "")).startswith("charts/"):
                continue
            params = ReleaseParams.model_validate(render(step["release"], scope))
            values = _values(params, context(inputs=_Files(), variables=given))
            argv = [helm, "template", step["id"], str(RUNBOOK / params.chart), "--values", "-"]
            done = subprocess.run(argv, input=json.dumps(values), capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{step['id']}: {done.stderr}"
            yield from ((step["id"], o) for o in yaml.safe_load_all(done.stdout) if o)
