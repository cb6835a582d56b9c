"""Who had a hand in a run: whoever began, resumed or approved it. Pure."""

from __future__ import annotations

from engine.core.history import Hand, RunView, StepView

_APPROVAL = "approval"


def people(view: RunView) -> list[Hand]:
    """In order of time. An approval names its role and the step that asked."""
    approved = [
        Hand(str(step.evidence["by"]), _approved(step), str(step.evidence.get("at", "")))
        for step in view.steps.values()
        if step.action == _APPROVAL and step.evidence.get("by")
    ]
    return sorted([*view.hands, *approved], key=lambda hand: hand.at)


def _approved(step: StepView) -> str:
    role = step.evidence.get("role")
    return f"approved {step.id}" + (f" as {role}" if role else "")
