"""Views of runs and steps, and the one fold over events that makes them: for status, resume, rollback, reports. Pure.

There is no second truth: whatever the engine knows of a run it knows from the journal's events, through `fold`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.core.change import Change, Fidelity, Preimage, Verb
from engine.core.events import Event, EventType
from engine.core.model import StepId


class StepStatus(StrEnum):
    """Where a step of a run stands."""

    PENDING = "pending"
    RUNNING = "running"
    IN_DOUBT = "in doubt"  # an intent, no outcome: nobody knows before looking
    APPLIED = "applied"  # outcome there, checks not yet through
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    UNDO_FAILED = "undo failed"

    @property
    def done(self) -> bool:
        return self in {StepStatus.CHANGED, StepStatus.UNCHANGED, StepStatus.SKIPPED}


class RunStatus(StrEnum):
    """Where a run stands."""

    RUNNING = "running"  # or its process died: see the environment's lease
    ROLLING_BACK = "rolling back"
    SUCCEEDED = "succeeded"
    ROLLED_BACK = "rolled back"
    ROLLBACK_INCOMPLETE = "rollback incomplete"
    FAILED = "failed"  # and left as it is
    REFUSED = "refused"
    STOPPED = "stopped"  # by the user; resumable
    ABANDONED = "abandoned"  # a drill that ended before anything was broken

    @property
    def open(self) -> bool:
        return self in {RunStatus.RUNNING, RunStatus.ROLLING_BACK, RunStatus.STOPPED}


@dataclass(slots=True)
class CheckView:
    """One check's last result."""

    check: str
    ok: bool
    saw: str
    at: str
    proved_at: str = ""
    """Set when an earlier proof counted instead of looking again."""


@dataclass(frozen=True, slots=True)
class Hand:
    """Who had a hand in a run, with what, when."""

    who: str
    what: str
    at: str


@dataclass(slots=True)
class StepView:
    """One step of one run, as the journal tells it."""

    id: StepId
    phase: str
    name: str
    action: str
    status: StepStatus = StepStatus.PENDING
    change: Change | None = None
    """The plan's, or the addendum's once planned in its turn."""
    preimage: Preimage | None = None
    """Of the first intent: what undo goes back to."""
    intents: int = 0
    open_intent: bool = False
    summary: str = ""
    error: str = ""
    reason: str = ""
    started: str = ""
    finished: str = ""
    outputs: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    checks: dict[str, CheckView] = field(default_factory=dict)
    undo_detail: str = ""

    @property
    def stands(self) -> bool:
        """It began to act, and was not taken back since."""
        return self.intents > 0 and self.status is not StepStatus.UNDONE

    @property
    def verb(self) -> Verb:
        return self.change.verb if self.change else Verb.NONE

    @property
    def fidelity(self) -> Fidelity:
        return self.change.fidelity if self.change else Fidelity.OPAQUE


@dataclass(slots=True)
class RunView:
    """One run, as the journal tells it."""

    id: str
    kind: str = "deploy"
    """`deploy`, `verify` or `drill`."""
    environment: str = ""
    runbook: str = ""
    title: str = ""
    status: RunStatus = RunStatus.RUNNING
    started: str = ""
    finished: str = ""
    holder: str = ""
    """`user@host`."""
    pid: int = 0
    now: str = ""
    """The run's frozen time, ISO 8601."""
    inputs: str = ""
    plan_digest: str = ""
    drill: Mapping[str, Any] = field(default_factory=dict)
    """Of a drill: `id`, `title`, `targets` in seconds, `by` whom, and whether the word to recover was given (`go`)."""
    phases: dict[str, str] = field(default_factory=dict)
    """Phase id -> title, in order."""
    finished_phases: list[str] = field(default_factory=list)
    savepoints: list[str] = field(default_factory=list)
    """Finished phases to which a failure rolls back."""
    phase_times: dict[str, tuple[str, str]] = field(default_factory=dict)
    steps: dict[StepId, StepView] = field(default_factory=dict)
    failure: str = ""
    failed_step: str = ""
    rollback_to: str = ""
    exit_code: int | None = None
    head: str = ""
    """Hash of the run's last event."""
    sequence: int = 0
    resumed: int = 0
    hands: list[Hand] = field(default_factory=list)
    """Who began it and who resumed it, in order; approvals are in their steps' evidence."""

    @property
    def broken(self) -> bool:
        """Of a drill: it is over, and the platform did not come back."""
        return self.kind == "drill" and not self.status.open and self.exit_code == 5

    def registered(self, names: Mapping[StepId, str]) -> dict[str, Any]:
        """What finished steps registered: variable name -> outputs. `names`: step -> its `register`."""
        return {names[s.id]: dict(s.outputs) for s in self.steps.values() if s.id in names and s.outputs}


def runs(events: Iterable[Event]) -> dict[str, RunView]:
    """Every run in the journal, oldest first. An event without a run (an attestation) belongs to none."""
    views: dict[str, RunView] = {}
    for event in (e for e in events if e.run):
        fold(views.setdefault(event.run, RunView(event.run)), event)
    return views


def fold(view: RunView, event: Event) -> None:
    """Advance a run's view by one event."""
    if event.step:
        step = view.steps.get(event.step)
        if step is not None:
            _fold_step(step, event)
    _FOLD_RUN.get(event.type, _nothing)(view, event)
    view.head, view.sequence = event.hash, event.sequence


def _nothing(_view: RunView, _event: Event) -> None:
    return None


