"""`sql`: a query and the value it must give."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from engine.checks.credentials import PasswordReference, read_password
from engine.checks.looking import Expected, Reached, finding_of, reach
from engine.core.action import Context, Finding
from engine.core.ports import Cluster, SecretStore
from engine.core.services import Databases


class SqlParams(Reached, Expected):
    """One query; the first column of its first row is what is judged."""

    database: str = Field(min_length=1, description="Database to connect to.")
    user: str = Field(min_length=1, description="Role to log in as.")
    password: PasswordReference = Field(description="Where its password is kept.")
    query: str = Field(default="SELECT 1", min_length=1, description="The statement.")


class SqlCheck:
    """Logs in and asks."""

    key: ClassVar[str] = "sql"
    Params: ClassVar[type] = SqlParams

    def __init__(self, databases: Databases, cluster: Cluster, store: SecretStore) -> None:
        self._databases = databases
        self._cluster = cluster
        self._store = store

    def run(self, params: SqlParams, ctx: Context) -> Finding:
        return finding_of(lambda: self._look(params, ctx))

    def _look(self, params: SqlParams, ctx: Context) -> Finding:
        password = read_password(self._store, params.password)
        with reach(self._cluster, params.service, params.address) as (host, port):
            rows = self._databases.query(
                host, port, params.database, params.user, password, params.query, deadline=ctx.deadline
            )
        if not rows or not rows[0]:
            return Finding(False, "no row")
        return params.judge(rows[0][0])
