"""JSON Schema of the files a user writes, from the models that validate them: what an editor completes and checks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from engine.load.drill import DrillKeys
from engine.load.drill_format import MEANINGLESS, OF_A_BLOW, REFERENCE, DrillFile, SentinelsFile
from engine.load.format import DURATION_PATTERN, Keywords, PhaseFile, RunbookFile
from engine.load.resolve import CHECK_ACTION

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TEMPLATE = {"type": "string", "pattern": r"\{\{|\{%", "description": "A template."}


def runbook_schema() -> dict[str, Any]:
    """Of `runbook.yml`."""
    schema = RunbookFile.model_json_schema()
    return {"$schema": DIALECT, **schema, "title": "A runbook"}


def phase_schema(actions: Mapping[str, type], checks: Mapping[str, type]) -> dict[str, Any]:
    """Of a file of `phases/`. `actions` and `checks` map keys to their Params models.

    Where a value is no text, a template is allowed too; `$defs` are named after the key they belong to.
    """
    definitions = _definitions(actions, checks)
    phase = PhaseFile.model_json_schema()
    definitions |= phase.pop("$defs", {})
    phase["properties"]["steps"]["items"] = _reference("step")
    return {"$schema": DIALECT, **phase, "title": "A phase", "$defs": definitions}


def drill_schema(keys: DrillKeys) -> dict[str, Any]:
    """Of a file of `drills/`."""
    definitions = _definitions(keys.actions, keys.checks)
    for kind, models in (("fault", keys.faults), ("sentinels", keys.sentinels)):
        definitions |= {f"{kind}:{key}": _parameters(f"{kind}:{key}", models[key], definitions) for key in models}
    step = definitions["step"]
    step["properties"] = {k: v for k, v in step["properties"].items() if k not in MEANINGLESS}
    definitions["entry"] = {"anyOf": [_reference("step"), _reference("runbook's step")]}
    definitions["runbook's step"] = {
        "type": "object",
        "description": "A step of the runbook.",
        "properties": {REFERENCE: {"type": "string", "description": "`phase/step`."}},
        "required": [REFERENCE],
        "additionalProperties": False,
    }
    drill = DrillFile.model_json_schema()
    definitions |= drill.pop("$defs", {})
    properties = drill["properties"]
    for name in ("prepare", "recover"):
        properties[name]["items"] = _reference("entry")
    words = SentinelsFile.model_json_schema()["properties"]
    properties["sentinels"] = _blow("Numbered writes.", "sentinels", keys.sentinels, words)
    properties["fault"] = _blow("What happens.", "fault", keys.faults, {})
    return {"$schema": DIALECT, **drill, "title": "A drill", "$defs": definitions}


def _blow(description: str, kind: str, models: Mapping[str, type], words: Mapping[str, Any]) -> dict[str, Any]:
    """Sentinels or a fault: exactly one key of its kind, and a few words beside it."""
    keywords = Keywords.model_json_schema(by_alias=True)["properties"]
    shared = {word: keywords[word] for word in OF_A_BLOW}
    return {
        "type": "object",
        "description": description,
        "properties": {**shared, **words, **{key: _reference(f"{kind}:{key}") for key in models}},
        "additionalProperties": False,
        "oneOf": [{"required": [key]} for key in sorted(models)],
    }


def _definitions(actions: Mapping[str, type], checks: Mapping[str, type]) -> dict[str, Any]:
    """What steps are made of, by the key it belongs to."""
    definitions: dict[str, Any] = {}
    for key, model in checks.items():
        definitions[f"check:{key}"] = _parameters(f"check:{key}", model, definitions)
    definitions["check"] = _check_entry(checks)
    for key, model in actions.items():
        if key == CHECK_ACTION:
            definitions[f"action:{key}"] = {"type": "array", "items": _reference("check"), "minItems": 1}
        else:
            definitions[f"action:{key}"] = _parameters(f"action:{key}", model, definitions)
    definitions["step"] = _step(actions)
    return definitions


def _step(actions: Mapping[str, type]) -> dict[str, Any]:
    step = Keywords.model_json_schema(by_alias=True)
    step.pop("$defs", None)
    properties = step["properties"]
    properties["on_failure"] = {"enum": ["rollback", "stop", "ask"], "description": "Instead of the phase's."}
    for name in ("verify", "unless"):
        properties[name]["items"] = _reference("check")
    properties |= {key: _reference(f"action:{key}") for key in actions}
    return {
        "type": "object",
        "description": "A step: keywords, and exactly one action.",
        "properties": properties,
        "additionalProperties": False,
        "oneOf": [{"required": [key]} for key in sorted(actions)],
        "anyOf": [{"required": ["id"]}, {"required": ["name"]}],
    }


def _check_entry(checks: Mapping[str, type]) -> dict[str, Any]:
    fresh = {"type": "string", "pattern": DURATION_PATTERN, "description": "How long an earlier proof counts: 24h."}
    return {
        "type": "object",
        "description": "One check: its family with parameters, and perhaps `fresh`.",
        "properties": {**{key: _reference(f"check:{key}") for key in checks}, "fresh": fresh},
        "additionalProperties": False,
        "oneOf": [{"required": [key]} for key in sorted(checks)],
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": "#/$defs/" + name.replace("~", "~0").replace("/", "~1")}


def _parameters(name: str, model: type, definitions: dict[str, Any]) -> dict[str, Any]:
    """A model's schema; its own definitions move beside the others under names of their own."""
    schema = TypeAdapter(model).json_schema(ref_template=f"#/$defs/{name}.{{model}}")
    for inner, definition in schema.pop("$defs", {}).items():
        definitions[f"{name}.{inner}"] = _with_templates(definition)
    return dict(_with_templates(schema))


def _with_templates(schema: Any) -> Any:
    """The same schema, where every value inside an object or list may be a template instead."""
    schema = copy.deepcopy(schema)

    def walk(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        for key in ("properties", "patternProperties"):
            if key in node:
                node[key] = {name: allow(walk(value)) for name, value in node[key].items()}
        for key in ("items", "additionalProperties"):
            if isinstance(node.get(key), dict):
                node[key] = allow(walk(node[key]))
        for key in ("anyOf", "oneOf", "allOf"):
            if key in node:
                node[key] = [walk(value) for value in node[key]]
        return node

    def allow(node: Any) -> Any:
        plain_text = node.get("type") == "string" and not {"pattern", "enum", "format", "maxLength"} & node.keys()
        if not node or plain_text:
            return node
        kept = {key: node.pop(key) for key in ("title", "description", "default") if key in node}
        return {**kept, "anyOf": [node, TEMPLATE]} if node else kept

    return walk(schema)
