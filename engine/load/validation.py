"""What pydantic finds wrong with data, told at the place in the file where it stands."""

from __future__ import annotations

import re
import types
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, RootModel, ValidationError

from engine.errors import Diagnostic
from engine.load.document import Document, Route, guess
from engine.load.render import is_template


def diagnostics(
    error: ValidationError,
    document: Document,
    route: Route,
    model: Any,
    data: Any,
    *,
    what: str,
    extra_keys: Collection[str] = (),
    lenient: bool = False,
) -> list[Diagnostic]:
    """One Diagnostic per place. `route` leads to `data` in the document; `what` names it ("release").

    `lenient`: a mistake in a value that still holds a template is none yet.
    """
    found: dict[tuple[Route, bool], tuple[str, list[str]]] = {}
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        inner = tuple(p for p in problem["loc"])
        place, value, last = _walk(data, inner)
        kind = problem["type"]
        if kind == "extra_forbidden":
            near = guess(str(last), {*_fields(model, inner[:-1]), *extra_keys})
            message, key = f'unknown key "{last}" in {_owner(place[:-1], what)}{near}', True
        elif kind == "missing":
            message, key = f'{_owner(place, what)} needs "{inner[-1]}"', True
        elif lenient and is_template(value):
            continue
        else:
            message, key = _worded(problem["msg"]), False
        prefix = "" if kind in {"extra_forbidden", "missing"} else f"{_dotted(place) or what} "
        head, alternatives = found.setdefault((place, key), (prefix, []))
        if head == prefix and message not in alternatives:
            alternatives.append(message)
    return [
        document.problem((*route, *place), head + _joined(messages, key), key=key)
        for (place, key), (head, messages) in found.items()
    ]


def _joined(messages: list[str], key: bool) -> str:
    if key:
        return "; ".join(messages)
    return " or ".join([messages[0], *(m.removeprefix("should be ") for m in messages[1:])])


def _walk(data: Any, loc: Collection[str | int]) -> tuple[Route, Any, str | int]:
    """How far a pydantic location leads into the data: it also holds names of a union's members, which are no keys."""
    place: list[str | int] = []
    for part in loc:
        inside_mapping = isinstance(data, Mapping) and part in data
        inside_list = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if inside_mapping or inside_list:
            data = data[part]
            place.append(part)
    return tuple(place), data, place[-1] if place else ""


def _owner(place: Route, what: str) -> str:
    return _dotted(place) or what


def _dotted(place: Route) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _worded(message: str) -> str:
    """pydantic's sentence as the end of one of ours."""
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.replace("Input should", "should").replace("a valid string", "text")
    message = message.replace("a valid boolean", "true or false").replace("a valid dictionary", "a mapping")
    message = re.sub(r" or instance of \w+", "", message)
    message = message.replace("a valid integer", "a whole number").replace("a valid list", "a list")
    if message.startswith("String should"):
        message = message.removeprefix("String ")
    return message[:1].lower() + message[1:]


def _fields(model: Any, loc: Collection[str | int]) -> set[str]:
    """The keys that are known where a location leads: of every model that can stand there."""
    here = set(_models(model))
    for part in loc:
        deeper: set[Any] = set()
        for kind in here:
            field = _field(kind, part)
            if field is not None:
                deeper |= set(_models(field))
        narrowed = {kind for kind in here if getattr(kind, "__name__", "") == part}
        here = deeper or narrowed or here
    names: set[str] = set()
    for kind in here:
        names |= {f.alias or name for name, f in kind.model_fields.items()}
    return names


def _field(kind: Any, name: str | int) -> Any:
    for field_name, field in kind.model_fields.items():
        if name in (field_name, field.alias):
            return field.annotation
    return None


def _models(annotation: Any) -> Iterator[Any]:
    """Every pydantic model within an annotation, through unions, lists, mappings and root models."""
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        yield from _models(annotation.model_fields["root"].annotation)
    elif isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated, list, tuple, dict) or get_args(annotation):
        for part in get_args(annotation):
            yield from _models(part)
