"""A file's data beside the position of every key and value, and the way from a mistake to the place it is shown at."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from engine.errors import Diagnostic, Position

Route = tuple[str | int, ...]
"""The way to a value: keys and list indexes from the document's root."""

_SHOWN = 200  # a longer source line is cut, so that a generated one does not fill the screen


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a key or value stands: its first character, how many to underline, and the last line it covers."""

    position: Position
    width: int = 1
    last_line: int = 0


@dataclass(slots=True)
class Document:
    """One parsed file. `keys` marks the key that leads to a value, `values` the value itself."""

    file: str
    data: Any
    lines: tuple[str, ...]
    keys: dict[Route, Mark] = field(default_factory=dict)
    values: dict[Route, Mark] = field(default_factory=dict)

    def mark(self, route: Route, *, key: bool = False, needle: str = "") -> Mark:
        """Where a value (or its key) stands, or the nearest thing around it; `needle` narrows it to a part."""
        if key and route in self.keys:
            return self.keys[route]
        at = route
        while at and at not in self.values:
            at = at[:-1]
        found = self.values.get(at, Mark(Position(self.file, 1, 1)))
        return self._narrowed(found, needle) if needle and at == route else found

    def problem(
        self, route: Route, message: str, *, key: bool = False, needle: str = "", severity: str = "error"
    ) -> Diagnostic:
        """A mistake at that value (or its key), with the line it stands in."""
        return self.at_mark(self.mark(route, key=key, needle=needle), message, severity=severity)

    def at_mark(self, mark: Mark, message: str, *, severity: str = "error") -> Diagnostic:
        """A mistake at a mark."""
        index = mark.position.line - 1
        line = self.lines[index] if 0 <= index < len(self.lines) else ""
        line = line.replace("\t", " ")
        if mark.position.column > _SHOWN:
            line = ""
        width = min(mark.width, _SHOWN)
        return Diagnostic(mark.position, message, line[: _SHOWN + width], width, severity)

    def copy_marks(self, origin: Route, target: Route) -> None:
        """What is also reachable by another way (an alias, a merged key) stands where it was written."""
        depth = len(origin)
        for marks in (self.keys, self.values):
            inside = [(r, m) for r, m in marks.items() if r[:depth] == origin and r != origin]
            for route, mark in inside:
                marks.setdefault((*target, *route[depth:]), mark)
        if origin in self.keys:
            self.keys.setdefault(target, self.keys[origin])
        if origin in self.values:
            self.values.setdefault(target, self.values[origin])

    def _narrowed(self, mark: Mark, needle: str) -> Mark:
        """The first place of `needle` in the source of a scalar; the whole scalar when escapes hide it."""
        first = mark.position.line
        for number in range(first, max(first, mark.last_line) + 1):
            line = self.lines[number - 1] if number <= len(self.lines) else ""
            column = line.find(needle, mark.position.column - 1 if number == first else 0)
            if column >= 0:
                return Mark(Position(self.file, number, column + 1), len(needle))
        return mark


def guess(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, sorted(set(known)), n=1, cutoff=0.6)
    return f' (did you mean "{near[0]}"?)' if near else ""


def listed(names: Iterable[str], *, most: int = 12) -> str:
    """Names for a message, cut when there are many."""
    known = sorted(set(names))
    more = f", and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more if known else "none"
