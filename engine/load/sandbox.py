"""The Jinja2 environment itself: what a template can reach, how far it can go, and its compiled form.

Everything of Jinja is in this file; `render.py` decides what is rendered with which names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from jinja2 import StrictUndefined, Undefined, meta, nodes
from jinja2.exceptions import SecurityError, TemplateAssertionError
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import missing

from engine.load.bounds import (
    CALL,
    INNER_FILTERS,
    MAX_TEXT,
    Bounded,
    TooLargeError,
    TooMuchError,
    bounded,
    charge,
    measured,
    weigh,
    written,
)
from engine.load.document import guess
from engine.load.filters import KEPT_FILTERS, OWN_FILTERS, OWN_TESTS

_LOOKUPS = frozenset({"lookup", "query", "q"})
_GROWING = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})
_WIDTH = re.compile(r"%[-+ #0]*(\*|\d{5,})|%[-+ #0]*\d*\.(\*|\d{5,})")
_OUTSIDE = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block)


class MissingError(Exception):
    """A name, or a part of a value, that does not exist. `inside`: of what it was asked; `known`: what there is."""

    def __init__(self, name: str, inside: str = "", known: tuple[str, ...] = ()) -> None:
        super().__init__(name)
        self.name, self.inside, self.known = name, inside, known


@dataclass(frozen=True, slots=True)
class Compiled:
    """A template ready to use: the names it needs, and its value from them."""

    names: frozenset[str]
    evaluate: Callable[[Mapping[str, Any]], Any]


@lru_cache(maxsize=4096)
def compiled(text: str) -> Compiled:
    """A text with templates in it. TemplateSyntaxError (with `needle` where known) when it is not allowed."""
    with _not_too_deep():
        tree = _parsed(text)
        names = frozenset(meta.find_undeclared_variables(tree))
        alone = _single_expression(tree)
        if alone and (source := _inner(text)) is not None:
            return Compiled(names, _expression(source))
        return Compiled(names, _text(text))


@lru_cache(maxsize=512)
def compiled_file(text: str) -> Compiled:
    """The same for a whole file: always text. A line that is only a `{% … %}` leaves no line behind."""
    with _not_too_deep():
        tree = _parsed(text)
        return Compiled(frozenset(meta.find_undeclared_variables(tree)), _text(text, _FILE_ENVIRONMENT))


@lru_cache(maxsize=1024)
def condition_of(expression: str) -> Compiled:
    """A bare expression. TemplateSyntaxError when it is not one."""
    if "{{" in expression or "{%" in expression:
        raise _refused("write the expression without {{ }}", "{{" if "{{" in expression else "{%")
    with _not_too_deep():
        tree = _parsed("{{ " + expression + " }}")
        return Compiled(frozenset(meta.find_undeclared_variables(tree)), _expression(expression))


@contextmanager
def _not_too_deep() -> Iterator[None]:
    """Jinja and Python's compiler go down one frame per level: too many are a mistake in the text, not a defect."""
    try:
        yield
    except (RecursionError, MemoryError) as error:  # Python's parser says MemoryError
        raise TemplateAssertionError("the expression is nested too deeply", 1) from error
    except SyntaxError as error:  # of the Python that Jinja made: "too many nested parentheses"
        raise TemplateAssertionError(f"the expression is too complicated ({error.msg})", 1) from error


