"""How long a check is looked at, and which look is the answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.action import CheckSpec, Context, Deadline, Finding
from engine.errors import TemporaryError
from engine.run.checking import CheckFailedError, Proofs, run_checks
from tests.fakes.contexts import context


class Ended(Deadline):
    """Has time for so many looks; the last one is cut short."""

    def __init__(self, looks: int) -> None:
        super().__init__(30)
        self.looks = looks

    def remaining(self) -> float:
        return float(self.looks > 0)

    def wait(self, seconds: float) -> None:
        """No time passes here."""


class Answers:
    """Answers 401 for ever; without time left, only that."""

    def __init__(self) -> None:
        self.asked = 0

    def run(self, params: Any, ctx: Context) -> Finding:
        self.asked += 1
        deadline: Any = ctx.deadline
        if isinstance(deadline, Ended):
            deadline.looks -= 1
            if deadline.looks == 0:
                raise TemporaryError("GET /: the deadline passed")
        return Finding(False, "answered 401")


class Passes:
    def run(self, params: Any, ctx: Context) -> Finding:
        return Finding(ctx.deadline.remaining() > 1, "200")


def look(checks: dict[str, Any], deadline: Deadline) -> list[tuple[bool, str]]:
    seen: list[tuple[bool, str]] = []
    parts: Any = SimpleNamespace(checks=checks)
    recorder: Any = SimpleNamespace(record=lambda _type, _step, data: seen.append((data["ok"], data["saw"])))
    specs = [CheckSpec(name, {}) for name in checks]
    with pytest.raises(CheckFailedError):
        run_checks(specs, context(deadline=deadline), parts, recorder, Proofs(), "")
    return seen


def test_two_checks_that_differ_somewhere_inside_are_two() -> None:
    """A proof is kept under the check's name."""
    specs: list[dict[str, Any]] = [
        {"url": "u", "headers": {"Accept": "text/html"}},
        {"url": "u", "headers": {"Accept": "text/plain"}},
        {"url": "u", "headers": {}},
        {"url": "u"},
        {"url": "u", "steps": [{"a": 1}]},
        {"url": "u", "steps": [{"a": 2}]},
    ]
    names = [CheckSpec("http", params).describe() for params in specs]
    assert len(set(names)) == len(names)
    assert names[3] == "http url=u"
    assert not any("text/html" in name for name in names), "a header may hold what nobody should read"
    turned = {"headers": {"b": 1, "a": 2}}, {"headers": {"a": 2, "b": 1}}
    assert len({CheckSpec("http", params).describe() for params in turned}) == 1


def test_a_look_cut_short_does_not_hide_what_was_seen() -> None:
    answers = Answers()
    assert look({"http": answers}, Ended(3)) == [(False, "answered 401")]
    assert answers.asked == 3


def test_a_check_after_one_that_took_the_whole_time_is_looked_at_once() -> None:
    late = Answers()
    assert look({"http": Answers(), "late": late, "sql": Passes()}, Ended(2)) == [
        (False, "answered 401"),
        (False, "answered 401"),
        (True, "200"),
    ]
    assert late.asked == 1
