"""Drift for a person and as a document: which objects moved, who moved them, and how to look and mend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core.change import Change
from engine.core.history import RunView
from engine.core.model import StepId
from engine.core.planning import Plan
from engine.report.plan import coverage, listed_changes
from engine.report.text import clip, count

SCHEMA = 1


def drift_lines(
    view: RunView, plan: Plan, moved: Sequence[Change], actions: Mapping[StepId, str], *, width: int = 0
) -> list[str]:
    """Each step that drifted with its diff, then one line that says since when."""
    since = f"run {view.id} of {view.finished[:16].replace('T', ' ')}"
    read = f"{count(len(plan.changes), 'step')} read ({coverage(plan)})"
    if not moved:
        return [f"✓ no drift since {since}   {read}"]
    return [
        *listed_changes(moved, actions, width=width),
        "",
        clip(
            f"{len(moved)} of {count(len(plan.changes), 'step')} drifted since {since}.   Coverage: {coverage(plan)}.",
            width,
        ),
        f"  look   runbook plan {view.environment}",
        f"  mend   runbook deploy {view.environment}",
    ]


def drift_document(view: RunView, plan: Plan, moved: Sequence[Change]) -> dict[str, Any]:
    """What `drift --json` prints."""
    commands = [f"runbook plan {view.environment}", f"runbook deploy {view.environment}"]
    return {
        "schema": SCHEMA,
        "environment": view.environment,
        "since": {"run": view.id, "finished": view.finished},
        "steps_read": len(plan.changes),
        "fidelity": plan.count(lambda c: c.fidelity.value),
        "drifted": [c.to_json() for c in moved],
        "next": commands if moved else [],
    }
