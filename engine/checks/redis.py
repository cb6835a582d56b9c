"""`redis`: it answers PING, with its password."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from engine.checks.credentials import PasswordReference, read_password
from engine.checks.looking import Reached, finding_of, reach
from engine.core.action import Context, Finding
from engine.core.ports import Cluster, SecretStore
from engine.core.services import Databases


class RedisParams(Reached):
    """One Redis."""

    password: PasswordReference | None = Field(default=None, description="Where its password is kept; none: no login.")
    ping: Literal[True] = Field(default=True, description="Wants PONG for PING.")


class RedisCheck:
    """Logs in and pings."""

    key: ClassVar[str] = "redis"
    Params: ClassVar[type] = RedisParams

    def __init__(self, databases: Databases, cluster: Cluster, store: SecretStore) -> None:
        self._databases = databases
        self._cluster = cluster
        self._store = store

    def run(self, params: RedisParams, ctx: Context) -> Finding:
        return finding_of(lambda: self._look(params, ctx))

    def _look(self, params: RedisParams, ctx: Context) -> Finding:
        password = read_password(self._store, params.password) if params.password else None
        with reach(self._cluster, params.service, params.address) as (host, port):
            answer = self._databases.ping(host, port, password, deadline=ctx.deadline)
        return Finding(answer == "PONG", answer)
