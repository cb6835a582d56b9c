"""Templates in values: Jinja2, sandboxed, without I/O, on variables only.

A text that is nothing but one `{{ expression }}` becomes the expression's own value; any other text stays text. What a
step registered is never rendered again, so nothing an outside system answers can act as a template.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError as JinjaError
from jinja2 import TemplateSyntaxError
from jinja2.exceptions import TemplateAssertionError

from engine.errors import NotYetError, UsageError
from engine.load.bounds import MAX_STEPS, MAX_TEXT, TooLargeError, TooMuchError
from engine.load.document import Route, guess
from engine.load.sandbox import MissingError, compiled, condition_of

MAX_VARIABLE_DEPTH = 30


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a template: the way to the text, what is wrong, and the part of the text it is about."""

    route: Route
    message: str
    needle: str = ""


class TemplateError(UsageError):
    """Templates that cannot be rendered, all of a tree at once."""

    def __init__(self, problems: Collection[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(p.message for p in self.problems))


@dataclass(frozen=True, slots=True)
class Scope:
    """What a template may name.

    `variables` may hold templates themselves, as Ansible's do, rendered when they are used. `values` never are: what
    steps registered, the item of a loop. `pending` names what a step that has not run yet will register.
    """

    variables: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    pending: Collection[str] = ()
    _rendered: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def names(self) -> set[str]:
        return {*self.variables, *self.values, *self.pending}

    def get(self, name: str, via: tuple[str, ...] = ()) -> Any:
        """The rendered value. KeyError when there is none, NotYetError, TemplateError."""
        if name in self.values:
            return self.values[name]
        if name in self._rendered:
            return self._rendered[name]
        if name in self.pending:
            raise NotYetError(f'"{name}" is registered by a step that has not run yet')
        value = self.variables[name]
        if name in via or len(via) > MAX_VARIABLE_DEPTH:
            raise TemplateError([Problem((), f"variables that need each other: {' → '.join([*via, name])}")])
        try:
            rendered = _render(value, self, (*via, name))
        except TemplateError as error:
            if via:
                raise
            raise TemplateError(
                [Problem((), f'in the variable "{name}": {p.message}') for p in error.problems]
            ) from None
        self._rendered[name] = rendered
        return rendered

    def settled(self) -> dict[str, Any]:
        """Every name whose value can be rendered now. Those meant for Ansible alone (facts, lookups) are left out."""
        found: dict[str, Any] = {}
        for name in sorted(self.names):
            try:
                found[name] = self.get(name)
            except (TemplateError, NotYetError, KeyError):
                continue
        return found


def render(tree: Any, scope: Scope) -> Any:
    """A tree with every template in its values rendered; keys are left as they are.

    TemplateError with every mistake in it; NotYetError when there is none but a name is not known yet.
    """
    return _render(tree, scope, ())


def render_known(tree: Any, scope: Scope) -> Any:
    """The same, but text that needs what is not known yet stays as it is written: for checks before a run."""
    return _render(tree, scope, (), keep=True)


def condition(expression: str, scope: Scope) -> bool:
    """A bare expression, as in `when`. TemplateError also when it gives anything but true or false."""
    try:
        compiled_expression = condition_of(expression)
        value = compiled_expression.evaluate(needed(compiled_expression.names, scope, ()))
    except Exception as error:
        raise translated(error, expression, scope, ()) from error
    if not isinstance(value, bool):
        hint = " (write `| bool`)" if isinstance(value, str | int) else ""
        raise TemplateError([Problem((), f'"{expression}" gives {_kind(value)}, not true or false{hint}')])
    return value


def mistakes(tree: Any) -> list[Problem]:
    """What is wrong with the templates of a tree whatever the variables are: syntax, lookups, unknown filters."""
    found: list[Problem] = []
    for route, text in _texts(tree, ()):
        try:
            compiled(text)
        except (JinjaError, TooLargeError, TooMuchError) as error:
            found += translated(error, text, Scope(), route).problems
    return found


def undeclared(tree: Any) -> set[str]:
    """Every name that the templates of a tree use."""
    names: set[str] = set()
    for _route, text in _texts(tree, ()):
        try:
            names |= compiled(text).names
        except JinjaError:
            continue  # `mistakes` tells of it
    return names


def condition_names(expression: str) -> set[str]:
    """Every name that a bare expression uses; none when it is not one, which `condition_mistakes` tells."""
    return set() if condition_mistakes(expression) else set(condition_of(expression).names)


def condition_mistakes(expression: str) -> list[Problem]:
    """What is wrong with a bare expression whatever the variables are."""
    try:
        condition_of(expression)
    except JinjaError as error:
        return list(translated(error, expression, Scope(), ()).problems)
    return []


def is_template(value: Any) -> bool:
    """Does a template stand anywhere in it?"""
    return next(_texts(value, ()), None) is not None


def _texts(tree: Any, route: Route) -> Any:
    if isinstance(tree, str):
        if "{{" in tree or "{%" in tree or "{#" in tree:
            yield route, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _texts(value, (*route, key))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from _texts(value, (*route, index))


def _render(tree: Any, scope: Scope, via: tuple[str, ...], *, keep: bool = False) -> Any:
    problems: list[Problem] = []
    waiting: list[NotYetError] = []

    def walk(value: Any, route: Route) -> Any:
        if isinstance(value, str):
            if "{" not in value:
                return value
            try:
                return _text(value, scope, via, route)
            except TemplateError as error:
                problems.extend(error.problems)
            except NotYetError as error:
                waiting.append(error)
            return value
        if isinstance(value, Mapping):
            return {key: walk(inner, (*route, key)) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [walk(inner, (*route, index)) for index, inner in enumerate(value)]
        return value

    result = walk(tree, ())
    if problems:
        raise TemplateError(problems)
    if waiting and not keep:
        raise waiting[0]
    return result


def _text(text: str, scope: Scope, via: tuple[str, ...], route: Route) -> Any:
    if "{{" not in text and "{%" not in text and "{#" not in text:
        return text
    try:
        template = compiled(text)
        return template.evaluate(needed(template.names, scope, via))
    except NotYetError:
        raise
    except Exception as error:
        raise translated(error, text, scope, route) from error


def needed(names: Collection[str], scope: Scope, via: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of those of the names that have one; a missing one shows when it is used. First what is not known
    yet: `default` must not hide it."""
    for name in sorted(names):
        if name in scope.pending and name not in scope.values:
            scope.get(name, via)
    return {name: scope.get(name, via) for name in sorted(names) if name in scope.values or name in scope.variables}


def translated(error: Exception, text: str, scope: Scope, route: Route) -> TemplateError:
    """Whatever a template can raise, as one Problem. Its messages name, they never quote values."""
    if isinstance(error, NotYetError):
        raise error
    if isinstance(error, TemplateError):
        return TemplateError([Problem(route, p.message, p.needle) for p in error.problems])
    needle = ""
    if isinstance(error, MissingError):
        needle = error.name
        near = guess(error.name, error.known if error.inside else scope.names)
        message = f'{error.inside} has no "{error.name}"' if error.inside else f'no variable "{error.name}"'
        message += near
    elif isinstance(error, TemplateAssertionError):
        message, needle = str(error.message), getattr(error, "needle", "")
    elif isinstance(error, TemplateSyntaxError):
        message = f"not a template: {str(error.message).rstrip('.')}"
    elif isinstance(error, TooLargeError):
        message = f"gives more than {MAX_TEXT} characters or items"
    elif isinstance(error, TooMuchError):
        message = f"would take too long: more than {MAX_STEPS} turns, calls and filters. Loop over less"
    elif isinstance(error, RecursionError):
        message = "calls itself without end, or nearly"
    elif isinstance(error, JinjaError):
        message = f"not possible in a template: {error.message}"
    else:
        message = f"the template failed: {type(error).__name__} in {_shortened(text)}"
    return TemplateError([Problem(route, message, needle)])


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "…"


_KINDS = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a mapping"}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "nothing")
