"""A person at the terminal."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, datetime

from engine.core.ports import Answer


class TerminalAsker:
    """Port Asker. Asks on standard error, so that standard output stays one document."""

    def __init__(self, *, interactive: bool) -> None:
        self._interactive = interactive

    def ask(self, question: str) -> Answer | None:
        if not self._interactive:
            return None
        print(f"{question} [yes/no] ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Answer(getpass.getuser(), now, line.strip().lower() in {"y", "yes"})
