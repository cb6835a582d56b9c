"""Plain text for terminals: durations, columns, clipping, and colour as a last pass over what the signs already say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

_CONTROL = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SIGN = re.compile(r"^(\s*)([✓✗▸+\-~=!?·])(?= )")
_COLOURS = {"✓": 32, "✗": 31, "▸": 36, "+": 32, "-": 31, "~": 33, "=": 2, "!": 33, "?": 35, "·": 2}
_ANYWHERE = re.compile(r"(?<= )[✓✗▸](?= |$)")


def clean(text: str) -> str:
    """One harmless line: what came from outside must not move the cursor, ring, or break the layout."""
    return _CONTROL.sub("", text.replace("\t", " ").replace("\n", " ").replace("\r", " ")).rstrip()


def clean_lines(text: str) -> list[str]:
    """A text of several lines, each made harmless."""
    return [clean(line) for line in text.splitlines()] or [""]


def clip(line: str, width: int) -> str:
    """At most `width` characters; an ellipsis shows that something is missing. Width 0: no limit."""
    if not width or len(line) <= width:
        return line.rstrip()
    return line[: max(0, width - 1)].rstrip() + "…"


def wrap(text: str, width: int, indent: str) -> list[str]:
    """Break at blanks; later lines are indented a little further. Width 0: one line."""
    if not width or len(indent) + len(text) <= width or width < len(indent) + 20:
        return [(indent + text).rstrip()]
    lines, line = [], indent
    for word in text.split(" "):
        if len(line) + len(word) > width and line.strip():
            lines.append(line.rstrip())
            line = indent + "  "
        line += word + " "
    return [*lines, line.rstrip()]


def columns(
    rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), indent: str = "", gap: str = "  "
) -> list[str]:
    """Rows with their cells under one another; columns named in `right` end at one place."""
    table = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)] if table else []
    lines = []
    for row in table:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append((indent + gap.join(cells)).rstrip())
    return lines


def duration(seconds: float) -> str:
    """`0.4s`, `31s`, `1m52s`, `1h05m`: never wider than it is exact."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def ago(at: str, now: datetime) -> str:
    """How long ago, in the largest unit that fits: `6 s`, `5 min`, `3 h`, `2 d`."""
    passed = max(0, round((now - datetime.fromisoformat(at)).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if passed >= size:
            return f"{passed // size} {unit}"
    return f"{passed} s"


def between(start: str, end: str) -> float:
    """Seconds from one ISO 8601 time to another; 0 when either is empty."""
    if not start or not end:
        return 0.0
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def count(number: int, noun: str) -> str:
    """`1 step`, `3 steps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def paint(line: str, colour: bool) -> str:
    """Colour the signs of a finished line. Nothing is said by colour that the sign does not say."""
    if not colour:
        return line
    line = _ANYWHERE.sub(lambda m: _coloured(m.group(0)), line)
    return _SIGN.sub(lambda m: m.group(1) + _coloured(m.group(2)), line)


def _coloured(sign: str) -> str:
    return f"\x1b[{_COLOURS[sign]}m{sign}\x1b[0m"
