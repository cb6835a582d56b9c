"""What pydantic finds wrong with data, told at the place in the file where it stands."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core.core_schema import ErrorType

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
    found = told(error, model, data, what=what, extra_keys=extra_keys, lenient=lenient)
    return [document.problem((*route, *place), message, key=key) for place, key, message in found]


def told(
    error: ValidationError,
    model: Any,
    data: Any,
    *,
    what: str,
    extra_keys: Collection[str] = (),
    lenient: bool = False,
) -> list[tuple[Route, bool, str]]:
    """The same before it has a place in a file: the way into `data`, whether its key is meant, and what is wrong."""
    found: dict[tuple[Route, bool], tuple[str, list[str]]] = {}
    for problem in meant(error.errors(include_url=False, include_input=False), model, data):
        inner = tuple(p for p in problem["loc"])
        place, value, last = _walk(data, inner)
        kind = problem["type"]
        prefix, key = "", True
        if kind == "extra_forbidden":
            near = guess(str(last), {*_fields(model, inner[:-1]), *extra_keys})
            message = f'unknown key "{last}" in {_owner(place[:-1], what)}{near}'
        elif kind == "missing":
            message = f'{_owner(place, what)} needs "{inner[-1]}"'
        elif lenient and is_template(value):
            continue
        else:
            prefix, message, key = f"{_dotted(place) or what} ", worded(problem), False
        head, alternatives = found.setdefault((place, key), (prefix, []))
        if head == prefix and message not in alternatives:
            alternatives.append(message)
    return [(place, key, head + _joined(messages, key)) for (place, key), (head, messages) in found.items()]


_WORDS: Mapping[str, str] = {
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
    "dict_type": "should be a mapping",
    "enum": "should be {expected}",
    "finite_number": "should be a finite number",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "greater_than": "should be greater than {gt}",
    "greater_than_equal": "should be at least {ge}",
    "int_from_float": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_parsing_size": "is too large a number",
    "int_type": "should be a whole number",
    "invalid_key": "has a key that is not text",
    "less_than": "should be less than {lt}",
    "less_than_equal": "should be at most {le}",
    "list_type": "should be a list",
    "literal_error": "should be {expected}",
    "mapping_type": "should be a mapping",
    "model_attributes_type": "should be a mapping",
    "model_type": "should be a mapping",
    "multiple_of": "should be a multiple of {multiple_of}",
    "none_required": "should be empty",
    "set_type": "should be a list",
    "string_pattern_mismatch": "should match {pattern}",
    "string_too_long": "should have at most {max_length} characters",
    "string_too_short": "should have at least {min_length} characters",
    "string_type": "should be text",
    "string_unicode": "should be text",
    "time_delta_parsing": "should be a duration",
    "time_delta_type": "should be a duration",
    "too_long": "should have at most {max_length} entries",
    "too_short": "should have at least {min_length} entries",
    "tuple_type": "should be a list",
    "union_tag_invalid": "should be one of {expected_tags}",
    "url_parsing": "should be a URL",
    "url_type": "should be a URL",
}
"""Kind of mistake -> the end of a sentence of ours. What an author's own validator says stands as it is."""
_KNOWN = frozenset(get_args(ErrorType))
"""Every kind that pydantic itself knows."""


def worded(problem: Mapping[str, Any]) -> str:
    """One of pydantic's mistakes in our words; never its own sentence."""
    kind, context = problem["type"], problem.get("ctx") or {}
    if kind in ("value_error", "assertion_error"):
        message = str(context["error"])
        return message[:1].lower() + message[1:]
    if kind in _WORDS:
        message = _WORDS[kind].format_map(context)
        return message.replace(" 1 characters", " 1 character").replace(" 1 entries", " 1 entry")
    if kind in _KNOWN:
        return "is not what can stand here"
    message = str(problem["msg"])  # a PydanticCustomError of an author
    return message[:1].lower() + message[1:]


