"""Why a step of a run did what it did, told from its events in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from engine.core.change import Change, Verb
from engine.core.drill import FAULT
from engine.core.events import Event, EventType
from engine.core.history import RunView, StepView
from engine.core.model import StepId
from engine.errors import UsageError
from engine.report.plan import change_lines
from engine.report.tally import phase_label
from engine.report.text import clean, clean_lines, clip


def find_step(view: RunView, name: str) -> StepView:
    """A step by its id, or by its id within its phase. UsageError names what there is."""
    known = view.steps.values()
    found = [s for s in known if name == s.id] or [s for s in known if name == s.id.partition("/")[2]]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f'run {view.id} has several steps "{name}": {", ".join(s.id for s in found)}')
    close = [s.id for s in view.steps.values() if name in s.id] or list(view.steps)
    raise UsageError(f'run {view.id} has no step "{name}". Steps: {", ".join(close)}')


def why_lines(view: RunView, step: StepView, events: Iterable[Event], *, width: int = 0) -> list[str]:
    """The step's story: what was planned and why, what was seen, decided, done, proved and taken back."""
    known = list(events)
    lines = [
        f"{step.id}   {clean(step.name)}   {step.action}   {step.status.value}",
        f"run {view.id} of {view.environment}, phase {phase_label(view, step)}",
    ]
    lines += _waited(step.id, known)
    for event in known:
        lines += _told(step.id, event)
    if step.status.value == "pending":
        lines.append(f"· never begun: the run is {view.status.value}" + _because(view))
    return [clip(line, width) for line in lines]


def why_document(view: RunView, step: StepView, events: Iterable[Event]) -> dict[str, Any]:
    """The same for a program (schema 1): the step's change and its events as they stand in the journal."""
    known = list(events)
    return {
        "schema": 1,
        "run": view.id,
        "environment": view.environment,
        "step": step.id,
        "status": step.status.value,
        "needs": _needs(step.id, known),
        "change": step.change.to_json() if step.change else None,
        "events": [
            {"sequence": e.sequence, "at": e.at, "type": e.type.value, "data": dict(e.data)}
            for e in known
            if e.step == step.id
        ],
    }


def _because(view: RunView) -> str:
    return f", since {view.failed_step} failed" if view.failed_step else ""


def _needs(step: StepId, events: Sequence[Event]) -> list[str]:
    """Its direct needs, when the journal tells them."""
    for event in events:
        if event.type is EventType.RUN_STARTED:
            return [n for s in event.data["steps"] if s["id"] == step for n in s.get("needs", ())]
    return []


def _waited(step: StepId, events: Sequence[Event]) -> list[str]:
    needs = _needs(step, events)
    finished = [e for e in events if e.type is EventType.STEP_FINISHED and e.step in needs]
    begun = next((e for e in events if e.type is EventType.STEP_STARTED and e.step == step), None)
    if not needs:
        return []
    last = max((e for e in finished if begun is None or e.sequence < begun.sequence), key=_sequence, default=None)
    tail = f"; the last was {last.step}, {last.at[11:19]}Z" if last else ""
    return [f"waits for {', '.join(needs)}{tail}"]


def _sequence(event: Event) -> int:
    return event.sequence


def _told(step: StepId, event: Event) -> Iterator[str]:
    if event.type is EventType.RUN_STARTED:
        if event.data["kind"] == "drill":
            yield _line(event, f"drill {clean(event.data['drill']['id'])} begun: {clean(event.data['drill']['title'])}")
            return
        changes = [c for c in event.data["changes"] if c["step"] == step]
        left_out = f"left out: {clean(event.data.get('left_out', {}).get(step, 'not selected'))}"
        yield from _planned(event, changes[0], "planned") if changes else [_line(event, left_out)]
    elif event.type is EventType.ADDENDUM and event.step == step:
        yield from _planned(event, event.data["change"], "planned in its turn")
    elif event.type is EventType.RESUMED:
        yield _line(event, f"run resumed by {clean(event.data['holder'])}")
    elif event.step == step and event.type in _TOLD:
        yield from _TOLD[event.type](event)


def _planned(event: Event, document: dict[str, Any], what: str) -> Iterator[str]:
    change = Change.from_json(document)
    yield _line(event, f"{what}: {change.verb.value}, {change.fidelity.value}")
    yield from change_lines(change)
    if change.verb is Verb.NONE and not change.reason:
        yield "    what is live is what is wanted"
    if change.irreversible:
        yield f"    no way back: {clean(change.irreversible)}"


def _line(event: Event, text: str) -> str:
    return f"{event.at[11:19]}Z   {text}"


def _intent(event: Event) -> Iterator[str]:
    resuming = " (an earlier process had begun it; looked again first)" if event.data.get("resuming") else ""
    verdict = event.data.get("verdict", "apply")
    yield _line(event, f"read again: still as planned, so {clean(verdict)}{resuming}")
    references = event.data.get("preimage", {}).get("references", {})
    if references:
        what = "to be struck" if event.step == FAULT else "way back kept"
        yield f"    {what}: " + ", ".join(f"{k}={clean(str(v))[:60]}" for k, v in references.items())


def _checked(event: Event) -> Iterator[str]:
    data = event.data
    earlier = f" (proved {data['proved_at'][:19]}Z)" if data.get("proved_at") else ""
    yield _line(event, f"{'✓' if data['ok'] else '✗'} check {clean(data['check'])}: {clean(data['saw'])}{earlier}")


def _finished(event: Event) -> Iterator[str]:
    reason = clean(event.data.get("reason", ""))
    yield _line(event, f"{event.data['status']}{f': {reason}' if reason else ''}")


def _failed(event: Event) -> Iterator[str]:
    yield _line(event, "✗ failed")
    yield from (f"    {line}" for line in clean_lines(event.data["error"]))


def _said(text: str) -> Callable[[Event], Iterator[str]]:
    return lambda event: iter([_line(event, text)])


_TOLD: dict[EventType, Callable[[Event], Iterator[str]]] = {
    EventType.STEP_STARTED: _said("begun: everything it waits for is done"),
    EventType.INTENT: _intent,
    EventType.FENCED: _said("! not begun: another run holds the environment; the intent is void"),
    EventType.OUTCOME: lambda e: iter([_line(e, f"done: {clean(e.data['summary']) or 'applied'}")]),
    EventType.CHECKED: _checked,
    EventType.STEP_FINISHED: _finished,
    EventType.STEP_FAILED: _failed,
    EventType.UNDO_INTENT: _said("taking back"),
    EventType.UNDONE: lambda e: iter([_line(e, f"✓ taken back: {clean(e.data['detail'])}")]),
    EventType.UNDO_FAILED: lambda e: iter([_line(e, f"✗ not taken back: {clean(e.data['error'])}")]),
}
