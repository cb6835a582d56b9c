"""YAML to plain data with the position of every key and value.

Stricter than YAML 1.1, so that a file means the same to every reader: what YAML 1.1 and 1.2 read differently (`yes`,
`0777`, `1:30`, `1_000`) is refused, as are duplicate keys, foreign tags, and documents built to exhaust memory. Built
from the C parser's events, so neither depth nor aliases can run away before they are counted.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from engine.errors import Diagnostic, FilesError, Position
from engine.load.document import Document, Mark, Route

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
MAX_ALIASES = 100
MAX_NODES = 100_000

_STRING_TAG = "tag:yaml.org,2002:str"
_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_OLD_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_HEXADECIMAL = re.compile(r"[-+]?0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_AMBIGUOUS = (
    (re.compile(r"[-+]?0o?[0-9_]+"), "an octal number in one version of YAML and something else in another"),
    (re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"), "a number in base 60 to YAML 1.1"),
    (re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?"), "a number in one version of YAML and text in another"),
    (re.compile(r"[-+]?[0-9]{20,}"), "too large a number to be kept exactly"),
    (re.compile(r"[-+]?0b[01_]+"), "a binary number in one version of YAML and text in another"),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), "no number JSON knows"),
)


def read(root: Path, path: Path) -> Document:
    """Read a file of the project. Positions name it relative to `root`. FilesError holds all its mistakes."""
    file = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # reading a pipe would wait for ever
            raise FilesError([Diagnostic(Position(file, 1, 1), "cannot be read: not a regular file")])
        if status.st_size > MAX_BYTES:
            raise FilesError([Diagnostic(Position(file, 1, 1), f"the file is larger than {MAX_BYTES >> 20} MiB")])
        data = path.read_bytes()
    except OSError as error:
        raise FilesError([Diagnostic(Position(file, 1, 1), f"cannot be read: {error.strerror}")]) from error
    return parse(data, file)


def parse(data: bytes, file: str, *, ansible: bool = False) -> Document:
    """One YAML document as plain data with positions. FilesError with every mistake that could be found.

    `ansible`: a file that Ansible reads, with its tags, and with what YAML 1.1 makes of plain text.
    """
    text = _text(data, file)
    document = Document(file, None, tuple(text.splitlines()))
    builder = _Builder(document, ansible)
    try:
        builder.build(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.MarkedYAMLError as error:
        builder.problems.append(_syntax(error, document))
    except _GiveUp:
        pass
    if builder.problems:
        raise FilesError(builder.problems)
    return document


class _GiveUp(Exception):  # noqa: N818 (control flow, never seen outside)
    """Reading on would only repeat the last problem."""


def _text(data: bytes, file: str) -> str:
    if len(data) > MAX_BYTES:
        raise FilesError([Diagnostic(Position(file, 1, 1), f"the file is larger than {MAX_BYTES >> 20} MiB")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise FilesError([Diagnostic(Position(file, line, column), "not UTF-8 text")]) from error
    found = _FORBIDDEN.search(text)
    if found:
        before = text[: found.start()]
        position = Position(file, before.count("\n") + 1, found.start() - before.rfind("\n"))
        name = "NUL" if found[0] == "\0" else f"U+{ord(found[0]):04X}"
        raise FilesError([Diagnostic(position, f"the character {name} is not allowed in YAML")])
    return text


def _syntax(error: yaml.MarkedYAMLError, document: Document) -> Diagnostic:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    message = error.problem or "not valid YAML"
    text = document.lines[line] if line < len(document.lines) else ""
    if text[column : column + 1] == "\t":
        message = "a tab cannot indent YAML: use spaces"
    elif error.context and error.context_mark:
        message += f", {error.context} that began at line {error.context_mark.line + 1}"
    return document.at_mark(Mark(Position(document.file, line + 1, column + 1), 1), message)


def _depth(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, children), default=0) if isinstance(value, dict | list) else 0


class _Builder:
    """Turns parser events into data and marks, collecting mistakes."""

    def __init__(self, document: Document, ansible: bool = False) -> None:
        self._ansible = ansible
        self.problems: list[Diagnostic] = []
        self._document = document
        self._anchors: dict[str, tuple[Any, int, Route]] = {}
        self._aliases = 0
        self._nodes = 0

    def build(self, events: Iterator[Any]) -> None:
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._problem(event, "a second document: one file holds one")
                    raise _GiveUp
            elif isinstance(event, yaml.NodeEvent):
                self._document.data = self._node(event, events, ())

    def _node(self, event: Any, events: Iterator[Any], route: Route) -> Any:
        mark = self._mark(event)
        self._document.values.setdefault(route, mark)
        self._count(event, 1)
        if len(route) > MAX_DEPTH:
            self._problem(event, f"nested deeper than {MAX_DEPTH} levels")
            raise _GiveUp
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, route)
        before = self._nodes
        value = self._content(event, events, route)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._nodes - before + 1, route)
        return value

    def _content(self, event: Any, events: Iterator[Any], route: Route) -> Any:
        known = event.tag in (None, "!") or (event.tag == _STRING_TAG and isinstance(event, yaml.ScalarEvent))
        if not known and not self._ansible:
            self._problem(event, f"the tag {event.tag.replace('tag:yaml.org,2002:', '!!')} is not known here")
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0] and not event.style
            return self._plain(event) if plain else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            for child in events:
                if isinstance(child, yaml.SequenceEndEvent):
                    return items
                items.append(self._node(child, events, (*route, len(items))))
        return self._mapping(events, route)

    def _mapping(self, events: Iterator[Any], route: Route) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[tuple[Any, Any]] = []
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._key(event, events, route)
            if key == "<<" and not event.style:
                merged.append((event, self._node(next(events), events, (*route, "<<"))))
                continue
            inner = (*route, key)
            if key in found:
                first = self._document.keys[inner].position.line
                self._problem(event, f'"{key}" is given twice (first in line {first})')
                self._node(next(events), events, (*route, key, "(again)"))
                continue
            self._document.keys[inner] = self._mark(event)
            found[key] = None  # known from here on, also when its value is the mistake
            found[key] = self._node(next(events), events, inner)
        for event, value in merged:
            self._merge(event, value, found, route)
        return found

    def _key(self, event: Any, events: Iterator[Any], route: Route) -> str:
        """A key as text; what is not text is a mistake, and then stands for itself so that reading goes on."""
        if not isinstance(event, yaml.ScalarEvent):
            self._problem(event, "a key must be plain text")
            if isinstance(event, yaml.AliasEvent):
                return "*" + str(event.anchor)
            self._node(event, events, (*route, "?"))
            return "?"
        known = len(self.problems)
        value = self._content(event, events, route)
        if not isinstance(value, str) and len(self.problems) == known and not self._ansible:
            self._problem(event, f'a key must be text: quote it, "{event.value}"')
        return str(event.value)

    def _merge(self, event: Any, value: Any, found: dict[str, Any], route: Route) -> None:
        """`<<`: keys that are not given here, from one mapping or several, the first having the say."""
        sources = value if isinstance(value, list) else [value]
        for position, source in enumerate(sources):
            if not isinstance(source, dict):
                self._problem(event, "<< merges mappings only")
                continue
            origin: Route = (*route, "<<", position) if isinstance(value, list) else (*route, "<<")
            for key in source.keys() - found.keys():
                self._document.copy_marks((*origin, key), (*route, key))
            found.update({k: v for k, v in source.items() if k not in found})

    def _alias(self, event: Any, route: Route) -> Any:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            self._problem(event, f"more than {MAX_ALIASES} aliases in one file")
            raise _GiveUp
        if event.anchor not in self._anchors:
            self._problem(event, f"*{event.anchor} stands for nothing yet (or for itself)")
            return None
        value, nodes, origin = self._anchors[event.anchor]
        self._count(event, nodes)
        if len(route) + _depth(value) > MAX_DEPTH:
            self._problem(event, f"nested deeper than {MAX_DEPTH} levels")
            raise _GiveUp
        self._document.copy_marks(origin, route)
        return value

    def _count(self, event: Any, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            self._problem(event, f"more than {MAX_NODES} values in one file")
            raise _GiveUp

    def _plain(self, event: Any) -> Any:
        """An unquoted scalar by the rules on which YAML 1.1 and 1.2 agree; where they do not, a mistake."""
        text: str = event.value
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _INTEGER.fullmatch(text):
            return int(text)
        if _HEXADECIMAL.fullmatch(text):
            return int(text, 16)
        meant = _OLD_BOOLEANS.get(text.lower()) if text in {text.lower(), text.title(), text.upper()} else None
        if meant and not self._ansible:
            self._problem(event, f'{text} is a boolean to some readers and text to others: write {meant}, or "{text}"')
        elif text[0] in "+-.0123456789":
            if _FLOAT.fullmatch(text):
                return float(text)
            reason = next((why for pattern, why in _AMBIGUOUS if pattern.fullmatch(text)), None)
            if reason and not self._ansible:
                self._problem(event, f'{text} is {reason}: write it in full, or quote it, "{text}"')
        return text

    def _mark(self, event: Any) -> Mark:
        start, end = event.start_mark, event.end_mark
        position = Position(self._document.file, start.line + 1, start.column + 1)
        if isinstance(event, yaml.ScalarEvent | yaml.AliasEvent) and end.line == start.line:
            return Mark(position, max(1, end.column - start.column), start.line + 1)
        last = end.line if end.column else end.line - 1
        return Mark(position, 1, max(start.line, last) + 1)

    def _problem(self, event: Any, message: str) -> None:
        self.problems.append(self._document.at_mark(self._mark(event), message))
