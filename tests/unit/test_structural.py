"""Objects judged by schemas: a table of values, each with what should be said of it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.structural import Judge

INT_OR_STRING = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
ONE_OF = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
    "oneOf": [
        {"not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}},
        {"required": ["a"]},
        {"required": ["b"]},
    ],
}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "string"}, "x", []),
        ({"type": "string"}, 1, ["should be text, is a whole number: 1"]),
        ({"type": "boolean"}, "yes", ["should be true or false, is text: yes"]),
        ({"type": "integer"}, True, ["should be a whole number, is true or false: true"]),
        ({"type": "integer"}, 3.0, []),
        ({"type": "integer", "format": "int32"}, 2**31, ["should be at most 2147483647: 2147483648"]),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, 0, ["should be at least 0: 0"]),
        ({"type": "array", "items": {"type": "string"}}, ["a", 2], ["[1]: should be text, is a whole number: 2"]),
        ({"type": "array", "minItems": 1}, [], ["should have at least 1 entries, has 0"]),
        ({"type": "array", "x-kubernetes-list-type": "set"}, [1, 1], ["should have each entry once"]),
        ({"type": "object", "properties": {"port": {}}}, {"prot": 1}, ['prot: unknown field (did you mean "port"?)']),
        ({"type": "object", "properties": {"port": {}}}, {"zzz": 1}, ["zzz: unknown field (known: port)"]),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"prot": 1}, []),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            {"a": 1},
            ["a: should be text, is a whole number: 1"],
        ),
        ({"type": "object", "additionalProperties": True}, {"a": {"b": 1}}, []),
        ({"type": "object", "required": ["a"], "properties": {"a": {}}}, {}, ['the field "a" is missing']),
        ({"type": "object", "properties": {}}, {1: "x"}, ["1: a field's name should be text: quote it"]),
        ({"type": "string", "pattern": "^a+$"}, "b", ["should match ^a+$: b"]),
        ({"type": "string", "pattern": r"\p{Greek}"}, "b", []),
        ({"type": "string", "format": "byte"}, "no", ["should be base64: no"]),
        ({"type": "string", "maxLength": 1}, "ab", ["should have at most 1 characters: ab"]),
        (INT_OR_STRING, 80, []),
        (INT_OR_STRING, "http", []),
        (INT_OR_STRING, [], ["should be a whole number or text"]),
        (ONE_OF, {}, []),
        (ONE_OF, {"a": "1"}, []),
        (ONE_OF, {"a": "1", "b": "2"}, ["fits 2 of what excludes one another: a | b"]),
        ({"type": "object", "not": {"required": ["a"]}, "properties": {"a": {}}}, {"a": 1}, ["must not be with a"]),
        ({"type": "string"}, None, ["should be text, is empty"]),
        ({"type": "string", "nullable": True}, None, []),
        ({"$ref": "Port"}, 70000, ["should be at most 65535: 70000"]),
    ],
)
def test_what_is_said_of_a_value(schema: dict[str, Any], value: Any, expected: list[str]) -> None:
    judge = Judge({"Port": {"type": "integer", "maximum": 65535}}, null_is_absent=False)
    assert [str(m) for m in judge.mistakes(value, schema)] == expected


def test_null_is_absent_where_the_server_reads_it_so() -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
    assert [str(m) for m in Judge({}).mistakes({"a": None, "b": None}, schema)] == ['the field "a" is missing']


def test_no_value_is_quoted_when_told_so() -> None:
    assert "hunter2" not in str(
        Judge({}).mistakes({"a": "hunter2"}, {"type": "object", "properties": {"a": {"type": "integer"}}}, quote=False)
    )