class _Undefined(StrictUndefined):
    """Says which name was missing, and of what."""

    __slots__ = ()

    def _fail_with_undefined_error(self, *_args: Any, **_kwargs: Any) -> Any:
        owner = self._undefined_obj
        name = str(self._undefined_name)
        if owner is missing:
            raise MissingError(name)
        if isinstance(owner, Undefined):
            owner._fail_with_undefined_error()
        known = tuple(map(str, owner)) if isinstance(owner, Mapping) else ()
        kind = "the mapping" if known else "the list" if isinstance(owner, list | tuple) else "the value"
        raise MissingError(name, kind, known)

    __iter__ = __str__ = __len__ = _fail_with_undefined_error
    __eq__ = __ne__ = __bool__ = __hash__ = _fail_with_undefined_error
    __contains__ = __add__ = __radd__ = __sub__ = __rsub__ = _fail_with_undefined_error
    __mul__ = __rmul__ = __div__ = __rdiv__ = __truediv__ = __rtruediv__ = _fail_with_undefined_error
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pos__ = __neg__ = _fail_with_undefined_error
    __call__ = __getitem__ = __lt__ = __le__ = __gt__ = __ge__ = _fail_with_undefined_error
    __int__ = __float__ = __complex__ = __pow__ = __rpow__ = _fail_with_undefined_error

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__":
            raise AttributeError(name)
        return self._fail_with_undefined_error()


class _Environment(ImmutableSandboxedEnvironment):
    """Sandboxed, and bounded where a short template could make a long text."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def _generate(self, source: nodes.Template, *arguments: Any, **named: Any) -> str:
        return super()._generate(Bounded().visit(source), *arguments, **named)

    def call(self, context: Any, called: Any, /, *arguments: Any, **named: Any) -> Any:
        charge(CALL)
        weigh(arguments, named)
        owner = getattr(called, "__self__", None)
        if isinstance(owner, str) and called.__name__ in ("join", "replace"):
            called = partial(_join_text if called.__name__ == "join" else _replace, owner)
        return super().call(context, called, *arguments, **named)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        weigh(left, right)
        if operator == "*":
            _bound_repeat(left, right)
        if operator == "**" and (not isinstance(right, int | float) or abs(right) > 64 or abs(left) > 1e9):
            raise TooLargeError
        if operator == "%" and isinstance(left, str):
            _bound_format(left, right)
        if operator == "+" and isinstance(left, str | list) and len(left) + len(right) > MAX_TEXT:
            raise TooLargeError
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _GROWING:
            return False
        return super().is_safe_attribute(obj, attr, value)


def _bound_repeat(left: Any, right: Any) -> None:
    for one, count in ((left, right), (right, left)):
        if isinstance(one, str | list | tuple) and isinstance(count, int) and len(one) * count > MAX_TEXT:
            raise TooLargeError


def _bound_format(text: str, values: Any) -> None:
    """Neither a width nor many copies of a long text."""
    many = values if isinstance(values, tuple) else values.values() if isinstance(values, Mapping) else (values,)
    longest = max((len(v) if isinstance(v, str | list | tuple | Mapping) else 32 for v in many), default=0)
    if _WIDTH.search(text) or len(text) + text.count("%") * longest > MAX_TEXT:
        raise TooLargeError


def _format_text(value: str, *arguments: Any, **named: Any) -> Any:
    """`"%02d" | format(3)`, as Jinja has it, with bounded widths."""
    _bound_format(str(value), named or arguments)
    return str(value) % (named or arguments)


def _join(value: Any, d: str = "", attribute: str | None = None) -> str:
    items = list(value)
    texts = [str(item[attribute] if attribute else item) for item in items]
    if sum(map(len, texts)) + len(d) * len(texts) > MAX_TEXT:
        raise TooLargeError
    return str(d).join(texts)


def _join_text(separator: str, value: Any) -> str:
    return _join(value, separator)


def _replace(value: Any, old: str, new: str, count: int = -1) -> str:
    text = str(value)
    if len(text) + text.count(old) * len(new) > MAX_TEXT:
        raise TooLargeError
    return text.replace(old, new, count)


def _range(*arguments: int) -> range:
    """Jinja's, which says OverflowError when it is long."""
    try:
        return safe_range(*arguments)
    except OverflowError as error:
        raise TooMuchError from error


