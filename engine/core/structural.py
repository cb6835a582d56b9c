"""Whether a Kubernetes object is as its schema says, judged as strictly as the API server does. Pure.

A schema is what the server publishes for its own kinds (OpenAPI, `$ref` by a definition's bare name) or what a
CustomResourceDefinition holds under `openAPIV3Schema` ("Structural schemas" in the Kubernetes documentation). What only
code decides is not looked at: `x-kubernetes-validations` (CEL), the server's own rules beyond types, admission.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]

_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_RANGES = {"int32": 31, "int64": 63}
_SHOWN = 40  # characters of a wrong value that are shown
_OBJECT_FIELDS = ("apiVersion", "kind", "metadata")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong: where in the object (`spec.ports[0].port`), and what was expected there."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges objects by the schemas of one source.

    `definitions` are what a `$ref` names. `null_is_absent`: the server reads `null` as a field that is not there, as it
    does for its own kinds; a custom resource must say `nullable`.
    """

    definitions: Mapping[str, Schema]
    null_is_absent: bool = True

    def mistakes(self, value: Any, schema: Schema, *, quote: bool = True) -> list[Mistake]:
        """Everything that is wrong with an object. `quote=False`: no value of it is in a message."""
        return list(self._walk(value, schema, "", quote=quote))

    def _walk(self, value: Any, schema: Schema, path: str, *, quote: bool) -> Iterator[Mistake]:
        schema = self._resolved(schema)
        if value is None:
            if not (self.null_is_absent or schema.get("nullable")):
                yield Mistake(path, f"should be {_expected(schema)}, is empty")
            return
        if wrong := self._type_mistake(value, schema):
            yield Mistake(path, wrong + _quoted(value, quote))
            return
        if wrong := _value_mistake(value, schema):
            yield Mistake(path, wrong + _quoted(value, quote))
        yield from (Mistake(path, wrong) for wrong in self._combined(value, schema))
        if isinstance(value, Mapping):
            yield from self._fields(value, schema, path, quote=quote)
        elif isinstance(value, list) and "items" in schema:
            for index, item in enumerate(value):
                yield from self._walk(item, schema["items"], f"{path}[{index}]", quote=quote)

    def _fields(self, value: Mapping[str, Any], schema: Schema, path: str, *, quote: bool) -> Iterator[Mistake]:
        fields: Mapping[str, Schema] = schema.get("properties") or {}
        others = schema.get("additionalProperties")
        anything = schema.get("x-kubernetes-preserve-unknown-fields") or others is True
        embedded = schema.get("x-kubernetes-embedded-resource")
        for name in schema.get("required") or ():
            if value.get(name) is None and not self._nullable(fields.get(name), name in value):
                yield Mistake(path, f'the field "{name}" is missing')
        for name, inner in value.items():
            where = f"{path}.{name}" if path else str(name)
            if not isinstance(name, str):
                yield Mistake(where, "a field's name should be text: quote it")
            elif name in fields:
                yield from self._walk(inner, fields[name], where, quote=quote)
            elif isinstance(others, Mapping):
                yield from self._walk(inner, others, where, quote=quote)
            elif not anything and not (embedded and name in _OBJECT_FIELDS):
                yield Mistake(where, "unknown field" + _near(name, fields))

    def _nullable(self, schema: Schema | None, given: bool) -> bool:
        return bool(given and schema and self._resolved(schema).get("nullable"))

    def _type_mistake(self, value: Any, schema: Schema) -> str:
        if schema.get("x-kubernetes-int-or-string"):
            wanted = (int, float, str) if schema.get("format") == "quantity" else (int, str)
            return "" if isinstance(value, wanted) and not isinstance(value, bool) else f"should be {_expected(schema)}"
        kind = schema.get("type")
        if not kind or _is(value, kind):
            return ""
        return f"should be {_KINDS.get(kind, kind)}, is {_kind_of(value)}"

    def _combined(self, value: Any, schema: Schema) -> Iterator[str]:
        """`allOf`, `anyOf`, `oneOf`, `not`: conditions on values beside the structure."""
        for part in schema.get("allOf") or ():
            yield from (str(m) for m in self._conditions(value, part))
        if (parts := schema.get("anyOf")) and not any(self._holds(value, part) for part in parts):
            yield "fits none of what is possible: " + _choices(parts)
        if parts := schema.get("oneOf"):
            fitting = sum(self._holds(value, part) for part in parts)
            if fitting != 1:
                many = "fits none" if not fitting else f"fits {fitting}"
                yield f"{many} of what excludes one another: {_choices(parts)}"
        if (part := schema.get("not")) is not None and self._holds(value, part):
            yield f"must not be with {_choices([part])}"

    def _holds(self, value: Any, part: Schema) -> bool:
        return next(self._conditions(value, part), None) is None

    def _conditions(self, value: Any, part: Schema) -> Iterator[Mistake]:
        """The same walk without strictness: a condition names only the fields it is about."""
        yield from self._walk(value, _loose(part), "", quote=False)

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self.definitions[schema["$ref"]]
        return schema


