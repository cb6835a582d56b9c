"""From files to the model: order, loops, durations, what is chosen. Mistakes are golden cases (tests/golden/lint)."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel

from engine.core.model import OnFailure
from engine.errors import FilesError, NotYetError, UsageError
from engine.load.format import duration
from engine.load.lint import Registry, check, lint
from engine.load.resolve import Resolver
from engine.load.runbook import LoadedRunbook, load_runbook


class EchoParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str
    count: int = 1


class CheckParams(RootModel[list[dict[str, Any]]]):
    pass


class SeenParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    what: str
    times: int = Field(1, ge=1)


ACTIONS: dict[str, type] = {"echo": EchoParams, "check": CheckParams}
CHECKS: dict[str, type] = {"seen": SeenParams}


def project(root: Path, **phases: str) -> Path:
    folder = root / "runbooks" / "shop"
    (folder / "phases").mkdir(parents=True)
    (folder / "runbook.yml").write_text("title: Shop\nvars: {greeting: hello, who: nobody}\n")
    for name, text in phases.items():
        (folder / "phases" / f"{name}.yml").write_text(text)
    return root


def loaded(root: Path, variables: dict[str, Any] | None = None, **phases: str) -> LoadedRunbook:
    return load_runbook(project(root, **phases), None, ACTIONS, CHECKS, variables or {})


def needs(book: LoadedRunbook) -> dict[str, tuple[str, ...]]:
    return {s.id: s.needs for s in book.runbook.steps()}


def test_a_step_waits_for_those_above_or_for_what_it_says(tmp_path: Path) -> None:
    one = """
phase: one
steps:
  - {name: First step!, echo: {text: a}}
  - {id: b, needs: [], echo: {text: b}}
  - {id: c, echo: {text: c}}
  - {id: d, needs: [b], echo: {text: d}}
"""
    two = "phase: two\nsteps:\n  - {id: e, needs: [one/d], echo: {text: e}}\n"
    book = loaded(tmp_path, one=one, two=two)
    assert needs(book) == {
        "one/first-step": (),
        "one/b": (),
        "one/c": ("one/first-step", "one/b"),
        "one/d": ("one/b",),
        "two/e": ("one/d",),
    }
    assert [(p.id, p.title, p.needs) for p in book.runbook.phases] == [("one", "One", ()), ("two", "Two", ("one",))]


def test_a_sensitive_step_registers_nothing(tmp_path: Path) -> None:
    text = "phase: p\nsteps:\n  - {id: s, sensitive: true, register: out, echo: {text: x}}\n"
    with pytest.raises(FilesError, match=r"p\.yml:3:\d+  \"register\" in a \"sensitive\" step"):
        loaded(tmp_path, p=text)


def test_a_loop_has_a_bound(tmp_path: Path) -> None:
    text = "phase: p\nsteps:\n  - {id: l, loop: '{{ range(1001) }}', key: item, echo: {text: x}}\n"
    with pytest.raises(FilesError, match=r"p\.yml:3:\d+  a loop of 1001 turns: at most 1000 are possible"):
        loaded(tmp_path, p=text)


def test_a_loop_is_one_step_per_turn(tmp_path: Path) -> None:
    text = """
phase: p
steps:
  - id: db
    name: Database {{ item.name }}
    loop: "{{ databases }}"
    key: name
    echo: {text: "{{ item.name }} {{ greeting }}", count: "{{ item.port }}"}
  - {id: one, needs: ["db[b]"], echo: {text: x}}
  - {id: all, needs: [db], echo: {text: x}}
  - {id: words, loop: [x, y], key: "k-{{ item }}", echo: {text: "{{ item }}"}}
  - {id: none, loop: [], key: item, echo: {text: "{{ item }}"}}
  - {id: after-none, needs: [none], echo: {text: x}}
