"""Sentinels as rows, written with the application's own user through the application's own service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from engine.core.action import Context, Deadline
from engine.core.drill import WriteSentinel
from engine.core.ports import Cluster, SecretStore
from engine.core.redaction import Secret
from engine.core.services import Databases
from engine.errors import NotYetError

TABLE = "runbook_sentinels"
_CREATE = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} (run text NOT NULL, number bigint NOT NULL, token text NOT NULL, "
    "written timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (run, number))"
)


_Ask = Callable[[str, Deadline], Sequence[Sequence[Any]]]


class StoredPassword(BaseModel):
    """A password: named, never written."""

    model_config = ConfigDict(extra="forbid")

    secret: str = Field(min_length=1, description="Path in the secret store.")
    key: str = Field(default="password", description="Which of its keys.")


class SqlParams(BaseModel):
    """Where the application keeps its rows, and as whom."""

    model_config = ConfigDict(extra="forbid")

    service: str = Field(pattern=r"^[^/:]+/[^/:]+:\d+$", description="`namespace/name:port`, reached by a tunnel.")
    database: str = Field(min_length=1, description="Database to connect to.")
    user: str = Field(min_length=1, description="The application's role.")
    password: StoredPassword = Field(description="Where its password is kept.")


class SqlSentinels:
    """A table of its own, made by the application's role and dropped at the end. A row is acknowledged when its commit
    returned."""

    key: ClassVar[str] = "sql"
    Params: ClassVar[type] = SqlParams

    def __init__(self, databases: Databases, cluster: Cluster, store: SecretStore) -> None:
        self._databases, self._cluster, self._store = databases, cluster, store

    def prepare(self, params: SqlParams, run: str, ctx: Context) -> None:
        with self._asking(params) as ask:
            ask(_CREATE, ctx.deadline)

    @contextmanager
    def writing(self, params: SqlParams, run: str, ctx: Context) -> Iterator[WriteSentinel]:
        with self._asking(params) as ask:

            def write(number: int, token: str, deadline: Deadline) -> None:
                row = f"({_quoted(run)}, {number:d}, {_quoted(token)})"
                ask(f"INSERT INTO {TABLE} (run, number, token) VALUES {row}", deadline)  # noqa: S608 (quoted)

            yield write

    def read(self, params: SqlParams, run: str, ctx: Context) -> Mapping[int, str]:
        with self._asking(params) as ask:
            if not ask(f"SELECT to_regclass('{TABLE}') IS NOT NULL", ctx.deadline)[0][0]:
                return {}
            query = f"SELECT number, token FROM {TABLE} WHERE run = {_quoted(run)}"  # noqa: S608 (quoted)
            rows = ask(query, ctx.deadline)
        return {int(number): str(token) for number, token in rows}

    def clear(self, params: SqlParams, run: str, ctx: Context) -> None:
        with self._asking(params) as ask:
            ask(f"DROP TABLE IF EXISTS {TABLE}", ctx.deadline)

    @contextmanager
    def _asking(self, params: SqlParams) -> Iterator[_Ask]:
        password = self._password(params.password)
        with self._cluster.tunnel(params.service) as (host, port):

            def ask(statement: str, deadline: Deadline) -> Sequence[Sequence[Any]]:
                return self._databases.query(
                    host, port, params.database, params.user, password, statement, deadline=deadline
                )

            yield ask

    def _password(self, stored: StoredPassword) -> Secret:
        found = self._store.read(stored.secret, sensitive=(stored.key,))
        if found is None or found.deleted or stored.key not in found.values:
            raise NotYetError(f"secret {stored.secret} has no {stored.key} yet")
        return found.values[stored.key]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