def _run_started(view: RunView, event: Event) -> None:
    data = event.data
    view.kind, view.drill = data["kind"], data.get("drill", {})
    view.environment, view.runbook, view.title = data["environment"], data["runbook"], data["title"]
    view.holder, view.pid, view.now, view.inputs = data["holder"], data["pid"], data["now"], data["inputs"]
    view.phases, view.started, view.status = dict(data["phases"]), event.at, RunStatus.RUNNING
    for step in data["steps"]:
        step_id = StepId(step["id"])
        view.steps[step_id] = StepView(step_id, step["phase"], step["name"], step["action"])
    view.hands.append(Hand(view.holder, "began", event.at))
    view.plan_digest = data["plan"]
    for document in data["changes"]:
        change = Change.from_json(document)
        view.steps[change.step].change = change


def _resumed(view: RunView, event: Event) -> None:
    view.resumed += 1
    view.holder, view.pid = event.data["holder"], event.data["pid"]
    view.hands.append(Hand(view.holder, "resumed", event.at))
    if view.status is RunStatus.STOPPED:
        view.status = RunStatus.ROLLING_BACK if view.rollback_to else RunStatus.RUNNING
    elif view.kind == "drill":  # one that could not recover is taken up until it can
        view.status, view.failure, view.failed_step = RunStatus.RUNNING, "", ""
    view.exit_code = None


def _step_failed(view: RunView, event: Event) -> None:
    if not view.failure:
        view.failure, view.failed_step = event.data["error"], event.step


def _step_started(view: RunView, event: Event) -> None:
    phase = view.steps[event.step].phase
    begun, ended = view.phase_times.get(phase, (event.at, ""))
    view.phase_times[phase] = (begun, ended)


def _phase_finished(view: RunView, event: Event) -> None:
    phase = event.data["phase"]
    view.finished_phases.append(phase)
    if event.data["savepoint"]:
        view.savepoints.append(phase)
    view.phase_times[phase] = (view.phase_times.get(phase, (event.at, ""))[0], event.at)


def _rollback_started(view: RunView, event: Event) -> None:
    view.status, view.rollback_to, view.exit_code = RunStatus.ROLLING_BACK, event.data["to"], None
    if event.data["whole"]:
        view.savepoints.clear()


def _run_finished(view: RunView, event: Event) -> None:
    view.status, view.finished, view.exit_code = RunStatus(event.data["status"]), event.at, event.data["exit"]


_FOLD_RUN = {
    EventType.RUN_STARTED: _run_started,
    EventType.RESUMED: _resumed,
    EventType.STEP_STARTED: _step_started,
    EventType.STEP_FAILED: _step_failed,
    EventType.PHASE_FINISHED: _phase_finished,
    EventType.ROLLBACK_STARTED: _rollback_started,
    EventType.RUN_FINISHED: _run_finished,
}


def _fold_step(step: StepView, event: Event) -> None:
    _FOLD_STEP.get(event.type, _nothing_of_step)(step, event)


def _nothing_of_step(_step: StepView, _event: Event) -> None:
    return None


def _begun(step: StepView, event: Event) -> None:
    step.started, step.error = step.started or event.at, ""
    if not step.open_intent and step.status is not StepStatus.APPLIED:
        step.status = StepStatus.RUNNING


def _addendum(step: StepView, event: Event) -> None:
    step.change = Change.from_json(event.data["change"])


def _intent(step: StepView, event: Event) -> None:
    step.intents += 1
    step.open_intent, step.status = True, StepStatus.IN_DOUBT
    step.preimage = step.preimage or Preimage.from_json(event.data["preimage"])


def _fenced(step: StepView, event: Event) -> None:
    """The intent before it is void: its effect was never begun."""
    if event.data["undo"]:
        return
    step.intents -= 1
    step.open_intent = step.intents > 0
    step.preimage = step.preimage if step.intents else None


def _outcome(step: StepView, event: Event) -> None:
    data = event.data
    step.open_intent, step.status = False, StepStatus.APPLIED
    step.summary, step.outputs, step.evidence = data["summary"], data["outputs"], data["evidence"]
    if data.get("change"):
        step.change = Change.from_json(data["change"])


def _checked(step: StepView, event: Event) -> None:
    data = event.data
    step.checks[data["check"]] = CheckView(data["check"], data["ok"], data["saw"], event.at, data.get("proved_at", ""))


def _step_finished(step: StepView, event: Event) -> None:
    step.status, step.reason = StepStatus(event.data["status"]), event.data.get("reason", "")
    step.finished = event.at


def _failed(step: StepView, event: Event) -> None:
    step.status, step.error, step.finished = StepStatus.FAILED, event.data["error"], event.at


def _undo_intent(step: StepView, _event: Event) -> None:
    step.status = StepStatus.UNDOING


def _undone(step: StepView, event: Event) -> None:
    step.status, step.undo_detail, step.open_intent = StepStatus.UNDONE, event.data["detail"], False


def _undo_failed(step: StepView, event: Event) -> None:
    step.status, step.undo_detail = StepStatus.UNDO_FAILED, event.data["error"]


_FOLD_STEP = {
    EventType.STEP_STARTED: _begun,
    EventType.ADDENDUM: _addendum,
    EventType.INTENT: _intent,
    EventType.FENCED: _fenced,
    EventType.OUTCOME: _outcome,
    EventType.CHECKED: _checked,
    EventType.STEP_FINISHED: _step_finished,
    EventType.STEP_FAILED: _failed,
    EventType.UNDO_INTENT: _undo_intent,
    EventType.UNDONE: _undone,
    EventType.UNDO_FAILED: _undo_failed,
}