"""
    databases = [{"name": "a", "port": 1}, {"name": "b", "port": 2}]
    book = loaded(tmp_path, {"databases": databases}, p=text)
    assert needs(book) == {
        "p/db[a]": (),
        "p/db[b]": (),
        "p/one": ("p/db[b]",),
        "p/all": ("p/db[a]", "p/db[b]"),
        "p/words[k-x]": ("p/db[a]", "p/db[b]", "p/one", "p/all"),
        "p/words[k-y]": ("p/db[a]", "p/db[b]", "p/one", "p/all"),
        "p/after-none": (),
    }
    assert [s.name for s in book.runbook.steps()][:2] == ["Database a", "Database b"]
    params = Resolver(book, ACTIONS, CHECKS).resolve(book.runbook.step("p/db[b]"), {}).params
    assert params == EchoParams(text="b hello", count=2)


def test_keywords(tmp_path: Path) -> None:
    text = """
phase: p
title: The phase
savepoint: false
on_failure: stop
steps:
  - id: s
    echo: {text: x}
    timeout: 1h30m
    retries: 3
    delay: 1.5s
    fresh: 7d
    tags: [a, b]
    on_failure: ask
    irreversible: gone is gone
    sensitive: true
    when: [greeting == 'hello', who is defined]
"""
    book = loaded(tmp_path, p=text)
    (step,), (phase,) = tuple(book.runbook.steps()), book.runbook.phases
    assert (phase.title, phase.savepoint, phase.on_failure) == ("The phase", False, OnFailure.STOP)
    assert (step.timeout, step.delay, step.fresh) == (
        timedelta(hours=1, minutes=30),
        timedelta(seconds=1.5),
        timedelta(days=7),
    )
    assert step.when == "(greeting == 'hello') and (who is defined)"
    assert (step.tags, step.retries, step.on_failure) == ({"a", "b"}, 3, OnFailure.ASK)
    assert (step.irreversible, step.sensitive) == ("gone is gone", True)
    assert str(step.position) == "runbooks/shop/phases/p.yml:7:5"


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "-5m", "5m1h", 5, None, "9999999999d"])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="should be a duration"):
        duration(text)


def test_which_runbook(tmp_path: Path) -> None:
    root = project(tmp_path, p="phase: p\nsteps: [{id: a, echo: {text: a}}]\n")
    other = root / "runbooks" / "web"
    (other / "phases").mkdir(parents=True)
    (other / "runbook.yml").write_text("title: Web\n")
    (other / "phases" / "1.yml").write_text("phase: p\nsteps: [{id: a, echo: {text: a}}]\n")
    assert load_runbook(root, "web", ACTIONS, CHECKS, {}).runbook.title == "Web"
    assert load_runbook(root, None, ACTIONS, CHECKS, {"runbook": "web"}).runbook.name == "web"
    with pytest.raises(UsageError, match=r"holds 2 runbooks \(shop, web\): say which with `--runbook NAME`"):
        load_runbook(root, None, ACTIONS, CHECKS, {})
    with pytest.raises(UsageError, match=r'no runbook "shpo" \(did you mean "shop"\?\)'):
        load_runbook(root, "shpo", ACTIONS, CHECKS, {})


STEP = """
phase: p
steps:
  - {id: first, echo: {text: a}, register: out}
  - id: s
    vars: {mine: "{{ who }}-x", count: 3}
    when: greeting == 'hello'
    echo: {text: "{{ mine }}", count: "{{ count }}"}
    verify:
      - seen: {what: "{{ who }}", times: 2}
        fresh: 2h
      - {seen: {what: plain}}
    unless: [{seen: {what: "{{ who }}"}}]
    undo: {again: "{{ who }}"}
  - {id: later, echo: {text: "{{ out.text }}", count: "{{ out.count }}"}}
  - {id: checks, check: [{seen: {what: a, times: "{{ 2 }}"}, fresh: 1h}]}
  - {id: when-later, when: out.ok, echo: {text: x}}
