"""A run for a pipe or a log file: one plain line per event, with its time; progress lines not too often."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

from engine.core.change import Verb
from engine.core.events import Event, EventType
from engine.core.history import RunView, StepStatus, StepView, fold
from engine.core.model import StepId
from engine.report.summary import STOPPING, header, savepoint
from engine.report.tally import phase_label
from engine.report.text import between, clean, count, duration

PROGRESS_SECONDS = 10.0
"""A step's progress is written at most this often, and only when it changed."""


class PlainConsole:
    """An Observer that writes lines. A stream that goes away (a closed pipe) never stops the run."""

    def __init__(
        self, stream: TextIO, *, verbose: bool = False, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.view: RunView | None = None
        self._stream, self._verbose, self._monotonic = stream, verbose, monotonic
        self._lock = threading.RLock()
        self._said: dict[StepId, tuple[float, str]] = {}

    def replay(self, events: Iterable[Event]) -> None:
        """Take in what an earlier process of the run did, without writing it."""
        with self._lock:
            for event in events:
                self._fold(event)

    def event(self, event: Event) -> None:
        with self._lock:
            view = self._fold(event)
            step = view.steps.get(event.step)
            for line in _lines(view, step, event, self._verbose):
                self._write(event.at, line)

    def progress(self, step: StepId, line: str) -> None:
        with self._lock:
            now, (last, said) = self._monotonic(), self._said.get(step, (-PROGRESS_SECONDS, ""))
            if line != said and now - last >= PROGRESS_SECONDS:
                self._said[step] = (now, line)
                self._write(_now(), f"  {step}   {clean(line)}")

    def doing(self, what: str) -> None:
        with self._lock:
            self._write(_now(), clean(what))

    def stopping(self) -> None:
        """The user asked to stop. Called from a signal handler: no lock, one write."""
        self._write(_now(), STOPPING)

    def close(self) -> None:
        """Nothing to put back."""

    def _fold(self, event: Event) -> RunView:
        if self.view is None:
            self.view = RunView(event.run)
        fold(self.view, event)
        return self.view

    def _write(self, at: str, line: str) -> None:
        try:
            print(f"{at[:19]}Z {line}", file=self._stream, flush=True)
        except (OSError, ValueError):  # the reader went away; the run is worth more than its display
            return


def _lines(view: RunView, step: StepView | None, event: Event, verbose: bool) -> Iterator[str]:
    if event.type is EventType.CHECKED:
        if verbose or not event.data["ok"]:
            yield "  " + check_line(event)
    elif step is not None:
        yield from _step_lines(view, step, event)
    elif event.type in _RUN_LINES:
        yield _RUN_LINES[event.type](view, event)


def check_line(event: Event) -> str:
    """What one check saw."""
    data = event.data
    earlier = f" (proved {data['proved_at']})" if data.get("proved_at") else ""
    return f"{'✓' if data['ok'] else '✗'} {event.step}   check {clean(data['check'])}: {clean(data['saw'])}{earlier}"


def _step_lines(view: RunView, step: StepView, event: Event) -> Iterator[str]:
    took = duration(between(step.started, event.at))
    error = clean(str(event.data.get("error", "")).replace("\n", " | "))
    if event.type is EventType.STEP_STARTED:
        if step.change is None or step.verb is not Verb.NONE:
            yield f"▸ {step.id}   {step.action}" + (f"   {step.verb.value}" if step.change else "")
    elif event.type is EventType.STEP_FINISHED:
        yield _finished(step, took)
    elif event.type is EventType.STEP_FAILED:
        yield f'✗ {step.id}   phase {phase_label(view, step)}: step "{clean(step.name)}" failed after {took}: {error}'
    elif event.type is EventType.ADDENDUM and step.change is not None:
        yield f"  {step.id}   planned in its turn: {step.verb.value}, {step.fidelity.value}"
    elif event.type is EventType.FENCED:
        yield f"! {step.id}   not begun: another run holds the environment"
    elif event.type is EventType.UNDO_INTENT:
        yield f"▸ {step.id}   taking back"
    elif event.type is EventType.UNDONE:
        yield f"✓ {step.id}   taken back: {clean(step.undo_detail)}"
    elif event.type is EventType.UNDO_FAILED:
        yield f"✗ {step.id}   not taken back: {error}"


def _finished(step: StepView, took: str) -> str:
    checks = f", {count(len(step.checks), 'check')}" if step.checks else ""
    summary = f"   {clean(step.summary)}" if step.summary else ""
    if step.status is StepStatus.CHANGED:
        return f"✓ {step.id}   {step.verb.value if step.change else 'done'} in {took}{checks}{summary}"
    why = f"   {clean(step.reason)}" if step.reason else ""
    sign = "=" if step.status is StepStatus.UNCHANGED else "·"
    return f"{sign} {step.id}   {step.status.value}{checks}{why}"


def _phase_line(view: RunView, event: Event) -> str:
    phase = event.data["phase"]
    steps = [s for s in view.steps.values() if s.phase == phase]
    begun, ended = view.phase_times.get(phase, ("", ""))
    title = clean(view.phases.get(phase, phase))
    done = f"{sum(s.status.done for s in steps)}/{len(steps)}"
    return f"✓ phase {list(view.phases).index(phase) + 1} {title}   {done}   {duration(between(begun, ended))}"


_RUN_LINES: dict[EventType, Callable[[RunView, Event], str]] = {
    EventType.RUN_STARTED: lambda view, _: header(view),
    EventType.RESUMED: lambda view, _: f"run {view.id} resumed: {header(view)}",
    EventType.PHASE_FINISHED: _phase_line,
    EventType.ROLLBACK_STARTED: lambda view, _: f"! rolling back to {savepoint(view)}",
    EventType.RUN_FINISHED: lambda view, _: f"run {view.id} {view.status.value}",
}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
