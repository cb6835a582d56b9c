"""How much one rendering may do: steps, characters written, what is held. Counted, not timed, so that equal variables
give an equal answer on every machine.

Each turn of a loop, each call and each filter costs a step, and what it works on some more; the syntax tree is
rewritten so that loops, comparisons, slices and `~` are counted too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from jinja2 import Undefined, nodes
from jinja2.visitor import NodeTransformer

MAX_TEXT = 1 << 20
"""Characters of a rendered text, or items of a repeated list."""
MAX_STEPS = 200_000
"""Of one rendering: turns of all loops, calls, filters; about a tenth of a second."""
MAX_WRITTEN = 4 * MAX_TEXT
"""Characters that one rendering writes, also into a variable or a macro's answer."""
_ITEMS, _CHARACTERS = 4, 128
"""So many of them, only looked through, cost a step."""
CALL = 9
"""Steps of a call, which is more work than a turn."""
_TURNS, _LOOKED, _JOINED = "counted!", "looked at!", "joined!"  # no template can write such a name


class TooLargeError(Exception):
    """A template that would fill the memory."""


class TooMuchError(Exception):
    """A template that would take for ever, or nearly."""


class _Left(threading.local):
    """What the rendering that runs in this thread may still do; None: none runs."""

    steps: int | None = None
    written: int = 0


_left = _Left()


@contextmanager
def bounded() -> Iterator[None]:
    """One rendering. A value it needs may be rendered within: that counts for itself."""
    before = _left.steps, _left.written
    _left.steps, _left.written = MAX_STEPS, MAX_WRITTEN
    try:
        yield
    finally:
        _left.steps, _left.written = before


def charge(steps: int) -> None:
    """TooMuchError when the rendering has done enough."""
    if _left.steps is None:
        return
    _left.steps -= steps
    if _left.steps < 0:
        raise TooMuchError


def written(value: Any) -> Any:
    """Count what is written; TooLargeError."""
    if _left.steps is not None and not isinstance(value, Undefined):
        _left.written -= len(value) if isinstance(value, str) else 8 + _cost(value) * _CHARACTERS
        if _left.written < 0:
            raise TooLargeError
    return value


def weigh(*values: Any) -> None:
    """A step, and more for large values; TooLargeError for one that would not fit written down."""
    charge(1 + sum(map(_cost, values)))


def measured(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is counted by what goes in, and gives a list where it would give a generator."""

    @wraps(function)
    def filtered(*arguments: Any, **named: Any) -> Any:
        if function.__name__ in _SQUARE and len(arguments) == 2:
            charge(_length(arguments[0]) * _length(arguments[1]) // _ITEMS)
        weigh(*arguments, *named.values())
        found = function(*arguments, **named)
        return list(_counted(found)) if isinstance(found, Iterator) else found

    return filtered


_SQUARE = frozenset({"union", "difference", "intersect"})


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple) else 1


def _counted(items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        charge(1)
        yield item


def _cost(value: Any) -> int:
    """Steps to go through all that is inside. TooLargeError when that is more than MAX_WRITTEN characters or items."""
    if not isinstance(value, str | list | tuple | dict):
        return 0
    items, characters, waiting = 0, 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            characters += len(one)
        elif isinstance(one, list | tuple | dict):
            items += len(one)
            if items > MAX_TEXT:
                raise TooLargeError
            waiting += one.values() if isinstance(one, dict) else one
        if characters > MAX_WRITTEN:
            raise TooLargeError
    return items // _ITEMS + characters // _CHARACTERS


def _turns(items: Any) -> Any:
    """What a loop goes through: as many steps as it has turns."""
    if isinstance(items, Iterator):
        return list(_counted(items))
    charge(1 + (len(items) if hasattr(items, "__len__") and not isinstance(items, Undefined) else 0))
    return items


def _looked(value: Any) -> Any:
    """A value that is compared, searched or cut: its items, once."""
    size = len(value) if isinstance(value, str | list | tuple | dict | range) else 0
    charge(1 + size // (_CHARACTERS if isinstance(value, str) else _ITEMS))
    return value


def _joined(parts: Any) -> str:
    texts = [str(part) for part in parts]
    size = sum(map(len, texts))
    charge(1 + size // _CHARACTERS)
    if size > MAX_TEXT:
        raise TooLargeError
    return "".join(texts)


INNER_FILTERS: dict[str, Callable[..., Any]] = {_TURNS: _turns, _LOOKED: _looked, _JOINED: _joined}
"""Those that only `Bounded` can write."""


class Bounded(NodeTransformer):
    """Puts the counting into a syntax tree."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 (Jinja calls it so)
        self.generic_visit(node)
        node.iter = _through(node.iter, _TURNS)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802 (Jinja calls it so)
        self.generic_visit(node)
        node.expr = _through(node.expr, _LOOKED)
        for operand in node.ops:
            operand.expr = _through(operand.expr, _LOOKED)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 (Jinja calls it so)
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _through(node.node, _LOOKED)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 (Jinja calls it so)
        self.generic_visit(node)
        return _through(nodes.List(node.nodes, lineno=node.lineno), _JOINED)


def _through(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
