"""`check` changes nothing: the suite holds it to that, its checks have contract tests of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.actions.check import CheckAction, CheckParams
from engine.registry import CHECK_TYPES
from tests.contract.conformance.subject import Subject


@contextmanager
def make(request, tmp_path) -> Iterator[Subject]:
    params = CheckParams([{"tcp": {"address": "127.0.0.1:9"}}, {"http": {"url": "http://127.0.0.1:9/"}}])
    yield Subject(action=CheckAction(CHECK_TYPES), params=params, world=dict, wanted={}, cuts=())
