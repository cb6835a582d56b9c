"""Drift: what a plan on a deploy's kept inputs would change although nobody changed the files. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.core.action import Kind
from engine.core.change import Change, Verb
from engine.core.history import RunStatus, RunView
from engine.core.model import StepId
from engine.core.planning import Plan


def last_deploy(views: Iterable[RunView], environment: str) -> RunView | None:
    """The environment's newest deploy that succeeded: one that was rolled back left what was before it."""
    mine = [v for v in views if v.environment == environment and v.kind == "deploy"]
    return next((v for v in reversed(mine) if v.status is RunStatus.SUCCEEDED), None)


def drifted(plan: Plan, actions: Mapping[StepId, str], kinds: Mapping[str, Kind]) -> list[Change]:
    """The changes that are drift. An EVENT (a backup, an approval) that is due again is none: nothing moved.

    `actions`: step -> action's name; `kinds`: action's name -> its kind.
    """
    return [c for c in plan.changes.values() if c.verb is not Verb.NONE and kinds[actions[c.step]] is Kind.STATE]
