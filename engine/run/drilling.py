"""One drill under way: what its stages share, and how they write to the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from engine.core.action import CheckSpec, Context, Deadline
from engine.core.change import Outcome
from engine.core.drill import SENTINELS, Drill, SentinelStore, Stage
from engine.core.events import Event, EventType
from engine.core.history import RunStatus, RunView, StepStatus
from engine.core.model import Step, StepId
from engine.core.parts import Parts
from engine.core.resolved import Resolved
from engine.errors import NotYetError, RunbookError, TemporaryError
from engine.run.recorder import Recorder
from engine.run.sentinels import SentinelLog
from engine.run.session import Session
from engine.run.steps import StepRunner

STANDS = 1
"""Exit code: the drill did not succeed, the platform stands."""
BROKEN = 5
"""Exit code: the platform is not back."""
LOOK_SECONDS = 0.5
"""Between two looks at the same thing."""
_PATIENCE = timedelta(minutes=1)  # for reading the sentinels back, and for taking them away
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Drilling:
    """A drill, whether it has just begun or is taken up after a crash."""

    session: Session
    plan: Drill
    recorder: Recorder
    runner: StepRunner
    go: bool
    """The word to recover is given already."""

    @property
    def view(self) -> RunView:
        return self.recorder.view

    @property
    def parts(self) -> Parts:
        return self.session.deployer

    @property
    def log(self) -> SentinelLog:
        return SentinelLog.of(self.session.state, self.view.id)

    def events(self) -> list[Event]:
        return self.session.journal.events(self.view.id)

    def registered(self) -> Mapping[str, Any]:
        """What the drill's own steps put out so far."""
        steps = (*self.plan.prepare, *self.plan.recover)
        return self.view.registered({s.id: s.register for s in steps if s.register})

    def ready(self, step: Step, deadline: Deadline | None = None) -> tuple[Resolved, Context]:
        resolved = self.parts.resolver.resolve(step, {})
        return resolved, self.parts.context(step, resolved, deadline=deadline)

    def store(self, deadline: Deadline | None = None) -> tuple[SentinelStore, Any, Context]:
        """Where sentinels are kept, with its parameters and a context."""
        resolved, ctx = self.ready(self.plan.sentinels, deadline)
        return self.session.sentinels[self.plan.sentinels.action], resolved.params, ctx

    def read_sentinels(self) -> Mapping[int, str]:
        """Those that are there now."""
        store, params, ctx = self.store(self.parts.deadline(_PATIENCE))
        return _patiently(lambda: store.read(params, self.view.id, ctx), ctx)

    def clear_sentinels(self) -> str:
        """Take the sentinels away; what stands in the way of that is told, and no failure of the drill."""
        try:
            store, params, ctx = self.store(self.parts.deadline(_PATIENCE))
            _patiently(lambda: store.clear(params, self.view.id, ctx), ctx)
        except RunbookError as error:
            return f"the sentinels could not be taken away: {self.parts.redact(str(error))}"
        return ""

    # --- Journal ------------------------------------------------------------------------------------------------------

    def over(self, stage: Stage) -> bool:
        return stage in self.view.finished_phases

    def close(self, stage: Stage) -> None:
        self.recorder.record(EventType.PHASE_FINISHED, data={"phase": stage.value, "savepoint": False})

    def begin(self, step: StepId) -> None:
        self.recorder.record(EventType.STEP_STARTED, step)

    def outcome(self, step: StepId, outcome: Outcome) -> None:
        evidence = dict(outcome.evidence)
        data = {"summary": outcome.summary, "outputs": {}, "evidence": evidence, "change": None, "after": {}}
        self.recorder.record(EventType.OUTCOME, step, data)

    def end(self, step: StepId, status: StepStatus, reason: str = "") -> None:
        self.recorder.record(EventType.STEP_FINISHED, step, {"status": status.value, "reason": reason})

    def fail(self, step: StepId, told: str, kind: str) -> None:
        self.recorder.record(EventType.STEP_FAILED, step, {"error": self.parts.redact(told), "kind": kind})

    def fail_begun(self, error: RunbookError, otherwise: StepId) -> None:
        """The failure of whichever step was begun last and is not done."""
        begun = [s.id for s in self.view.steps.values() if s.status in (StepStatus.RUNNING, StepStatus.IN_DOUBT)]
        own = {s.id: s for s in (*self.plan.prepare, self.plan.fault, *self.plan.recover)}
        step = next((s for s in reversed(begun) if s != SENTINELS), begun[0] if begun else otherwise)
        told = self.parts.failure(own[step], error) if step in own else str(error)
        self.fail(step, told, type(error).__name__)

    def finish(self, status: RunStatus, code: int) -> RunView:
        """The run's last event. One that is only stopped keeps the environment."""
        self.recorder.record(EventType.RUN_FINISHED, data={"status": status.value, "exit": code})
        if not status.open:
            self.session.record.release()
        return self.view


def proving(step: StepId) -> StepId:
    """The drill's step that looks at the checks of a step of the runbook."""
    return StepId(f"verify/{step}")


def specs_of(session: Session, step: Step, resolved: Resolved) -> list[CheckSpec]:
    """Every check of a step; none where it is left out."""
    if resolved.skip:
        return []
    return [*session.deployer.actions[step.action].checks(resolved.params), *resolved.verify]


def _patiently(look: Callable[[], T], ctx: Context) -> T:
    """Until it answers, or the deadline passes."""
    while True:
        try:
            return look()
        except (TemporaryError, NotYetError) as error:
            if ctx.deadline.cancelled:
                raise
            if not ctx.deadline.remaining():
                raise type(error)(f"no answer within {_PATIENCE.total_seconds():.0f} s: {error}") from error
            ctx.deadline.wait(LOOK_SECONDS)
