"""One place through which a run's events go: to disk first, then into the run's view, then to whoever watches."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from engine.core.events import Event, EventType, Observer
from engine.core.history import RunView, fold
from engine.run.journal import Journal


class Recorder:
    """Appends a run's events and keeps its view current. Thread-safe."""

    def __init__(self, journal: Journal, view: RunView, observer: Observer) -> None:
        self.journal, self.view, self._observer = journal, view, observer
        self._lock = threading.Lock()

    def record(self, kind: EventType, step: str = "", data: Mapping[str, Any] | None = None) -> Event:
        """Write, fold, show; in that order."""
        with self._lock:
            event = self.journal.append(kind, self.view.id, step, data)
            fold(self.view, event)
        self._observer.event(event)
        return event
