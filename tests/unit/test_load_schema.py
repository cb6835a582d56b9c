"""The schema says of a file what the loader says of it: accepted by both, or by neither."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel

from engine.load import yaml
from engine.load.drill import DrillKeys
from engine.load.filters import KEPT_FILTERS, OWN_FILTERS
from engine.load.format import KEYWORDS, PhaseFile, RunbookFile
from engine.load.schema import drill_schema, phase_schema, runbook_schema


class Inner(BaseModel):
    """Something inside."""

    model_config = ConfigDict(extra="forbid")
    size: int = Field(1, description="How much.")
    mode: Literal["a", "b"] = "a"


class ReleaseParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    chart: str
    inner: Inner | None = None
    many: dict[str, Inner] = Field(default_factory=dict)
    listed: list[Inner] = Field(default_factory=list)


class CheckParams(RootModel[list[dict[str, Any]]]):
    pass


class HttpParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    url: str = Field(pattern="^https?://")
    inner: Inner | None = None


SCHEMA = phase_schema({"release": ReleaseParams, "check": CheckParams}, {"http": HttpParams})


def accepted(text: str) -> bool:
    data = yaml.parse(text.encode(), "f.yml").data
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(data))


def step(text: str) -> str:
    return "phase: p\nsteps:\n  - {id: s, " + text + "}\n"


DRILL = drill_schema(
    DrillKeys(
        {"release": ReleaseParams, "check": CheckParams},
        {"http": HttpParams},
        faults={"gone": Inner},
        sentinels={"rows": Inner},
    )
)
RIGHT: dict[str, Any] = {
    "drill": "d",
    "title": "t",
    "targets": {"rpo": "1h", "rto": "5m"},
    "sentinels": {"rate": 2, "rows": {"size": "{{ n }}"}, "timeout": "1m"},
    "fault": {"gone": {}},
    "detect": {"steps": ["p/s"], "within": "1m"},
    "recover": [{"deploy": "p/s"}, {"id": "a", "release": {"chart": "c"}}],
    "verify": {"phases": ["p"]},
}
WRONG_DRILLS: list[dict[str, Any]] = [
    {"targets": {"rpo": "soon", "rto": "5m"}},
    {"sentinels": {"rate": 2}},
    {"sentinels": {"rows": {}, "when": "true"}},
    {"fault": {"gone": {}, "other": {}}},
    {"fault": {"gone": {"sise": 1}}},
    {"detect": {"steps": []}},
    {"recover": []},
    {"recover": [{"deploy": "p/s", "timeout": "1m"}]},
    {"recover": [{"id": "a", "release": {"chart": "c"}, "needs": []}]},
    {"more": 1},
]


def test_the_schema_of_a_drill_takes_what_is_right_and_nothing_else() -> None:
    jsonschema.Draft202012Validator.check_schema(DRILL)
    validator = jsonschema.Draft202012Validator(DRILL)
    assert [e.message for e in validator.iter_errors(RIGHT)] == []
    for wrong in WRONG_DRILLS:
        assert not validator.is_valid({**RIGHT, **wrong}), wrong


def test_the_schemas_themselves_are_schemas() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(runbook_schema())


@pytest.mark.parametrize(
    "text",
    [
        "release: {chart: x, inner: {size: 2, mode: b}}",
        'release: {chart: x, inner: {size: "{{ n }}", mode: "{{ m }}"}}',
        'release: {chart: x, inner: "{{ all }}", many: {a: {size: 1}, b: "{{ c }}"}, listed: ["{{ d }}"]}',
        "release: {chart: x}, when: a == 1, tags: one, needs: [], timeout: 1h30m, loop: [1], key: item",
        "release: {chart: x}, when: [a, b], on_failure: ask, verify: [{http: {url: 'http://x'}, fresh: 1h}]",
        "check: [{http: {url: '{{ x }}'}}]",
    ],
)
def test_accepted(text: str) -> None:
    assert accepted(step(text))


@pytest.mark.parametrize(
    "text",
    [
        "release: {chart: x, inner: {size: many}}",
        "release: {chart: x, inner: {sise: 1}}",
        "release: {chrt: x}",
        "release: {chart: [x]}",
        "relese: {chart: x}",
        "release: {chart: x}, check: [{http: {url: 'http://x'}}]",
        "release: {chart: x}, timout: 5m",
        "release: {chart: x}, timeout: 5 minutes",
        "release: {chart: x}, verify: [{htpp: {}}]",
        "check: [{http: {url: 'ftp://x'}}]",
        "check: {http: {url: 'http://x'}}",
    ],
)
def test_refused(text: str) -> None:
    assert not accepted(step(text))


def test_runbook_file() -> None:
    validator = jsonschema.Draft202012Validator(runbook_schema())
    assert validator.is_valid({"title": "x", "vars": {"a": 1}, "phases": ["phases/1.yml"]})
    assert not validator.is_valid({"titel": "x"})


def test_the_reference_names_every_keyword_and_filter() -> None:
    text = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    named = set(re.findall(r"[a-z0-9_]+", " ".join(re.findall(r"`([^`\n]+(?:\n[^`\n]+)*)`", text))))
    fields = {*KEYWORDS, *PhaseFile.model_fields, *RunbookFile.model_fields}
    assert fields - named == set()
    assert {*KEPT_FILTERS, *OWN_FILTERS, "format"} - {"d"} - named == set()
