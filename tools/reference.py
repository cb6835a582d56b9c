"""Write docs/reference.md: every key of every file, from the models that validate them.

python tools/reference.py            # writes it; a test holds it fresh
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from engine.load.checklist import ChecklistFile
from engine.load.drill import DrillFile
from engine.load.format import Keywords, PhaseFile, RunbookFile
from engine.load.readiness import ReadinessFile
from engine.registry import ACTION_TYPES, CHECK_TYPES, EVENTS
from engine.settings import Settings

TARGET = Path(__file__).parents[1] / "docs/reference.md"
_CELL = str.maketrans({"|": "\\|", "\n": " "})
_DURATION = r"^(\d+d)?"
_LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
_HEAD = """\
# Reference

Written by `python tools/reference.py` from the models that validate the files; do not edit. What the files are and how
they work together is in docs/format.md; `runbook schema` gives the same to an editor. `a.b` is a key within `a`,
`a[].b` one within each item of a list, `a.*.b` one within whatever stands in a mapping. A template may stand for any
value, not for a key. A duration is written `90s`, `5m`, `1h30m`, `7d`.
"""


def reference() -> str:
    """The whole page. The same models give the same text."""
    parts = [_HEAD]
    files = (("runbook.yml", RunbookFile), ("A phase", PhaseFile), ("A step, beside its action", Keywords))
    parts += [_section(title, model, "##") for title, model in files]
    parts.append("## Actions\n")
    for key, model in sorted(ACTION_TYPES.items()):
        parts.append(_section(f"`{key}`" + (" (an event)" if key in EVENTS else ""), model, "###"))
    parts.append("## Checks\n\nEach may have `fresh` beside it: how long an earlier proof of the same state counts.\n")
    parts += [_section(f"`{key}`", model, "###") for key, model in sorted(CHECK_TYPES.items())]
    more = (("A drill", DrillFile), ("readiness.yml", ReadinessFile), ("checklist.yml", ChecklistFile))
    parts += [_section(title, model, "##") for title, model in more]
    parts.append(_section("Variables of the inventory that the engine reads", Settings, "##"))
    return "\n".join(parts).rstrip() + "\n"


def _section(title: str, model: type, level: str) -> str:
    schema = TypeAdapter(model).json_schema(by_alias=True)
    said = " ".join(str(schema.get("description", "")).split())
    rows = [f"| `{key}` | {kind} | {default} | {told} |" for key, kind, default, told in _rows(schema)]
    table = ["| key | type | default | |", "|---|---|---|---|", *rows, ""] if rows else []
    return "\n".join([f"{level} {title}", "", *([said, ""] if said else []), *table])


def _rows(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    yield from _keys(schema, schema.get("$defs", {}), "", frozenset())


def _keys(
    node: Mapping[str, Any], known: Mapping[str, Any], before: str, above: frozenset[str]
) -> Iterator[tuple[str, str, str, str]]:
    """Every key of a mapping, and those within: `to.bucket`, `keys.*.length`, `proofs[].step`."""
    required = set(node.get("required", []))
    for key, value in node.get("properties", {}).items():
        default = "required" if key in required else _default(value)
        yield before + key, _type(value, known), default, " ".join(_told(value, known).split()).translate(_CELL)
        yield from _within(value, known, before + key, above)


def _within(
    value: Mapping[str, Any], known: Mapping[str, Any], name: str, above: frozenset[str]
) -> Iterator[tuple[str, str, str, str]]:
    for part in (value, *value.get("anyOf", ()), *value.get("oneOf", ()), *value.get("allOf", ())):
        if "$ref" in part:
            reference = part["$ref"].rpartition("/")[2]
            if reference not in above:
                yield from _keys(known[reference], known, f"{name}.", above | {reference})
        if isinstance(part.get("items"), dict):
            yield from _within(part["items"], known, f"{name}[]", above)
        if isinstance(part.get("additionalProperties"), dict):
            yield from _within(part["additionalProperties"], known, f"{name}.*", above)


def _type(value: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    if "$ref" in value:
        return _type(known[value["$ref"].rpartition("/")[2]], known)
    if words := value.get("enum", [value["const"]] if "const" in value else []):
        return ", ".join(f"`{item}`" for item in words).translate(_CELL)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in value:
            kinds = dict.fromkeys(_type(part, known) for part in value[several] if part.get("type") != "null")
            return " or ".join(kinds)
    kind = value.get("type")
    if kind == "array" and value.get("items"):
        return f"list of {_type(value['items'], known)}"
    if kind == "string" and str(value.get("pattern", "")).startswith(_DURATION):
        return "duration"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "array": "list",
    }
    words |= {None: "any"}
    return words.get(kind, "mapping") + _limits(value)


def _limits(value: Mapping[str, Any]) -> str:
    names = (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    )
    found = [f"{word} {value[name]:g}" for name, word in names if name in value]
    return f" ({', '.join(found)})" if found else ""


def _default(value: Mapping[str, Any]) -> str:
    if "default" not in value:
        return "none"
    default = value["default"]
    if default is None or default in ("", [], {}):
        return "none"
    if value.get("pattern", "").startswith(_DURATION) or (isinstance(default, str) and default.startswith("P")):
        return f"`{_duration(str(default))}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`".translate(_CELL)


def _duration(iso: str) -> str:
    """`PT5M` as it is written in a file: `5m`."""
    return iso.removeprefix("P").replace("T", "").lower() if iso.startswith("P") else iso


def _told(value: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Its description, else that of what it refers to."""
    parts = (value, *value.get("anyOf", ()), *value.get("allOf", ()))
    referred = [known[p["$ref"].rpartition("/")[2]] for p in parts if "$ref" in p]
    return next((str(p["description"]) for p in (value, *referred) if p.get("description")), "")


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
