"""What pydantic finds is told in our words, and of a union only what the writer meant."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import _pydantic_core

from engine.actions.secret import SecretParams
from engine.load.format import Keywords, PhaseFile, RunbookFile
from engine.load.validation import told, worded
from engine.registry import ACTION_TYPES, CHECK_TYPES
from engine.settings import Settings

THEIRS = re.compile(
    r"[Ii]nput|Extra inputs|[Ff]ield required|valid (string|integer|number|boolean|dict|list)|instance of"
    r"|[Vv]alue error|unable to|after validation|\{\w+\}|pydantic"
)
MODELS: list[Any] = [Keywords, PhaseFile, RunbookFile, Settings, *ACTION_TYPES.values(), *CHECK_TYPES.values()]
WRONG: list[Any] = [None, True, -1, 0, 10**30, 1.5, "", "x", "\0", [], [1], ["x", {}], {}, {"x": 1}, {"x": {"y": []}}]


def messages(model: Any, data: Any, what: str = "it") -> list[str]:
    try:
        TypeAdapter(model).validate_python(data)
    except ValidationError as error:
        return [message for _place, _key, message in told(error, model, data, what=what)]
    return []


@pytest.mark.parametrize("kind", _pydantic_core.list_all_errors(), ids=lambda kind: kind["type"])
def test_no_kind_of_mistake_is_told_in_pydantics_words(kind: Any) -> None:
    context = {**(kind.get("example_context") or {}), "error": "of ours"}
    message = worded({"type": kind["type"], "ctx": context, "msg": kind["message_template_python"]})
    assert not THEIRS.search(message), message


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_no_model_can_raise_a_mistake_in_pydantics_words(model: type[BaseModel]) -> None:
    said = [message for value in WRONG for message in messages(model, value)]
    for name, field in model.model_fields.items():
        said += [m for value in WRONG for m in messages(model, {field.alias or name: value, "nonesuch": 1})]
    assert said
    assert not [message for message in said if THEIRS.search(message)]


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ({"generate": {"lenght": 40}}, ['unknown key "lenght" in keys.k.generate (did you mean "length"?)']),
        ({"generate": {"length": 4}}, ["keys.k.generate.length should be at least 16"]),
        ({"value": 5}, ["keys.k.value should be text"]),
        ({"value": "x", "generate": {}}, ["keys.k has generate and value: only one of them can stand here"]),
        (
            {"genrate": {}},
            ['keys.k should have one of generate, given, public_of, value, not genrate (did you mean "generate"?)'],
        ),
        ({}, ["keys.k should have one of generate, given, public_of, value"]),
        ("hunter2", ["keys.k should be a mapping"]),
        ({"public_of": "k", "form": "text"}, ['unknown key "form" in keys.k']),
    ],
)
def test_of_a_secrets_key_only_what_was_meant_is_told(key: Any, wanted: list[str]) -> None:
    said = messages(SecretParams, {"path": "a/b", "keys": {"k": key}}, "secret")
    assert said == wanted


def test_text_or_a_model_is_judged_as_what_it_is() -> None:
    kind = str | SecretParams
    said = messages(kind, {"path": "a", "kyes": {}})
    assert said == ['it needs "keys"', 'unknown key "kyes" in it (did you mean "keys"?)']
    assert messages(kind, [1]) == ["it should be text or a mapping"]
