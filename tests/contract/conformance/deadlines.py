"""A deadline that passes, or a cancellation that comes, at a chosen look: every place to stop an action."""

from __future__ import annotations

from threading import Event

from engine.core.action import Deadline


class Looked(Deadline):
    """Holds for `looks` looks at it, then is over (`cancel` False) or cancelled."""

    def __init__(self, looks: int, *, cancel: bool) -> None:
        self._cancel = Event()
        super().__init__(120, self._cancel)
        self._left, self._stop = looks, cancel
        self.over = False

    def check(self, doing: str) -> None:
        self._left -= 1
        if self._left < 0:
            self.over = True
            if self._stop:
                self._cancel.set()
        super().check(doing)

    def remaining(self) -> float:
        return 0.0 if self.over and not self._stop else super().remaining()
