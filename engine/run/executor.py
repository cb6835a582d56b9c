"""A run from its first ready step to its end: in order, several at once, back on failure, stoppable and resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from engine.core.events import EventType
from engine.core.history import RunStatus, RunView, StepStatus
from engine.core.model import OnFailure, Phase, Runbook, Step, StepId
from engine.core.order import Graph
from engine.core.parts import Parts
from engine.errors import CancelledError, InDoubtError, RefusedError, RunbookError
from engine.run.recorder import Recorder
from engine.run.rollback import rollback
from engine.run.steps import StaleError, StepRunner

WORKERS = 4

EXIT_CODES = {
    RunStatus.SUCCEEDED: 0,
    RunStatus.ROLLED_BACK: 1,
    RunStatus.ROLLBACK_INCOMPLETE: 3,
    RunStatus.REFUSED: 4,
    RunStatus.FAILED: 5,
    RunStatus.STOPPED: 130,
}


class Executor:
    """Carries one run to its end, whether it has just begun or is taken up after a crash."""

    def __init__(self, runbook: Runbook, parts: Parts, recorder: Recorder, runner: StepRunner) -> None:
        self._runbook, self._parts, self._recorder, self._runner = runbook, parts, recorder, runner
        self._graph = Graph(runbook)
        self._steps: dict[StepId, Step] = {s.id: s for s in runbook.steps()}
        self._names = {s.id: s.register for s in runbook.steps() if s.register}
        self._failures: dict[StepId, BaseException] = {}
        self._doubt: InDoubtError | None = None

    @property
    def view(self) -> RunView:
        return self._recorder.view

    def run(self) -> RunStatus:
        """Go on from wherever the journal says the run is. The run's last event is written here.

        InDoubtError when an action cannot know whether its effect happened: the run stays open.
        """
        if self.view.status is RunStatus.ROLLING_BACK:
            return self._finish(self._roll_back(None))
        try:
            self._forward()
        except CancelledError:
            return self._finish(RunStatus.STOPPED)
        if self._parts.cancelled.is_set():
            return self._finish(RunStatus.STOPPED)
        if self._doubt:
            raise self._doubt
        if not self.view.failure:
            return self._finish(RunStatus.SUCCEEDED)
        return self._finish(self._after_failure())

    def _forward(self) -> None:
        """Start whatever is ready until all is done, something failed, or the user asked to stop."""
        running: dict[Future[StepStatus], StepId] = {}
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="step") as pool:
            while True:
                self._close_phases()
                stop = self.view.failure or self._doubt or self._parts.cancelled.is_set()
                for step_id in () if stop else self._ready(set(running.values())):
                    running[pool.submit(self._one, self._steps[step_id])] = step_id
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    self._collect(running.pop(future), future)

    def _ready(self, started: set[StepId]) -> Sequence[StepId]:
        done = {s for s, view in self.view.steps.items() if view.status.done}
        failed = {s for s, view in self.view.steps.items() if view.status is StepStatus.FAILED}
        return self._graph.ready(done, failed, started)

    def _one(self, step: Step) -> StepStatus:
        changed = {s for s, view in self.view.steps.items() if view.intents}
        moved = bool(changed & self._graph.ancestors(step.id))
        return self._runner.run(step, self._registered(), moved=moved)

    def _collect(self, step_id: StepId, future: Future[StepStatus]) -> None:
        error = future.exception()
        if error is None:
            return
        if isinstance(error, CancelledError) or not isinstance(error, RunbookError):
            raise error
        if isinstance(error, InDoubtError):  # no failure: the run stays open until a person has looked
            self._doubt = error
            return
        self._failures[step_id] = error
        self._recorder.record(
            EventType.STEP_FAILED,
            step_id,
            {"error": self._parts.failure(self._steps[step_id], error), "kind": type(error).__name__},
        )

    def _close_phases(self) -> None:
        """A phase whose steps are all done is finished; unless it says otherwise it is a savepoint."""
        for phase in self._runbook.phases:
            if phase.id in self.view.finished_phases:
                continue
            if all(self.view.steps[s.id].status.done for s in phase.steps):
                self._recorder.record(EventType.PHASE_FINISHED, data={"phase": phase.id, "savepoint": phase.savepoint})

    def _after_failure(self) -> RunStatus:
        failed = StepId(self.view.failed_step)
        error = self._failures.get(failed)
        step = self._steps[failed]
        decision = step.on_failure or self._phase(step).on_failure
        if decision is OnFailure.STOP or (decision is OnFailure.ASK and not self._wants_back(step)):
            return RunStatus.FAILED
        spare = failed if isinstance(error, StaleError) else None
        status = self._roll_back(spare)
        if isinstance(error, RefusedError) and status is RunStatus.ROLLED_BACK:
            return RunStatus.REFUSED
        return status

    def _wants_back(self, step: Step) -> bool:
        """A person's word. Where nobody can be asked all is left as it is: `runbook rollback` takes it back later."""
        question = f"{step.id} failed. Roll its phase back? Type yes or no, then Enter"
        self._parts.observer.progress(step.id, question)
        return bool(self._parts.ask(question))

    def _roll_back(self, spare: StepId | None) -> RunStatus:
        order = [self._steps[s] for s in self._graph.order]
        try:
            complete = rollback(order, self._registered(), self._parts, self._recorder, self._runner, spare=spare)
        except CancelledError:
            return RunStatus.STOPPED
        return RunStatus.ROLLED_BACK if complete else RunStatus.ROLLBACK_INCOMPLETE

    def _finish(self, status: RunStatus) -> RunStatus:
        """Write the run's end. A stopped run stays open: `resume` takes it up."""
        self._recorder.record(EventType.RUN_FINISHED, data={"status": status.value, "exit": EXIT_CODES[status]})
        return status

    def _registered(self) -> Mapping[str, Any]:
        return self.view.registered(self._names)

    def _phase(self, step: Step) -> Phase:
        return self._runbook.phase(step.phase)
