"""One picture of a running run, as lines: phases, what runs now, what failed. Pure; the live display draws it again
and again."""

from __future__ import annotations

from collections.abc import Mapping

from engine.core.change import Change
from engine.core.history import RunStatus, RunView, StepStatus, StepView
from engine.core.model import StepId
from engine.core.planning import barrier
from engine.report.summary import STOPPING, header, savepoint
from engine.report.tally import PhaseTally, local, phases
from engine.report.text import between, clean, clip, columns, duration, wrap

_ACTIVE = frozenset({StepStatus.RUNNING, StepStatus.IN_DOUBT, StepStatus.APPLIED, StepStatus.UNDOING})
_SHOWN = frozenset({*_ACTIVE, StepStatus.FAILED, StepStatus.UNDONE, StepStatus.UNDO_FAILED})
_SIGNS = {
    StepStatus.PENDING: "·",
    StepStatus.CHANGED: "✓",
    StepStatus.UNCHANGED: "=",
    StepStatus.SKIPPED: "·",
    StepStatus.FAILED: "✗",
    StepStatus.UNDONE: "-",
    StepStatus.UNDO_FAILED: "✗",
}
_RECENT = 3
"""How many finished steps of a running phase stay in sight when there is room."""
_LOW = 12
"""Below so many lines the header is one line."""
_HINT = "Ctrl-C once: finish what runs, then stop (resumable)"


def frame_lines(
    view: RunView, progress: Mapping[StepId, str], now: str, *, width: int, height: int, stopping: bool = False
) -> list[str]:
    """At most `height` lines of at most `width` characters. What does not fit goes in this order: steps to come,
    steps just done, phases far from the running one."""
    foot = STOPPING if stopping else _HINT
    head = [*wrap(header(view), width, ""), *_way_back(view), ""] if height >= _LOW else [header(view)]
    room = max(2, height - len(head) - 1)
    tallies = phases(view, now)
    active = [p for p in tallies if any(s.status in _SHOWN for s in p.steps)]
    body = _body(tallies, {p.id: _rows(p, progress, now, extra=True) for p in active})
    if len(body) > room:
        body = _body(tallies, {p.id: _rows(p, progress, now, extra=False) for p in active})
    if len(body) > room:
        body = _window(body, room)
    return [clip(line, width) for line in [*head, *body, foot]]


def step_sign(step: StepView) -> str:
    """One character for where a step stands."""
    return "✗" if step.error else _SIGNS.get(step.status, "▸")


def step_word(step: StepView) -> str:
    """The status as the display says it."""
    going = step.status in {*_ACTIVE, StepStatus.PENDING} and step.status is not StepStatus.UNDOING
    return step.verb.value if going else step.status.value


def _way_back(view: RunView) -> list[str]:
    if view.status is RunStatus.ROLLING_BACK:
        return [f"! rolling back to {savepoint(view)}"]
    changes: list[Change] = [s.change for s in view.steps.values() if s.change is not None]
    first = barrier(changes)
    if first is None:
        return ["way back: yes"] if changes else []
    return [f'way back until step "{first.step}"; after it: {clean(first.irreversible or "")}']


def _body(tallies: list[PhaseTally], rows: Mapping[str, list[list[str]]]) -> list[str]:
    """A line per phase, under the active ones their steps; all steps' columns agree."""
    heads = dict(
        zip((p.id for p in tallies), columns(map(_phase_row, tallies), right=(0, 3, 4), indent=" "), strict=True)
    )
    every = [row for phase in tallies for row in rows.get(phase.id, ())]
    steps = iter(columns(every, right=(3,), indent="     "))
    return [line for p in tallies for line in (heads[p.id], *(next(steps) for _ in rows.get(p.id, ())))]


def _phase_row(phase: PhaseTally) -> list[str]:
    time = duration(phase.seconds) if phase.begun else ""
    return [str(phase.number), clean(phase.title), phase.sign, f"{phase.done}/{len(phase.steps)}", time]


def _rows(phase: PhaseTally, progress: Mapping[StepId, str], now: str, *, extra: bool) -> list[list[str]]:
    shown = [s for s in phase.steps if s.status in _SHOWN]
    if extra and any(s.status in _ACTIVE for s in shown):
        shown += sorted((s for s in phase.steps if s.status.done), key=lambda s: s.finished)[-_RECENT:]
        shown += [s for s in phase.steps if s.status is StepStatus.PENDING][:1]
    order = {s.id: i for i, s in enumerate(phase.steps)}
    return [_step_row(s, progress.get(s.id, ""), now) for s in sorted(shown, key=lambda s: order[s.id])]


def _step_row(step: StepView, line: str, now: str) -> list[str]:
    time = between(step.started, step.finished or now)
    return [
        f"{step_sign(step)} {local(step)}",
        step.action,
        step_word(step),
        duration(time) if step.started else "",
        _said(step, line),
    ]


def _said(step: StepView, line: str) -> str:
    if step.status in _ACTIVE:
        return clean(line)
    if step.status is StepStatus.FAILED:
        return clean(step.error.partition("\n")[0])
    if step.status in {StepStatus.UNDONE, StepStatus.UNDO_FAILED}:
        return clean(step.undo_detail)
    passed = sum(c.ok for c in step.checks.values())
    return f"{passed} check{'' if passed == 1 else 's'}" if passed else ""


def _window(body: list[str], room: int) -> list[str]:
    """The part of the body around its first running line."""
    middle = next((i for i, line in enumerate(body) if "▸" in line or "✗" in line), 0)
    start = max(0, min(middle - 1, len(body) - room))
    cut = body[start : start + room]
    if start:
        cut[0] = f" … {start + 1} more above"
    below = len(body) - start - room
    if below > 0:
        cut[-1] = f" … {below + 1} more below"
    return cut
