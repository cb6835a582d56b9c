"""`http`: a request and the answer it must get, or that none may come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from engine.checks.looking import CheckModel, Service, elapsed, finding_of, refusal_of, shorten
from engine.core.action import Context, Finding
from engine.core.ports import Cluster
from engine.core.services import Http, Response

_AT_ONCE = 8  # requests, of a check that asks `within` a number of them


class HttpParams(CheckModel):
    """One request. Redirects are answers, not followed."""

    url: str = Field(pattern=r"^https?://", description="What is asked; its host is also the Host header and the SNI.")
    method: str = Field(default="GET", description="HTTP method.")
    status: int = Field(default=200, ge=100, le=599, description="The status it must answer.")
    contains: str = Field(default="", description="Text that the body must contain.")
    headers: dict[str, str] = Field(default_factory=dict, description="Headers to send.")
    body: Any = Field(default=None, description="Body to send; a mapping or list goes as JSON.")
    ca: str = Field(default="", description="CA file that must have signed the certificate; empty: the system's.")
    resolve: str = Field(
        default="", description="IP address (or address:port) to connect to instead of the URL's host."
    )
    service: Service = Field(default="", description="`namespace/name:port` to connect to by a tunnel instead.")
    within: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="Ask up to this often, eight at a time, until one answer is so: a limit of requests per second.",
    )
    refused: bool = Field(default=False, description="True: it must not answer at all (refused, reset or silence).")

    @field_validator("url")
    @classmethod
    def _a_url(cls, value: str) -> str:
        """`[` without `]`, or a port beyond 65535, would break only when it is asked."""
        if not urlsplit(value).hostname or urlsplit(value).port == 0:
            raise ValueError(f"'{value}' is not a URL with a host")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> HttpParams:
        if self.resolve and self.service:
            raise ValueError("`resolve` and `service` exclude each other")
        if self.refused and self.within > 1:
            raise ValueError("`refused` and `within` exclude each other")
        return self


class HttpCheck:
    """Asks over HTTP or HTTPS."""

    key: ClassVar[str] = "http"
    Params: ClassVar[type] = HttpParams

    def __init__(self, http: Http, cluster: Cluster) -> None:
        self._http = http
        self._cluster = cluster

    def run(self, params: HttpParams, ctx: Context) -> Finding:
        if params.refused:
            return refusal_of(lambda: f"answered {self._ask(params, ctx).status}")
        return finding_of(lambda: self._look(params, ctx))

    def _look(self, params: HttpParams, ctx: Context) -> Finding:
        start = time.monotonic()
        asked, answer = self._first(params, ctx) if params.within > 1 else (1, self._ask(params, ctx))
        took = elapsed(start)
        if answer.status != params.status:
            tries = f" {params.within} times" if params.within > 1 else ""
            return Finding(
                False, f"answered {answer.status}{tries}, wanted {params.status}: {shorten(answer.body) or 'no body'}"
            )
        if params.contains and params.contains not in answer.body:
            return Finding(False, f"{answer.status}, but the body lacks '{params.contains}': {shorten(answer.body)}")
        has = f", body has '{params.contains}'" if params.contains else ""
        after = f", within {asked} requests" if params.within > 1 else ""
        return Finding(True, f"{answer.status} in {took}{has}{after}")

    def _first(self, params: HttpParams, ctx: Context) -> tuple[int, Response]:
        """An answer with the wanted status, or the last one, and how many requests it took to get it."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for begun in range(0, params.within, _AT_ONCE):
                count = min(_AT_ONCE, params.within - begun)
                answers = list(pool.map(lambda _: self._ask(params, ctx), range(count)))
                wanted = [a for a in answers if a.status == params.status]
                if wanted:
                    return begun + count, wanted[0]
        return params.within, answers[-1]

    def _ask(self, params: HttpParams, ctx: Context) -> Response:
        with self._place(params) as place:
            return self._http.request(
                params.method,
                params.url,
                connect_to=place,
                ca=str(ctx.inputs.path(params.ca)) if params.ca else "",
                headers=params.headers,
                body=params.body,
                deadline=ctx.deadline,
            )

    @contextmanager
    def _place(self, params: HttpParams) -> Iterator[tuple[str, int] | None]:
        if params.service:
            with self._cluster.tunnel(params.service) as place:
                yield place
        elif params.resolve:
            parts = urlsplit(params.url)
            default = parts.port or (443 if parts.scheme == "https" else 80)
            host, _, port = (
                params.resolve.partition(":") if params.resolve.count(":") == 1 else (params.resolve, "", "")
            )
            yield host, int(port or default)
        else:
            yield None
