"""`tcp`: a port that accepts a connection, or must not."""

from __future__ import annotations

import time
from typing import ClassVar

from pydantic import Field

from engine.checks.looking import Reached, elapsed, finding_of, reach, refusal_of
from engine.core.action import Context, Finding
from engine.core.ports import Cluster
from engine.core.services import Network

_HOLD = 0.5  # seconds; a tunnel to a closed port ends within some milliseconds


class TcpParams(Reached):
    """One port."""

    refused: bool = Field(default=False, description="True: it must not accept (refused, reset or silence).")


class TcpCheck:
    """Connects and closes."""

    key: ClassVar[str] = "tcp"
    Params: ClassVar[type] = TcpParams

    def __init__(self, network: Network, cluster: Cluster) -> None:
        self._network = network
        self._cluster = cluster

    def run(self, params: TcpParams, ctx: Context) -> Finding:
        if params.refused:
            return refusal_of(lambda: self._connect(params, ctx))
        return finding_of(lambda: Finding(True, self._connect(params, ctx)))

    def _connect(self, params: TcpParams, ctx: Context) -> str:
        with reach(self._cluster, params.service, params.address) as (host, port):
            start = time.monotonic()
            self._network.connect(host, port, hold=_HOLD if params.service else 0, deadline=ctx.deadline)
            return f"{params.service or params.address} accepted in {elapsed(start)}"
