"""Where a command's answer goes: lines or one JSON document on standard output, everything else on standard error."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from engine.report.text import paint

if TYPE_CHECKING:
    from engine.report.console import Console


@dataclass(frozen=True, slots=True)
class Output:
    """How one command speaks. Made from `--json`, `-v` and `--no-color`, which every command takes."""

    as_json: bool = False
    verbose: bool = False
    no_colour: bool = False

    @property
    def width(self) -> int:
        """Columns of the terminal; 0 when standard output is none, and nothing is then cut."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0

    def colour(self, stream: TextIO) -> bool:
        """Colour only on a terminal that can, when neither `--no-color` nor NO_COLOR (no-color.org) is given."""
        plain = self.no_colour or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "dumb") == "dumb"
        return stream.isatty() and not plain

    def console(self) -> Console:
        """Who shows a run while it goes on."""
        from engine.report.console import console_for

        return console_for(sys.stderr, verbose=self.verbose, colour=self.colour(sys.stderr))

    def lines(self, lines: Iterable[str]) -> None:
        """The answer for a person."""
        _write(sys.stdout, lines, self.colour(sys.stdout))

    def aside(self, lines: Iterable[str]) -> None:
        """What is not the answer: errors, warnings, notes."""
        _write(sys.stderr, lines, self.colour(sys.stderr))

    def document(self, document: Mapping[str, Any]) -> None:
        """The answer for a program."""
        _write(sys.stdout, [json.dumps(document, indent=2, ensure_ascii=False, default=str)], False)

    def answer(self, document: Mapping[str, Any], lines: Iterable[str]) -> None:
        """The one or the other."""
        if self.as_json:
            self.document(document)
        else:
            self.lines(lines)


def _write(stream: TextIO, lines: Iterable[str], colour: bool) -> None:
    """Write and flush. A reader that went away (`| head`, a closed terminal) ends the writing, not the command."""
    try:
        for line in lines:
            stream.write(paint(line, colour) + "\n")
        stream.flush()
    except OSError as error:
        # Python flushes again at exit; the null device takes that quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if error.errno not in (errno.EPIPE, errno.EIO):  # a full disk: who asked for the answer has not got it
            raise
