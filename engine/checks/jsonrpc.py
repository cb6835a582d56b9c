"""`jsonrpc`: a JSON-RPC 2.0 call over HTTP and the value in its answer; `grows` looks until it is larger."""

from __future__ import annotations

import json
import time
from typing import Any, ClassVar

from pydantic import Field

from engine.checks.looking import Expected, Served, as_number, finding_of, shorten
from engine.core.action import Context, Finding
from engine.core.ports import Cluster
from engine.core.services import Http
from engine.errors import TemporaryError

_PAUSE = 0.5  # seconds between two looks at what should grow


class JsonRpcParams(Served, Expected):
    """One call."""

    path: str = Field(default="result", description="Where the value is in the answer, as names and numbers with dots.")
    method: str = Field(min_length=1, description="Method to call.")
    params: list[Any] | dict[str, Any] = Field(default_factory=list, description="Its parameters.")
    grows: bool = Field(default=False, description="True: the value must be a number that becomes larger.")
    seconds: float = Field(default=5, gt=0, le=300, description="Within how many seconds it must have grown.")


class JsonRpcCheck:
    """Calls a method."""

    key: ClassVar[str] = "jsonrpc"
    Params: ClassVar[type] = JsonRpcParams

    def __init__(self, http: Http, cluster: Cluster) -> None:
        self._http = http
        self._cluster = cluster

    def run(self, params: JsonRpcParams, ctx: Context) -> Finding:
        return finding_of(lambda: self._grows(params, ctx) if params.grows else self._look(params, ctx))

    def _look(self, params: JsonRpcParams, ctx: Context) -> Finding:
        finding = params.judge(self._value(params, ctx))
        return Finding(finding.ok, f"{params.method} {params.path}: {finding.saw}")

    def _grows(self, params: JsonRpcParams, ctx: Context) -> Finding:
        first, start = self._number(params, ctx), time.monotonic()
        name = f"{params.method} {params.path}"
        ctx.progress(f"{name} is {first:g}, waiting for more")
        while True:
            left = start + params.seconds - time.monotonic()
            ctx.deadline.wait(max(0.0, min(_PAUSE, left)))
            ctx.deadline.check(f"waiting for {name} to grow")
            now = self._number(params, ctx)
            if now > first:
                return Finding(True, f"{name}: {first:g} → {now:g} in {time.monotonic() - start:.1f} s")
            if left <= 0:
                return Finding(False, f"{name}: {now:g} after {params.seconds:g} s, as before ({first:g})")

    def _number(self, params: JsonRpcParams, ctx: Context) -> float:
        value = self._value(params, ctx)
        number = as_number(value)
        if number is None:
            raise TemporaryError(f"{params.method} {params.path}: {shorten(str(value))} is no number")
        return number

    def _value(self, params: JsonRpcParams, ctx: Context) -> Any:
        url = params.url or f"{params.base}/"
        with params.place(self._cluster) as place:
            document = call(self._http, url, place, params.method, params.params, ctx)
        return _at(document, params.path)


def call(
    http: Http, url: str, place: tuple[str, int] | None, method: str, arguments: Any, ctx: Context
) -> dict[str, Any]:
    """The whole answer of one call. TemporaryError for an error, or what is no answer."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": arguments}
    answer = http.request("POST", url, connect_to=place, body=body, deadline=ctx.deadline)
    try:
        document = json.loads(answer.body)
    except ValueError:
        raise TemporaryError(f"{method}: answered {answer.status} without JSON: {shorten(answer.body)}") from None
    if not isinstance(document, dict) or document.get("error"):
        raise TemporaryError(f"{method}: answered {shorten(answer.body)}")
    return document


def _at(document: Any, path: str) -> Any:
    """The value at `result.peers.0.id`; None when it is not there."""
    for part in path.split("."):
        if isinstance(document, dict):
            document = document.get(part)
        elif isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        else:
            return None
    return document
