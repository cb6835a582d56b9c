"""The `check` action and what the families of checks share."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine.actions.check import CheckAction, CheckParams
from engine.checks.dns import DnsParams
from engine.checks.http import HttpParams
from engine.checks.looking import Expected, as_number, finding_of, refusal_of, shorten, split_address
from engine.core.action import CheckSpec, Finding
from engine.core.change import Verb
from engine.core.services import NoAnswerError
from engine.errors import NotYetError, PermanentError, TemporaryError, UsageError
from tests.fakes.contexts import context

FAMILIES = {"http": HttpParams, "dns": DnsParams}


def specs(*items):
    return CheckAction(FAMILIES).checks(CheckParams(list(items)))


def test_items_become_specs():
    found = specs({"dns": {"name": "web.shop"}, "fresh": timedelta(hours=24)}, {"http": {"url": "http://a"}})
    assert found == [
        CheckSpec("dns", DnsParams(name="web.shop"), timedelta(hours=24)),
        CheckSpec("http", HttpParams(url="http://a")),
    ]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({}, "check 1: wants exactly one family beside `fresh`, has none"),
        ({"dns": {"name": "a"}, "http": {"url": "http://a"}}, "has dns, http"),
        ({"smtp": {}}, r"check 1: no family 'smtp' \(there are: dns, http\)"),
        ({"dns": {"name": "a", "sever": "b"}}, "check 1, dns: sever is not as it should be"),
        ({"dns": {"name": "a"}, "fresh": "24h"}, "fresh wants a duration"),
    ],
)
def test_mistakes_are_named(item, message):
    with pytest.raises(UsageError, match=message):
        specs(item)


def test_it_plans_nothing_and_finds_mistakes_while_planning():
    action, ctx = CheckAction(FAMILIES), context()
    params = CheckParams([{"dns": {"name": "a"}}])
    change = action.plan(params, action.read(params, ctx), ctx)
    assert (change.verb, change.objects, change.reason) == (Verb.NONE, {}, "1 check")
    with pytest.raises(UsageError):
        action.plan(CheckParams([{"smtp": {}}]), action.read(params, ctx), ctx)


@pytest.mark.parametrize(
    ("expected", "value", "finding"),
    [
        ({}, "anything", Finding(True, "anything")),
        ({}, 0, Finding(True, "0")),
        ({}, None, Finding(False, "None")),
        ({"equals": 3}, 3, Finding(True, "3")),
        ({"equals": 3}, "3.0", Finding(True, "3.0")),
        ({"equals": 0}, 0, Finding(True, "0")),
        ({"equals": 0}, None, Finding(False, "None, wanted 0")),
        ({"equals": 31}, "0x1f", Finding(True, "0x1f")),
        ({"equals": False}, False, Finding(True, "False")),
        ({"equals": False}, None, Finding(False, "None, wanted False")),
        ({"equals": "a"}, "b", Finding(False, "b, wanted a")),
        ({"at_least": 2}, "2", Finding(True, "2")),
        ({"at_least": 2}, 1.5, Finding(False, "1.5, wanted at least 2")),
        ({"at_least": 2}, "many", Finding(False, "many, which is no number")),
        ({"at_least": 0}, None, Finding(False, "None, which is no number")),
    ],
)
def test_expected(expected, value, finding):
    assert Expected(**expected).judge(value) == finding


@pytest.mark.parametrize(("value", "number"), [("0x1F", 31), ("12", 12), (True, 1), ("0xzz", None), ([], None)])
def test_as_number(value, number):
    assert as_number(value) == number


def test_split_address():
    assert split_address("web.shop:80") == ("web.shop", 80)
    assert split_address("[fd00::a]:53") == ("fd00::a", 53)
    for wrong in ("web", "web:", ":80", "web:0", "web:70000", "web:http"):
        with pytest.raises(ValueError, match="is not host:port"):
            split_address(wrong)


def raising(error):
    def look():
        raise error

    return look


def test_a_refusal_is_a_finding_and_a_wrong_request_raises():
    for error in (TemporaryError("t"), NotYetError("n"), NoAnswerError("a", "reset")):
        assert finding_of(raising(error)) == Finding(False, str(error))
    assert finding_of(raising(PermanentError("p"))) == Finding(False, "p", final=True)
    assert refusal_of(raising(PermanentError("p"))) == Finding(False, "p", final=True)
    with pytest.raises(UsageError):
        finding_of(raising(UsageError("u")))


@pytest.mark.parametrize(
    ("cause", "ok"),
    [("refused", True), ("reset", True), ("timeout", True), ("tls", False), ("name", False), ("unreachable", False)],
)
def test_only_a_firm_no_is_a_refusal(cause, ok):
    assert refusal_of(raising(NoAnswerError("no", cause))) == Finding(ok, "no")


def test_shorten():
    assert shorten("two\n  lines ") == "two lines"
    assert len(shorten("x" * 500)) == 120