"""


def test_resolving_a_step(tmp_path: Path) -> None:
    book = loaded(tmp_path, {"who": "ops"}, p=STEP)
    resolved = Resolver(book, ACTIONS, CHECKS).resolve(book.runbook.step("s"), {})
    assert resolved.params == EchoParams(text="ops-x", count=3)
    assert [(c.family, c.params.what, c.params.times, c.fresh) for c in resolved.verify] == [
        ("seen", "ops", 2, timedelta(hours=2)),
        ("seen", "plain", 1, None),
    ]
    assert resolved.unless[0].params == SeenParams(what="ops")
    assert resolved.undo == {"again": "ops"}
    assert resolved.variables["mine"] == "ops-x"
    assert not resolved.skip


def test_a_false_when_says_with_which_values(tmp_path: Path) -> None:
    book = loaded(tmp_path, {"greeting": "bye"}, p=STEP)
    resolved = Resolver(book, ACTIONS, CHECKS).resolve(book.runbook.step("s"), {})
    assert resolved.skip
    assert resolved.reason == "when greeting == 'hello' (greeting is bye)"


def test_what_is_registered_is_waited_for_then_used_then_never_rendered(tmp_path: Path) -> None:
    book = loaded(tmp_path, p=STEP)
    resolver = Resolver(book, ACTIONS, CHECKS)
    for name in ("later", "when-later"):
        with pytest.raises(NotYetError, match='"out"'):
            resolver.resolve(book.runbook.step(name), {})
    registered = {"out": {"text": "{{ who }}", "count": 2, "ok": False}}
    assert resolver.resolve(book.runbook.step("later"), registered).params == EchoParams(text="{{ who }}", count=2)
    assert resolver.resolve(book.runbook.step("when-later"), registered).skip


def test_an_item_is_not_rendered_again_and_own_variables_hide_registered_ones(tmp_path: Path) -> None:
    text = """
phase: p
steps:
  - {id: first, echo: {text: a}, register: out}
  - {id: l, loop: "{{ items }}", key: id, vars: {out: mine}, echo: {text: "{{ item.text }} {{ out }}"}}
"""
    items = [{"id": "a", "text": "{% raw %}{{ who }}{% endraw %}"}]
    book = loaded(tmp_path, {"items": items}, p=text)
    for registered in ({}, {"out": "theirs"}):
        params = Resolver(book, ACTIONS, CHECKS).resolve(book.runbook.step("l[a]"), registered).params
        assert params == EchoParams(text="{{ who }} mine")


def test_a_wrong_value_is_told_where_it_stands(tmp_path: Path) -> None:
    book = loaded(tmp_path, p=STEP)
    registered = {"out": {"text": "x", "count": "many"}}
    with pytest.raises(FilesError, match=r"p\.yml:15:\d+  count should be a whole number") as caught:
        Resolver(book, ACTIONS, CHECKS).resolve(book.runbook.step("later"), registered)
    assert "many" not in caught.value.diagnostics[0].message


def test_the_check_action_gets_its_checks_validated(tmp_path: Path) -> None:
    book = loaded(tmp_path, p=STEP)
    params = Resolver(book, ACTIONS, CHECKS).resolve(book.runbook.step("checks"), {}).params
    assert params.root == [{"seen": {"what": "a", "times": 2}, "fresh": timedelta(hours=1)}]


def test_a_check_steps_fresh_may_be_empty_or_not_known_yet(tmp_path: Path) -> None:
    text = """
phase: p
steps:
  - {id: first, echo: {text: a}, register: out}
  - {id: empty, check: [{seen: {what: a}, fresh: }]}
  - {id: later, check: [{seen: {what: a}, fresh: "{{ out.text }}"}]}
