"""What a plan or a run is carried out with: actions, checks, files, time. Joined in outside.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event

from engine.core.action import Action, Check, Context, Deadline, Inputs, silent
from engine.core.events import Observer
from engine.core.model import Step
from engine.core.resolved import Resolved, Resolver


def _nobody(_question: str) -> bool | None:
    return None


@dataclass(frozen=True, slots=True)
class Parts:
    """One identity's set: the planner's may only read and dry-run, the deployer's may write."""

    actions: Mapping[str, Action]
    checks: Mapping[str, Check]
    resolver: Resolver
    inputs: Inputs
    now: datetime
    cancelled: Event
    observer: Observer
    redact: Callable[[str], str]
    ask: Callable[[str], bool | None] = _nobody
    """A question to the person at the terminal; None when nobody can be asked."""

    def deadline(self, within: timedelta) -> Deadline:
        """From now on, or until the user asks to stop."""
        return Deadline.after(within, self.cancelled)

    def failure(self, step: Step, error: BaseException) -> str:
        """An error as it may be kept: of a sensitive step its words may quote what it put out."""
        if step.sensitive:
            return f"{step.id}: {type(error).__name__}; its words are not kept, the step is `sensitive`"
        return self.redact(str(error))

    def context(
        self,
        step: Step,
        resolved: Resolved,
        *,
        key: str | None = None,
        resuming: bool = False,
        deadline: Deadline | None = None,
    ) -> Context:
        """The context of one call; its deadline is the step's `timeout` unless one is given."""
        return Context(
            step=step.id,
            inputs=self.inputs,
            now=self.now,
            deadline=deadline or self.deadline(step.timeout),
            key=key,
            fresh=step.fresh,
            variables=resolved.variables,
            unless=resolved.unless,
            undo_params=resolved.undo,
            progress=silent if step.sensitive else lambda line: self.observer.progress(step.id, self.redact(line)),
            resuming=resuming,
        )