def meant(problems: Sequence[Any], model: Any, data: Any) -> list[Any]:
    """Without what belongs to members of a union that were not meant: where something may be one thing or another,
    every member complains, and only the one whose kind and keys are given has a say."""
    left = list(problems)
    for prefix in sorted({p for problem in left for p in _branchings(problem["loc"], data)}, key=len):
        members: dict[Any, list[Any]] = {}
        for problem in left:
            loc = problem["loc"]
            if loc[: len(prefix)] == prefix and prefix in _branchings(loc, data):
                members.setdefault(loc[len(prefix)], []).append(problem)
        if len(members) < 2:
            continue
        chosen = _chosen(members, prefix, model, data)
        others = {id(problem) for found in members.values() for problem in found}
        left = [problem for problem in left if id(problem) not in others] + chosen
    return left


def _branchings(loc: tuple[str | int, ...], data: Any) -> list[tuple[str | int, ...]]:
    """Where a location goes on with a member of a union instead of a key: the ways that lead up to there."""
    found = []
    for index, part in enumerate(loc):
        step, data, _last = _walk(data, (part,))
        if not step:
            found.append(loc[:index])
    return found


def _chosen(members: Mapping[Any, list[Any]], prefix: Route, model: Any, data: Any) -> list[Any]:
    """The mistakes of the member that was meant; one of ours when that cannot be told."""
    value = _walk(data, prefix)[1]
    fitting = {tag: found for tag, found in members.items() if not any(_other_kind(p, prefix) for p in found)}
    if not fitting or not isinstance(value, Mapping):
        return [problem for found in (fitting or members).values() for problem in found]
    fields = {kind.__name__: _own_fields(kind) for kind in _kinds(model, prefix)}
    known = {tag: fields[tag] for tag in fitting if tag in fields}
    given = {tag: known[tag] & value.keys() for tag in known}
    best = max((len(keys) for keys in given.values()), default=0)
    first = [tag for tag in known if len(given[tag]) == best]
    if len(first) == 1:
        return fitting[first[0]]
    if not known:
        return [problem for found in fitting.values() for problem in found]
    names = sorted({name for tag in known for name in known[tag]})
    if best and not set.intersection(*(given[tag] for tag in first)):
        both = sorted({name for tag in first for name in given[tag]})
        return [_own(prefix, f"has {' and '.join(both)}: only one of them can stand here")]
    if best:
        return fitting[min(first, key=lambda tag: len(fitting[tag]))]
    near = next((hint for key in value if (hint := guess(str(key), names))), "")
    has = f", not {', '.join(map(str, value))}{near}" if value else ""
    return [_own(prefix, f"should have one of {', '.join(names)}{has}")]


def _other_kind(problem: Mapping[str, Any], prefix: Route) -> bool:
    """Is it about the value itself being of another kind than this member of the union?"""
    return len(problem["loc"]) == len(prefix) + 1 and problem["type"].endswith(("_type", "_required"))


def _own(loc: Route, message: str) -> dict[str, Any]:
    return {"loc": loc, "type": "union_of_ours", "msg": message}


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


def _fields(model: Any, loc: Collection[str | int]) -> set[str]:
    """The keys that are known where a location leads: of every model that can stand there."""
    return {name for kind in _kinds(model, loc) for name in _own_fields(kind)}


def _own_fields(kind: Any) -> set[str]:
    return {field.alias or name for name, field in kind.model_fields.items()}


def _kinds(model: Any, loc: Collection[str | int]) -> set[Any]:
    """Every model that can stand where a location leads."""
    here = set(models_in(model))
    for part in loc:
        deeper: set[Any] = set()
        for kind in here:
            field = _field(kind, part)
            if field is not None:
                deeper |= set(models_in(field))
        narrowed = {kind for kind in here if getattr(kind, "__name__", "") == part}
        here = deeper or narrowed or here
    return here


def _field(kind: Any, name: str | int) -> Any:
    for field_name, field in kind.model_fields.items():
        if name in (field_name, field.alias):
            return field.annotation
    return None


def models_in(annotation: Any) -> Iterator[Any]:
    """Every pydantic model within an annotation, through unions, lists, mappings and root models."""
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        yield from models_in(annotation.model_fields["root"].annotation)
    elif isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated, list, tuple, dict) or get_args(annotation):
        for part in get_args(annotation):
            yield from models_in(part)
