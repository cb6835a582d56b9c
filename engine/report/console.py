"""A run on a terminal: one picture that is redrawn while it goes on. Anything else gets plain lines."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TextIO

from engine.core.events import Event, EventType, Observer
from engine.core.history import RunView, fold
from engine.core.model import StepId
from engine.report.frame import frame_lines
from engine.report.plain import PlainConsole, check_line
from engine.report.text import clean, clip, duration, paint

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.live import Live
    from rich.text import Text

FRAMES = 6
"""Redraws a second."""
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Console(Observer, Protocol):
    """Whoever shows a run, and what a command may tell it beside events."""

    view: RunView | None

    def replay(self, events: Iterable[Event]) -> None:
        """Take in what an earlier process of the run did."""

    def doing(self, what: str) -> None:
        """What goes on while there is no event: `reading 68 steps`."""

    def stopping(self) -> None:
        """The user asked to stop; safe in a signal handler."""

    def close(self) -> None:
        """Give the terminal back. Twice is fine."""


def console_for(stream: TextIO, *, verbose: bool = False, colour: bool = True) -> Console:
    """Live on a terminal that can move its cursor, else plain lines."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveConsole(stream, verbose=verbose, colour=colour)
    return PlainConsole(stream, verbose=verbose)


def _utc() -> str:
    return datetime.now(UTC).isoformat()


class LiveConsole:
    """Draws the run in place and leaves nothing behind: the summary that follows holds everything.

    Its lock is never held while rich is called, since rich calls back under a lock of its own.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        verbose: bool = False,
        colour: bool = True,
        clock: Callable[[], str] = _utc,
        rich: RichConsole | None = None,
    ) -> None:
        self.view: RunView | None = None
        self._verbose, self._colour, self._clock = verbose, colour, clock
        self._lock = threading.RLock()
        self._progress: dict[StepId, str] = {}
        self._doing: tuple[str, str] | None = None
        self._stopping = False
        self._rich = rich or _rich_console(stream, colour)
        self._live: Live | None = None

    def replay(self, events: Iterable[Event]) -> None:
        with self._lock:
            for event in events:
                self._fold(event)

    def event(self, event: Event) -> None:
        with self._lock:
            self._fold(event)
            if event.type in {EventType.STEP_STARTED, EventType.UNDO_INTENT}:
                self._progress.pop(event.step, None)
            self._doing = None
        self._start()
        if event.type is EventType.CHECKED and self._verbose:
            self._above(check_line(event))

    def progress(self, step: StepId, line: str) -> None:
        with self._lock:
            self._progress[step] = clean(line)

    def doing(self, what: str) -> None:
        with self._lock:
            self._doing = (what, self._clock())
        self._start()

    def stopping(self) -> None:
        self._stopping = True

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            self._quietly(live.stop)

    def lines(self) -> list[str]:
        """The picture now."""
        width, height = self._rich.size
        with self._lock:
            if self._doing is not None:
                return self._doing_lines(width, *self._doing)
            if self.view is None or not self.view.steps:
                return []
            return frame_lines(
                self.view, self._progress, self._clock(), width=width, height=height - 1, stopping=self._stopping
            )

    def _doing_lines(self, width: int, what: str, since: str) -> list[str]:
        now = datetime.fromisoformat(self._clock())
        passed = (now - datetime.fromisoformat(since)).total_seconds()
        turn = _SPINNER[int(passed * FRAMES) % len(_SPINNER)]
        said = next(reversed(self._progress.items()), None)
        last = f"   {said[0]}: {said[1]}" if said else ""
        return [clip(f"{turn} {clean(what)}…   {duration(passed)}{last}", width)]

    def _fold(self, event: Event) -> None:
        if self.view is None or self.view.id != event.run:
            self.view = RunView(event.run)
        fold(self.view, event)

    def _start(self) -> None:
        if self._live is None:
            from rich.live import Live

            self._live = Live(
                console=self._rich,
                get_renderable=self._picture,
                refresh_per_second=FRAMES,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            self._quietly(self._live.start)

    def _picture(self) -> Text:
        from rich.text import Text

        painted = "\n".join(paint(line, self._colour) for line in self.lines())
        text = Text.from_ansi(painted, no_wrap=True, overflow="crop")
        text.end = ""
        return text

    def _above(self, line: str) -> None:
        from rich.text import Text

        text = Text.from_ansi(paint(line, self._colour))
        self._quietly(lambda: self._rich.print(text, soft_wrap=True))

    def _quietly(self, draw: Callable[[], object]) -> None:
        """Draw; a terminal that went away never stops the run."""
        try:
            draw()
        except (OSError, ValueError):
            self._live = None


def _rich_console(stream: TextIO, colour: bool) -> RichConsole:
    from rich.console import Console as Rich

    return Rich(file=stream, no_color=not colour, highlight=False, markup=False, emoji=False)
