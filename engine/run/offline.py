"""Planning without any system: what a first deploy would do, rendered whole and judged by schemas.

Nothing is exact here: what a system would have said is `predicted`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from engine.core.change import Change, Fidelity
from engine.core.offline import ObjectsError, OfflinePlan
from engine.core.planning import PlanError
from engine.core.ports import Manifest, Reference
from engine.errors import UsageError
from engine.run.planner import make_plan
from engine.run.session import Session


class Judging(Protocol):
    """The cluster that stands in for the real one: it keeps what was declared, and judges it afterwards."""

    declared: dict[Reference, Manifest]

    def version(self) -> str: ...

    def wrong(self, *, complete: bool = True) -> Sequence[object]: ...

    def masked(self, manifest: Manifest) -> Manifest: ...

    @property
    def unjudged(self) -> Sequence[Reference]: ...

    @property
    def asked_too_early(self) -> bool: ...


def make_offline_plan(
    session: Session, cluster: Judging, installs_differently: Callable[[], Mapping[str, str]]
) -> OfflinePlan:
    """ObjectsError for objects that a server would refuse; PlanError for steps that cannot be planned at all."""
    try:
        plan = make_plan(session)
        if cluster.asked_too_early:
            plan = make_plan(session)
    except PlanError as error:
        raise _once(error) from error
    kubernetes = cluster.version().removeprefix("v")
    missing = {s: c.reason for s, c in plan.changes.items() if c.fidelity is Fidelity.DEFERRED}
    wrong = cluster.wrong(complete=not missing)
    if wrong:
        raise ObjectsError([str(w) for w in wrong], kubernetes)
    changes = {step: _predicted(change) for step, change in plan.changes.items()}
    unjudged = [str(r) for r in cluster.unjudged]
    return OfflinePlan(
        plan=replace(plan, changes=changes),
        kubernetes=kubernetes,
        judged=len(cluster.declared) - len(unjudged),
        not_rendered=missing,
        unjudged=unjudged,
        installs_differently=installs_differently(),
        declared={str(r): cluster.masked(m) for r, m in cluster.declared.items()},
    )


def _once(error: PlanError) -> UsageError:
    """What is in every step's way (a program that is missing) is said once."""
    steps, reasons = list(error.problems), set(error.problems.values())
    if len(reasons) > 1 or len(steps) == 1:
        return UsageError(str(error))
    return UsageError(f"{reasons.pop()}\n{len(steps)} steps need it, {steps[0]} first. Nothing was touched.")


def _predicted(change: Change) -> Change:
    return replace(change, fidelity=Fidelity.PREDICTED) if change.fidelity is Fidelity.EXACT else change
