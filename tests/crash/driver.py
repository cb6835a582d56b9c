"""Runs one command of the program in this process, and dies by SIGKILL at a chosen moment.

    driver.py WHEN AT ASKED COMMAND ARGUMENT…

WHEN is `before` or `after` the AT-th write of the journal; `child`: as soon as the first child process whose
arguments hold AT runs; or `never`. Questions are answered with yes and noted in the file ASKED.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_write(when: str, at: int) -> None:
    from engine.run.journal import Journal

    append, written = Journal.append, 0

    def counted(self: Journal, *given: Any, **named: Any) -> Any:
        nonlocal written
        written += 1
        if (when, written) == ("before", at):
            die()
        event = append(self, *given, **named)
        if (when, written) == ("after", at):
            die()
        return event

    Journal.append = counted  # type: ignore[method-assign]


def at_child(word: str) -> None:
    from engine.adapters.streams import Streams

    follow = Streams.follow

    def followed(self: Any, *given: Any) -> None:
        if word in " ".join(self._process.args):
            die()
        follow(self, *given)

    Streams.follow = followed  # type: ignore[method-assign]


def answer_yes(asked: Path) -> None:
    from engine.adapters.terminal import TerminalAsker
    from engine.core.ports import Answer

    def ask(_self: TerminalAsker, question: str) -> Answer:
        with asked.open("a") as file:
            file.write(question + "\n")
        return Answer("somebody", datetime.now(UTC).isoformat(timespec="seconds"), True)

    TerminalAsker.ask = ask  # type: ignore[method-assign]


def main(when: str, at: str, asked: str, *command: str) -> None:
    if when == "child":
        at_child(at)
    elif when != "never":
        at_write(when, int(at))
    answer_yes(Path(asked))
    from engine.cli.app import main as program

    sys.argv = ["runbook", *command]
    sys.exit(program())


if __name__ == "__main__":
    main(*sys.argv[1:])