def _loose(part: Schema) -> Schema:
    """A condition with room for fields that it does not name, at every level."""
    loose = dict(part)
    loose["x-kubernetes-preserve-unknown-fields"] = True
    if "properties" in part:
        loose["properties"] = {name: _loose(inner) for name, inner in part["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(part.get(key), Mapping):
            loose[key] = _loose(part[key])
    return loose


def _value_mistake(value: Any, schema: Schema) -> str:  # noqa: PLR0911 (one line for each rule)
    if (allowed := schema.get("enum")) is not None and value not in allowed:
        return "should be one of " + ", ".join(map(str, allowed))
    if isinstance(value, str):
        return _text_mistake(value, schema)
    if isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        return _number_mistake(value, schema)
    fewest, most = ("minItems", "maxItems") if isinstance(value, list) else ("minProperties", "maxProperties")
    if len(value) < schema.get(fewest, 0):
        return f"should have at least {schema[fewest]} entries, has {len(value)}"
    if len(value) > schema.get(most, len(value)):
        return f"should have at most {schema[most]} entries, has {len(value)}"
    if schema.get("x-kubernetes-list-type") == "set" and len({repr(item) for item in value}) < len(value):
        return "should have each entry once"
    return ""


def _text_mistake(value: str, schema: Schema) -> str:
    if len(value) < schema.get("minLength", 0):
        return f"should have at least {schema['minLength']} characters"
    if len(value) > schema.get("maxLength", len(value)):
        return f"should have at most {schema['maxLength']} characters"
    if (pattern := schema.get("pattern")) and not _matches(pattern, value):
        if schema.get("format") == "quantity":
            return "should be a quantity like 500m or 2Gi"
        return f"should match {pattern}"
    if schema.get("format") == "byte":
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return "should be base64"
    return ""


def _number_mistake(value: float, schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if bits := _RANGES.get(schema.get("format", "")):
        low = -(2**bits) if low is None else low
        high = 2**bits - 1 if high is None else high
    if low is not None and (value < low or (schema.get("exclusiveMinimum") is True and value == low)):
        return f"should be at least {low}"
    if high is not None and (value > high or (schema.get("exclusiveMaximum") is True and value == high)):
        return f"should be at most {high}"
    if (step := schema.get("multipleOf")) and value % step:
        return f"should be a multiple of {step}"
    return ""


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": Mapping,
    "array": list,
    "string": str,
    "number": (int, float),
}


def _matches(pattern: str, value: str) -> bool:
    """By Python's rules. A pattern that only Go's regular expressions know is not looked at."""
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return True


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, _TYPES.get(kind, object))


def _kind_of(value: Any) -> str:
    return next((words for kind, words in _KINDS.items() if _is(value, kind)), type(value).__name__)


def _expected(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "a quantity like 500m or 2Gi" if schema.get("format") == "quantity" else "a whole number or text"
    return _KINDS.get(schema.get("type", ""), "there")


def _near(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f' (did you mean "{near[0]}"?)'
    return f" (known: {', '.join(sorted(known)[:12])}{', …' if len(known) > 12 else ''})" if known else ""


def _choices(parts: list[Schema]) -> str:
    """Conditions as a person would name them: mostly the fields they ask for."""
    named = [f"{'+'.join(p['required'])}" for p in parts if p.get("required")]
    return " | ".join(named) or "see its schema"


def _quoted(value: Any, quote: bool) -> str:
    if not quote or isinstance(value, Mapping | list):
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f": {text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'}"
