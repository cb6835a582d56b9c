"""Templates: what they give, what they cannot reach, and what their mistakes say."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import FilesError, NotYetError
from engine.load.render import (
    Scope,
    TemplateError,
    condition,
    condition_mistakes,
    mistakes,
    render,
    render_known,
    undeclared,
)
from engine.load.text import render_file

SCOPE = Scope(
    {
        "port": 80,
        "host": "web.{{ domain }}",
        "domain": "test",
        "servers": ["a", "b"],
        "server": {"name": "a", "port": 1},
        "one": "{{ two }}",
        "two": "{{ one }}",
        "facts": "{{ ansible_facts.os }}",
    },
    {"answer": "{{ port }}"},
    {"later"},
)


def failure(tree: Any) -> str:
    with pytest.raises(TemplateError) as caught:
        render(tree, SCOPE)
    return str(caught.value)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain { text }", "plain { text }"),
        ("{{ port }}", 80),
        ("{{ port }}\n", 80),
        ("port {{ port }}", "port 80"),
        ("{{ port }}{{ port }}", "8080"),
        ("{{ servers }}", ["a", "b"]),
        ("{{ server.name }}", "a"),
        ("{{ host }}", "web.test"),
        ("{{ server.keys() }}", ["name", "port"]),
        ("{{ servers | map('upper') }}", ["A", "B"]),
        ("{{ range(2) }}", [0, 1]),
        ("{{ nothing | default('d') }}", "d"),
        ("{{ server.nothing | default('d') }}", "d"),
        ("{{ '{{' }}", "{{"),
        ("{% raw %}{{ $labels.x }}{% endraw %}", "{{ $labels.x }}"),
        ("{{ 'a-1' | regex_replace('[0-9]', 'n') }}", "a-n"),
        ("{{ 'x' | b64encode }}", "eA=="),
        ("{{ server | to_json }}", '{"name": "a", "port": 1}'),
        ("{{ 'yes' | bool }}", True),
        ("{{ server | combine({'port': 2}) }}", {"name": "a", "port": 2}),
        ("{% for s in servers %}{{ s }};{% endfor %}", "a;b;"),
        ("{{ '%03d' | format(port) }}", "080"),
    ],
)
def test_values(template: str, value: object) -> None:
    assert render({"k": [template]}, SCOPE) == {"k": [value]}


def test_what_came_from_outside_is_never_rendered() -> None:
    assert render("{{ answer }}", SCOPE) == "{{ port }}"
    assert render("x{{ answer }}", SCOPE) == "x{{ port }}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ prot }}", 'no variable "prot" (did you mean "port"?)'),
        ("{{ server.nme }}", 'the mapping has no "nme" (did you mean "name"?)'),
        ("{{ one }}", 'in the variable "one": variables that need each other: one → two → one'),
        ("{{ facts }}", 'in the variable "facts": no variable "ansible_facts"'),
        ("{{ lookup('env', 'HOME') }}", "lookup() reads from outside"),
        ("{% if q('x') %}{% endif %}", "q() reads from outside"),
        ("{% include '/etc/passwd' %}", "{% include %} reaches outside this text"),
        ("{{ port | defualt(1) }}", 'no filter "defualt" (did you mean "default"?)'),
        ("{{ port is nunber }}", 'no test "nunber" (did you mean "number"?)'),
        ("{{ port", "not a template"),
        ("{{ ''.__class__.__mro__ }}", 'the value has no "__class__"'),
        ("{{ '' | attr('__class__') }}", 'the value has no "__class__"'),
        ("{{ servers.append('c') }}", 'the list has no "append"'),
        ("{{ server.items }}", "not possible in a template"),
        ("{{ 'x' * 9999999 }}", "gives more than"),
        ("{{ servers * 9999999 }}", "gives more than"),
        ("{{ 9 ** 999999 }}", "gives more than"),
        ("{{ '%09999999d' % 1 }}", "gives more than"),
        ("{{ '%*d' | format(9999999, 1) }}", "gives more than"),
        ("{{ 'x'.center(99999999) }}", 'the value has no "center"'),
        ("{% for i in range(99999) %}{{ 'xxxxxxxxxxxxxxxxxxxx' }}{% endfor %}", "gives more than"),
        ("{{ range(99999999) }}", "would take too long"),
        ("{{ 1 / 0 }}", "the template failed: ZeroDivisionError"),
        ("{{ 'maybe' | bool }}", "bool: neither true nor false"),
        ("{{ none.x }}", 'the value has no "x"'),
    ],
)
def test_mistakes(template: str, message: str) -> None:
    assert message in failure(template)


@pytest.mark.parametrize(
    "source", ["(" * 500 + "1" + ")" * 500, "-" * 3000 + "1", "not " * 3000 + "1", "1" + "+1" * 5000]
)
def test_what_is_nested_too_deeply_is_a_mistake(source: str) -> None:
    with pytest.raises(TemplateError, match=r"too (deeply|complicated)"):
        render("{{ " + source + " }}", Scope())
    assert condition_mistakes(source)


@pytest.mark.parametrize("template", [r"{{ '\ud800' }}", r"x{{ '\ud800' }}", r"{{ ['\ud800'] }}"])
def test_half_a_surrogate_pair_is_no_text(template: str) -> None:
    with pytest.raises(TemplateError, match="surrogate"):
        render(template, Scope())


def test_mistakes_come_with_their_place_and_all_at_once() -> None:
    with pytest.raises(TemplateError) as caught:
        render({"a": ["{{ prot }}"], "b": "{{ hots }}", "c": "{{ later }}"}, SCOPE)
    assert [(p.route, p.needle) for p in caught.value.problems] == [(("a", 0), "prot"), (("b",), "hots")]


def test_what_is_not_known_yet_is_said_even_behind_a_default() -> None:
    for template in ("{{ later }}", "{{ later.x | default(1) }}", "a {{ later }}"):
        with pytest.raises(NotYetError, match='"later" is registered by a step that has not run yet'):
            render(template, SCOPE)
    assert render_known({"a": "{{ later }}", "b": "{{ port }}"}, SCOPE) == {"a": "{{ later }}", "b": 80}


def test_a_variable_may_need_what_is_registered() -> None:
    scope = Scope({"url": "http://{{ later.host }}"}, {}, {"later"})
    with pytest.raises(NotYetError):
        render("{{ url }}", scope)
    assert render("{{ url }}", Scope(scope.variables, {"later": {"host": "h"}}, ())) == "http://h"


@pytest.mark.parametrize(
    ("expression", "value"),
    [("port == 80", True), ("host == 'web.test' and not false", True), ("nothing is defined", False)],
)
def test_conditions(expression: str, value: bool) -> None:
    assert condition(expression, SCOPE) is value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("host", "gives text, not true or false (write `| bool`)"),
        ("servers", "gives a list, not true or false"),
        ("{{ port }}", "without {{ }}"),
        ("port ==", "not a template"),
        ("prot == 1", 'no variable "prot" (did you mean "port"?)'),
    ],
)
def test_conditions_that_are_none(expression: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        condition(expression, SCOPE)
    assert message in str(caught.value)


def test_a_condition_waits_for_what_is_registered() -> None:
    with pytest.raises(NotYetError):
        condition("later.ok", SCOPE)


def test_names_and_mistakes_without_variables() -> None:
    assert undeclared({"a": "{{ x.y }} {% set z = 1 %}{{ z }}", "b": ["{{ w | default(v) }}"]}) == {"x", "w", "v"}
    assert [p.route for p in mistakes({"a": "{{ fine }}", "b": "{{ lookup('x') }}"})] == [("b",)]


def test_settled_leaves_out_what_only_ansible_can_know() -> None:
    settled = SCOPE.settled()
    assert settled["host"] == "web.test"
    assert settled["answer"] == "{{ port }}"
    assert not {"facts", "one", "later"} & settled.keys()


def test_no_value_shows_in_a_message() -> None:
    scope = Scope({"password": "hunter2hunter2"})
    with pytest.raises(TemplateError) as caught:
        render("{{ password + 1 }} {{ password.x }}", scope)
    assert "hunter2" not in str(caught.value)


def test_a_whole_file() -> None:
    text = "a: {{ port }}\n{% for s in servers %}\n- {{ s }}\n{% endfor %}\nend: {{ answer }}\n"
    values = {"port": 80, "servers": ["x", "y"], "answer": "{{ port }}"}
    assert render_file(text, values, "m.yml") == "a: 80\n- x\n- y\nend: {{ port }}\n"
    assert render_file("{{ port }}", values, "m.yml") == "80"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 1\na: {{ prot }}\n", r'm\.yml:2:7  no variable "prot" \(did you mean "port"\?\)'),
        ("a: 1\nb: {{ lookup('env', 'X') }}\n", r"m\.yml:2:7  lookup\(\) reads from outside"),
        ("a: 1\n{% for %}\n", r"m\.yml:2:1  not a template"),
    ],
)
def test_mistakes_in_a_whole_file(text: str, message: str) -> None:
    with pytest.raises(FilesError, match=message):
        render_file(text, {"port": 80}, "m.yml")


def test_a_whole_file_waits_for_what_is_registered() -> None:
    with pytest.raises(NotYetError, match='"later"'):
        render_file("a: {{ later }}", {}, "m.yml", {"later"})
    assert render_file("a: {{ later }}", {"later": 1}, "m.yml", {"later"}) == "a: 1"
