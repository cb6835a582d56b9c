"""The deployment record as one HTML file that asks for nothing outside itself, from one run's fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.evidence import Beside
from engine.core.history import RunStatus, RunView, StepStatus, StepView
from engine.report import drill as drills
from engine.report import tally
from engine.report.people import people
from engine.report.readiness import drill_row, readiness_rows, verdict
from engine.report.record import flat, record_name
from engine.report.text import between, clean, clean_lines, count, duration

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATES = Path(__file__).parent / "templates"
_WORD = {True: "good", False: "bad"}
_TONES = {
    RunStatus.SUCCEEDED: "good",
    RunStatus.ROLLED_BACK: "bad",
    RunStatus.ROLLBACK_INCOMPLETE: "bad",
    RunStatus.FAILED: "bad",
    RunStatus.REFUSED: "bad",
}
_STEP_TONES = {
    StepStatus.CHANGED: "good",
    StepStatus.APPLIED: "good",
    StepStatus.UNCHANGED: "good",
    StepStatus.FAILED: "bad",
    StepStatus.UNDO_FAILED: "bad",
    StepStatus.IN_DOUBT: "warn",
    StepStatus.UNDOING: "warn",
    StepStatus.UNDONE: "warn",
}


@dataclass(frozen=True, slots=True)
class _Bar:
    """Where a phase lies in the run's time, in percent of the whole."""

    left: float
    width: float


def render_html(view: RunView, beside: Beside | None = None) -> str:
    """The whole document. The same view gives the same text. Every value is escaped by the template itself."""
    told = beside or Beside()
    return _template().render(
        view=view,
        title=view.title or view.runbook,
        tone=_TONES.get(view.status, "warn"),
        writing=tally.working(view),
        took=duration(tally.seconds(view)) if view.finished else "",
        name=record_name(view),
        measures=drills.measures(view),
        ending=drills.ending_lines(view) if view.kind == "drill" else [],
        parts=drills.parts(view),
        tiles=list(_tiles(view)),
        failure=clean_lines(view.failure) if view.failure else [],
        phases=tally.phases(view),
        bars=_bars(view),
        people=people(view),
        readiness=told.readiness,
        verdict=verdict(told.readiness) if told.readiness else "",
        criteria=readiness_rows(told.readiness) if told.readiness else [],
        drills=[drill_row(d) for d in told.drills],
        back=[s for s in view.steps.values() if s.status in (StepStatus.UNDONE, StepStatus.UNDO_FAILED)],
        residue=tally.with_residue(view),
        barriers=tally.without_way_back(view),
        commands=[f"runbook show {view.id}", f"runbook verify {view.environment}", "runbook history"],
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    environment.filters |= {
        "day": _day,
        "hour": _hour,
        "short": duration,
        "flat": _flat,
        "tone": _step_tone,
        "check_tone": lambda check: _WORD[check.ok],
        "took": lambda step: duration(between(step.started, step.finished)) if step.finished else "",
    }
    return environment.get_template("record.html.j2")


def _harmless(value: Any) -> Any:
    """What came from outside must not hide in control characters either. Markup of the template itself stays."""
    return clean(value) if type(value) is str else value


def _tiles(view: RunView) -> Iterator[tuple[str, str]]:
    checks = tally.checks(view)
    yield f"{tally.done(view)} of {len(view.steps)}", "steps done"
    yield str(tally.changed(view)), "changed"
    yield str(tally.unchanged(view)), "found as declared"
    yield f"{sum(c.ok for c in checks)} of {len(checks)}", "checks passed"
    if view.finished:
        yield duration(tally.seconds(view)), "from begin to end"
    if view.resumed:
        yield count(view.resumed, "time"), "resumed"


def _bars(view: RunView) -> Mapping[str, _Bar]:
    """Phases in the run's time. Empty where nothing can be compared: a run under way, or one that took no time."""
    whole = between(view.started, view.finished)
    if whole <= 0:
        return {}
    bars = {}
    for phase, (begun, ended) in view.phase_times.items():
        left = 100 * max(0.0, between(view.started, begun)) / whole
        width = 100 * max(0.0, between(begun, ended or view.finished)) / whole
        bars[phase] = _Bar(round(min(left, 99.5), 2), round(max(0.5, min(width, 100 - left)), 2))
    return bars


def _flat(data: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    return list(flat(data))


def _step_tone(step: StepView) -> str:
    return "bad" if step.error else _STEP_TONES.get(step.status, "none")


def _day(at: str) -> str:
    """`2026-11-24 14:02:00 UTC`; as it is when it is no time."""
    try:
        return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return at


def _hour(at: str) -> str:
    """The time of day alone: the day stands in the head of the document."""
    try:
        return f"{datetime.fromisoformat(at).astimezone(UTC):%H:%M:%S}"
    except ValueError:
        return at