"""
    book = loaded(tmp_path, p=text)
    resolver = Resolver(book, ACTIONS, CHECKS)
    assert [resolver.validate(step) for step in book.runbook.steps()] == [[], [], []]
    assert resolver.resolve(book.runbook.step("empty"), {}).params.root == [{"seen": {"what": "a"}, "fresh": None}]


def test_lint_over_all_environments_says_where_a_mistake_holds(tmp_path: Path) -> None:
    root = project(tmp_path, p='phase: p\nsteps:\n  - {id: s, echo: {text: "{{ only }} {{ nowhere }}"}}\n')
    for name, variables in (("dev", "{}"), ("live", "{only: x}")):
        folder = root / "inventories" / name
        (folder / "group_vars").mkdir(parents=True)
        (folder / "hosts.yml").write_text("all: {hosts: {localhost: {ansible_connection: local}}}\n")
        (folder / "group_vars" / "all.yml").write_text(variables)
    registry = Registry(ACTIONS, CHECKS)
    found = [d.message for d in lint(root, None, None, registry, tmp_path / "cache")]
    assert found == ['no variable "only" (in dev)', 'no variable "nowhere" (in live)']
    assert [d.message for d in lint(root, None, "dev", registry, tmp_path / "cache")] == ['no variable "only"']


def test_lint_takes_each_environments_own_runbook(tmp_path: Path) -> None:
    root = project(tmp_path, p='phase: p\nsteps:\n  - {id: s, echo: {text: "{{ shops }}"}}\n')
    other = root / "runbooks" / "web" / "phases"
    other.mkdir(parents=True)
    (other.parent / "runbook.yml").write_text("title: Web\n")
    (other / "1.yml").write_text('phase: p\nsteps:\n  - {id: s, echo: {text: "{{ webs }}"}}\n')
    for name in ("shop", "web"):
        (root / "inventories" / name).mkdir(parents=True)
        hosts = f"all: {{hosts: {{localhost: {{runbook: {name}}}}}}}\n"
        (root / "inventories" / name / "hosts.yml").write_text(hosts)
    registry = Registry(ACTIONS, CHECKS)
    found = [d.message for d in lint(root, None, None, registry, tmp_path / "cache")]
    assert found == ['no variable "shops"', 'no variable "webs"']
    assert [d.message for d in lint(root, "web", None, registry, tmp_path / "cache")] == ['no variable "webs"']


def test_a_phase_under_another_ending_is_not_left_out_silently(tmp_path: Path) -> None:
    root = project(tmp_path, p="phase: p\nsteps: [{id: a, echo: {text: a}}]\n")
    (root / "runbooks" / "shop" / "phases" / "q.yaml").write_text("phase: q\nsteps: [{id: a, echo: {text: a}}]\n")
    with pytest.raises(FilesError, match=r"phases/q\.yaml is not read: name it q\.yml"):
        load_runbook(root, None, ACTIONS, CHECKS, {})


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A sound phase with some of its values replaced by anything."""
    anything = st.sampled_from(
        [None, True, 7, -1.5, "", "x", "{{ x", "{{ out.y }}", [], [[]], {}, {"a": {}}, ["{{ item }}"]]
    )

    def walk(value: Any) -> Any:
        if draw(st.integers(0, 9)) == 0:
            return draw(anything)
        if isinstance(value, dict):
            return {walk_key(k): walk(v) for k, v in value.items()}
        return [walk(v) for v in value] if isinstance(value, list) else value

    def walk_key(key: str) -> str:
        return key + "x" if draw(st.integers(0, 29)) == 0 else key

    sound = yaml.safe_load(STEP)
    sound["steps"].append({"id": "l", "loop": ["a", "b"], "key": "item", "echo": {"text": "{{ item }}"}, "tags": ["t"]})
    return walk(sound)


@given(damaged())
@settings(max_examples=150, deadline=None)
def test_whatever_stands_in_a_phase_gives_diagnostics_never_a_crash(data: Any) -> None:
    with TemporaryDirectory() as folder:
        root = project(Path(folder), p=json.dumps(data))
        for problem in check(root, None, {"who": "ops"}, Registry(ACTIONS, CHECKS)):
            assert problem.position.file.startswith("runbooks/shop/")
            assert problem.message
