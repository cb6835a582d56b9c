"""Planning a whole runbook against what is live, as the identity that may only read and dry-run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.core.change import Change
from engine.core.model import Step, StepId
from engine.core.planning import Plan, plan_steps, with_author
from engine.run.session import Session


def make_plan(session: Session, registered: Mapping[str, Any] | None = None) -> Plan:
    """The plan of every step. PlanError lists all steps that cannot be planned; nothing is changed."""
    reasons: dict[StepId, str] = {}
    parts = session.planner

    def plan_one(step: Step) -> Change | None:
        resolved = parts.resolver.resolve(step, registered or {})
        if resolved.skip:
            reasons[step.id] = resolved.reason
            return None
        action = parts.actions[step.action]
        ctx = parts.context(step, resolved)
        return with_author(step, action.plan(resolved.params, action.read(resolved.params, ctx), ctx))

    steps = [session.runbook.step(s) for s in session.graph.order]
    planned = plan_steps(steps, plan_one)
    return Plan(
        environment=session.environment,
        runbook=session.runbook.name,
        target=session.target,
        inputs=session.inputs,
        variables=session.variables,
        changes={step: change for step, change in planned.items() if change is not None},
        reasons=reasons,
    )
