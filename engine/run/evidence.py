"""What earlier events left in the journal: a port for actions that cannot leave evidence anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from engine.core.action import Context
from engine.core.history import StepStatus, StepView, runs
from engine.run.journal import Journal


class JournalEvidence:
    """Port Evidence, over the runs of one environment."""

    def __init__(self, journal: Journal, environment: str) -> None:
        self._journal, self._environment = journal, environment

    def find(self, ctx: Context) -> Mapping[str, Any] | None:
        """See core.ports.Evidence. What was taken back is no evidence."""
        for run in reversed(runs(self._journal.events()).values()):
            step = run.steps.get(ctx.step)
            if run.environment != self._environment or step is None or not _happened(step):
                continue
            if ctx.key is not None:
                if ctx.key == f"{run.id}/{step.id}":
                    return step.evidence
            elif ctx.fresh and ctx.now - datetime.fromisoformat(step.finished or step.started) <= ctx.fresh:
                return step.evidence
        return None


def _happened(step: StepView) -> bool:
    return bool(step.evidence) and not step.open_intent and step.status is not StepStatus.UNDONE