def _environment() -> _Environment:
    environment = _Environment(undefined=_Undefined, keep_trailing_newline=True, autoescape=False, finalize=written)
    kept = {name: f for name, f in environment.filters.items() if name in KEPT_FILTERS}
    own = {**OWN_FILTERS, "format": _format_text, "join": _join, "replace": _replace}
    environment.filters = {name: measured(f) for name, f in {**kept, **own}.items()} | INNER_FILTERS
    environment.tests = {**environment.tests, **OWN_TESTS}
    environment.globals = {"range": _range, "dict": dict}
    return environment


_ENVIRONMENT = _environment()
_FILE_ENVIRONMENT = _ENVIRONMENT.overlay(trim_blocks=True, lstrip_blocks=True)


def _parsed(text: str) -> nodes.Template:
    """The syntax tree, with everything refused that reaches outside or does not exist."""
    tree = _ENVIRONMENT.parse(text)
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in _LOOKUPS:
            raise _refused(f"{call.node.name}() reads from outside: use a variable of the inventory", call.node.name)
    for node in tree.find_all(_OUTSIDE):
        raise _refused(f"{{% {type(node).__name__.lower()} %}} reaches outside this text", type(node).__name__.lower())
    known = _ENVIRONMENT.filters.keys() - INNER_FILTERS.keys()
    for used in tree.find_all(nodes.Filter):
        if used.name not in known:
            raise _refused(
                f'no filter "{used.name}"{guess(used.name, known)}',
                used.name,
            )
    for test in tree.find_all(nodes.Test):
        if test.name not in _ENVIRONMENT.tests:
            raise _refused(f'no test "{test.name}"{guess(test.name, _ENVIRONMENT.tests)}', test.name)
    return tree


def _refused(message: str, needle: str) -> TemplateAssertionError:
    error = TemplateAssertionError(message, 1)
    error.needle = needle  # type: ignore[attr-defined]
    return error


def _single_expression(tree: nodes.Template) -> bool:
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return False
    parts = [p for p in tree.body[0].nodes if not (isinstance(p, nodes.TemplateData) and not p.data.strip())]
    return len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData)


def _inner(text: str) -> str | None:
    """The expression of `{{ expression }}`; None when the text is written in another way."""
    bare = text.strip()
    if not (bare.startswith("{{") and bare.endswith("}}")):
        return None
    return bare[2:-2].removeprefix("-").removeprefix("+").removesuffix("-")


def _text(text: str, environment: _Environment | None = None) -> Callable[[Mapping[str, Any]], str]:
    template = (environment or _ENVIRONMENT).from_string(text)

    def evaluate(values: Mapping[str, Any]) -> str:
        parts: list[str] = []
        size = 0
        with bounded():
            for part in template.generate(values):
                size += len(part)
                if size > MAX_TEXT:
                    raise TooLargeError
                parts.append(part)
        return _unicode("".join(parts))

    return evaluate


def _expression(source: str) -> Callable[[Mapping[str, Any]], Any]:
    expression = _ENVIRONMENT.compile_expression(source, undefined_to_none=False)

    def evaluate(values: Mapping[str, Any]) -> Any:
        with bounded():
            value = expression(**values)
            if isinstance(value, Undefined):
                value._fail_with_undefined_error()
            if isinstance(value, str | list | tuple) and len(value) > MAX_TEXT:
                raise TooLargeError
            return _plain(value)

    return evaluate


def _unicode(text: str) -> str:
    """Half a surrogate pair is no text: no file, journal or program could take it."""
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise SecurityError("it gives half a surrogate pair, which is not text")
    return text


def _plain(value: Any) -> Any:
    """Plain data: a template can make iterators, tuples and its own text type."""
    charge(1)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        written(value)
        return _unicode(str(value))
    if isinstance(value, Mapping):
        return {_unicode(str(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, Undefined):
        return value._fail_with_undefined_error()
    if isinstance(value, Iterable):
        return [_plain(v) for v in value]
    raise SecurityError(f"it gives a {type(value).__name__}, which is not plain data")
