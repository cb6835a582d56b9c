"""`dns`: a name and what it resolves to."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from engine.checks.looking import CheckModel, finding_of
from engine.core.action import Context, Finding
from engine.core.services import NameResolver


class DnsParams(CheckModel):
    """One question."""

    name: str = Field(min_length=1, description="Fully qualified name.")
    server: str = Field(default="", description="Address (or address:port) of the server to ask; empty: the system's.")
    type: Literal["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SRV", "TXT"] = Field(
        default="A", description="Record type."
    )
    answers: list[str] = Field(default_factory=list, description="Answers that must all be there; empty: any.")
    at_least: int = Field(
        default=1, ge=0, description="How many answers there must be; 0 with nothing there is right too."
    )


class DnsCheck:
    """Asks a DNS server."""

    key: ClassVar[str] = "dns"
    Params: ClassVar[type] = DnsParams

    def __init__(self, resolver: NameResolver) -> None:
        self._resolver = resolver

    def run(self, params: DnsParams, ctx: Context) -> Finding:
        return finding_of(lambda: self._look(params, ctx))

    def _look(self, params: DnsParams, ctx: Context) -> Finding:
        found = self._resolver.resolve(params.name, params.type, server=params.server, deadline=ctx.deadline)
        saw = ", ".join(found) or f"no {params.type} record"
        missing = [answer for answer in params.answers if answer.rstrip(".") not in {f.rstrip(".") for f in found}]
        if missing:
            return Finding(False, f"{saw}; wanted {', '.join(missing)}")
        if len(found) < params.at_least:
            return Finding(False, f"{saw}; wanted at least {params.at_least}")
        return Finding(True, saw)
