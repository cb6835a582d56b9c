"""Numbers of a run, counted from its view: what the live display, the summary and the JSON documents agree on."""

from __future__ import annotations

from dataclasses import dataclass

from engine.core.history import CheckView, RunStatus, RunView, StepStatus, StepView
from engine.report.text import between

TOUCHED = frozenset({StepStatus.CHANGED, StepStatus.APPLIED})


@dataclass(frozen=True, slots=True)
class PhaseTally:
    """One phase of a run. `seconds` up to its end, or up to the time asked for; 0 when it has not begun."""

    number: int
    id: str
    title: str
    steps: tuple[StepView, ...]
    seconds: float
    finished: bool

    @property
    def done(self) -> int:
        return sum(s.status.done for s in self.steps)

    @property
    def changed(self) -> int:
        return sum(s.status in TOUCHED for s in self.steps)

    @property
    def begun(self) -> bool:
        return any(s.status is not StepStatus.PENDING for s in self.steps)

    @property
    def broken(self) -> bool:
        return any(s.status in {StepStatus.FAILED, StepStatus.UNDO_FAILED} for s in self.steps) or any(
            s.error for s in self.steps
        )

    @property
    def sign(self) -> str:
        if self.broken:
            return "✗"
        if any(s.status is StepStatus.UNDONE for s in self.steps):
            return "-"
        if self.finished:
            return "✓"
        return "▸" if self.begun else "·"


def phases(view: RunView, now: str = "") -> list[PhaseTally]:
    """Every phase in order. `now` (ISO 8601) ends the clock of what still runs."""
    tallies = []
    for number, (phase, title) in enumerate(view.phases.items(), 1):
        steps = tuple(s for s in view.steps.values() if s.phase == phase)
        begun, ended = view.phase_times.get(phase, ("", ""))
        last = ended or (now if working(view) else view.finished)
        tallies.append(PhaseTally(number, phase, title, steps, between(begun, last), phase in view.finished_phases))
    return tallies


def phase_label(view: RunView, step: StepView) -> str:
    """`5 mesh`: a step's phase as the display numbers it."""
    return f"{list(view.phases).index(step.phase) + 1} {step.phase}" if step.phase in view.phases else step.phase


def changed(view: RunView) -> int:
    """How many steps changed something that still stands."""
    return sum(s.status in TOUCHED for s in view.steps.values())


def unchanged(view: RunView) -> int:
    return sum(s.status is StepStatus.UNCHANGED for s in view.steps.values())


def left_out(view: RunView) -> int:
    return sum(s.status is StepStatus.SKIPPED for s in view.steps.values())


def done(view: RunView) -> int:
    return sum(s.status.done for s in view.steps.values())


def checks(view: RunView) -> list[CheckView]:
    """Every check's last result."""
    return [c for s in view.steps.values() for c in s.checks.values()]


def idle(view: RunView) -> bool:
    """Did the run succeed without changing anything?"""
    return view.status is RunStatus.SUCCEEDED and not any(s.intents for s in view.steps.values())


def interrupted(view: RunView, held: bool) -> bool:
    """Did the process of an open run die? `held`: a living process holds the environment's lease."""
    return working(view) and not held


def working(view: RunView) -> bool:
    """Is the run under way, as far as the journal knows? Its process may have died: see `interrupted`."""
    return view.status in {RunStatus.RUNNING, RunStatus.ROLLING_BACK}


def seconds(view: RunView) -> float:
    """From the start to the end; of a run under way, 0."""
    return 0.0 if working(view) else between(view.started, view.finished)


def local(step: StepView | str) -> str:
    """A step's id without its phase."""
    return (step if isinstance(step, str) else step.id).partition("/")[2]


def with_residue(view: RunView) -> list[StepView]:
    """Steps that were begun and leave something on purpose."""
    return [s for s in view.steps.values() if s.intents and s.change and s.change.residue]


def without_way_back(view: RunView) -> list[StepView]:
    """Steps that were begun and cannot be undone."""
    return [s for s in view.steps.values() if s.intents and s.change and s.change.irreversible]
