"""No template takes long or much memory, whatever is written in it; and what people write is not refused."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import FilesError
from engine.load.render import Scope, TemplateError, render
from engine.load.text import render_file

BIG = "{% set a = 'x' * 1000000 %}"
NUMBERS = "{% set n = range(99999) | list %}"
ENDLESS = {
    "a long loop": "{% for i in range(10 ** 9) %}{% endfor %}",
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a macro that calls itself": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "a macro that calls itself twice": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
    "{{ m(90) }}",
    "a loop that calls itself": "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a caller that calls": "{% macro m(n) %}{% if n %}{{ caller() }}{{ caller() }}{% endif %}{% endmacro %}"
    "{% macro k(n) %}{% if n %}{% call m(n) %}{{ k(n - 1) }}{% endcall %}{% endif %}{% endmacro %}{{ k(60) }}",
    "doubling by ~": BIG + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "doubling by a block": BIG + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40,
    "doubling by +": BIG + "{% set a = a + a %}" * 40,
    "doubling by %": BIG + "{% set a = '%s%s' % (a, a) %}" * 40,
    "doubling by format": BIG + "{% set a = '%s%s' | format(a, a) %}" * 40,
    "doubling by join": BIG + "{% set a = [a, a] | join %}" * 40,
    "doubling by a method": BIG + "{% set a = ''.join([a, a]) %}" * 40,
    "a method that replaces": BIG + "{{ a.replace('x', a) }}",
    "a filter that replaces": BIG + "{{ a | replace('x', a) }}",
    "a list of lists": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a | string }}",
    "a list of lists as a value": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
    "a long list, searched": NUMBERS + "{% for i in n %}{% if -1 in n %}{% endif %}{% endfor %}",
    "a long list, compared": NUMBERS + "{% set m = n + [] %}{% for i in n %}{% if m == n %}{% endif %}{% endfor %}",
    "a long list, cut": NUMBERS + "{% for i in n %}{% set x = n[1:] %}{% endfor %}",
    "a long list, sorted again and again": NUMBERS + "{% for i in n %}{% set x = n | sort %}{% endfor %}",
    "a long list, taken from itself": NUMBERS + "{{ n | difference(n) | length }}",
    "a sum of lists": NUMBERS + "{% for i in range(9999) %}{% set x = n + n %}{% endfor %}",
    "a map of maps": "{{ range(99999) | map('string') | map('upper') | map('lower') | map('upper') | list | length }}",
    "a regular expression": "{{ ('a' * 60 ~ '!') | regex_search('(a|aa)+$') }}",
    "a regular expression that replaces": "{{ ('a' * 60 ~ '!') | regex_replace('(a|aa)+$', '') }}",
    "a regular expression that finds all": "{{ ('a' * 60 ~ '!') | regex_findall('(a|aa)+$') }}",
    "a test with a regular expression": "{{ ('a' * 60 ~ '!') is match('(a|aa)+$') }}",
}
CLEAR = ("would take too long", "gives more than", "calls itself", "takes too long", "nested too deeply")


MOST_CALLS = 6_000_000


@pytest.mark.parametrize("name", ENDLESS)
def test_it_ends_at_once_and_says_why(name: str) -> None:
    """In calls of functions, which are as many on every machine."""
    before, calls = resource.getrusage(resource.RUSAGE_SELF), 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        with pytest.raises(TemplateError) as caught:
            render(ENDLESS[name], Scope())
    finally:
        sys.setprofile(None)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert any(words in str(caught.value) for words in CLEAR), str(caught.value)
    assert calls < MOST_CALLS
    assert after.ru_maxrss - before.ru_maxrss < 200 << 10, "KiB"


@pytest.mark.parametrize("name", ["loops in loops", "a regular expression", "a macro that calls itself"])
def test_a_file_has_a_place_too(name: str) -> None:
    with pytest.raises(FilesError, match=r"^a\.yml:\d+:\d+  "):
        render_file(f"a: 1\nb: {ENDLESS[name]}\n", {}, "a.yml")


def test_a_rendering_within_another_counts_for_itself() -> None:
    turns = "{% for i in range(9000) %}{% endfor %}"
    values: dict[str, Any] = {f"v{n}": turns + str(n) for n in range(60)}
    text = "".join(f"{{{{ {name} }}}}" for name in values)
    assert render(text, Scope(variables=values)) == "".join(str(n) for n in range(60))


def test_what_people_write_is_not_refused() -> None:
    hosts = [{"name": f"web-{n}", "port": n, "labels": {"zone": str(n % 3), "tier": "front"}} for n in range(2000)]
    text = (
        "{% for h in hosts | sort(attribute='port') if h.labels.zone != '1' %}{{ h.name | upper }}:{{ h.port }} "
        "{{ h.labels | to_json }}\n{% endfor %}{{ hosts | map(attribute='name') | join(',') | length }}"
    )
    assert str(render(text, Scope(values={"hosts": hosts}))).endswith("16889")
    large = "x" * 300_000
    assert len(render("{{ text | to_json | b64encode }}", Scope(values={"text": large}))) > 300_000
    assert render(r"{{ 'A-b.c' | regex_replace('([a-z])\\.', '<\\1>') }}", Scope()) == "A-<b>c"


def test_memory_is_bounded_for_all_of_them_together(tmp_path: Path) -> None:
    """In a process of its own, which may have so much and no more."""
    program = """
import resource
from engine.load.render import Scope, TemplateError, render
from tests.unit.test_load_bounds import ENDLESS
resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))
for text in ENDLESS.values():
    try:
        render(text, Scope())
    except TemplateError as error:
        assert "MemoryError" not in str(error), text[:200]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
