"""`tls`: the certificate a server shows, whom it is for and how long it holds."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from engine.checks.looking import CheckModel, finding_of, refusal_of, split_address
from engine.core.action import Context, Finding
from engine.core.services import Certificate, Network


class TlsParams(CheckModel):
    """One TLS server."""

    address: str = Field(description="`host:port` to connect to.")
    server_name: str = Field(
        default="", description="Name that is asked for and must be in the certificate; empty: the host."
    )
    ca: str = Field(default="", description="CA file that must have signed it; empty: the system's.")
    days_left: int = Field(default=14, ge=0, description="How many days it must still be valid.")
    newest: Literal["", "TLSv1.2", "TLSv1.3"] = Field(
        default="", description="The newest version of TLS that is offered; empty: whatever both sides know."
    )
    refused: bool = Field(default=False, description="True: with no version newer than `newest` it must be refused.")

    @field_validator("address")
    @classmethod
    def _is_address(cls, address: str) -> str:
        split_address(address)
        return address

    @model_validator(mode="after")
    def _refuses_a_version(self) -> TlsParams:
        if self.refused and not self.newest:
            raise ValueError("`refused` needs `newest`: the version that must not be enough")
        return self


class TlsCheck:
    """Verifies chain and name as a client does, then looks at the dates."""

    key: ClassVar[str] = "tls"
    Params: ClassVar[type] = TlsParams

    def __init__(self, network: Network) -> None:
        self._network = network

    def run(self, params: TlsParams, ctx: Context) -> Finding:
        if params.refused:
            return refusal_of(lambda: f"accepted {self._shown(params, ctx).protocol}")
        return finding_of(lambda: self._look(params, ctx))

    def _shown(self, params: TlsParams, ctx: Context) -> Certificate:
        host, port = split_address(params.address)
        ca = str(ctx.inputs.path(params.ca)) if params.ca else ""
        name = params.server_name or host
        return self._network.certificate(host, port, name, ca=ca, newest=params.newest, deadline=ctx.deadline)

    def _look(self, params: TlsParams, ctx: Context) -> Finding:
        shown = self._shown(params, ctx)
        left = (shown.not_after - ctx.now).days
        saw = f"expires in {left} days, issuer {shown.issuer}, {shown.protocol}"
        if left < params.days_left:
            return Finding(False, f"{saw}; wanted {params.days_left} days")
        return Finding(True, saw)
