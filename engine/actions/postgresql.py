"""A PostgreSQL database in a pod, as steps name it, and how its own programs are called there.

They run in the pod, over its own socket, so no password travels.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"  # a leading dash would be an option of the program


class PostgresSource(BaseModel):
    """A database in a pod."""

    model_config = ConfigDict(extra="forbid")

    namespace: str = Field(pattern=NAME, description="Namespace of the pod.")
    pod: str = Field(pattern=NAME, description="The pod that runs PostgreSQL.")
    database: str = Field(pattern=NAME, description="Which database.")
    user: str = Field(default="postgres", pattern=NAME, description="Role that may read all of it.")
    container: str = Field(default="", description="Container of the pod; empty: its first.")

    def dump_argv(self) -> list[str]:
        """pg_dump, custom format, to standard output."""
        return ["pg_dump", "--format=custom", *self._connection()]

    def restore_argv(self) -> list[str]:
        """pg_restore of such a dump from standard input: all of it or nothing."""
        return ["pg_restore", "--exit-on-error", "--single-transaction", *self._connection()]

    def psql_argv(self) -> list[str]:
        """psql for a script from standard input: rows alone, columns apart by `|`, stopped by the first error."""
        plain = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        return ["psql", *plain, *self._connection()]

    def other(self, database: str) -> PostgresSource:
        """Another database of the same server."""
        return self.model_copy(update={"database": database})

    def _connection(self) -> list[str]:
        return ["--no-password", f"--username={self.user}", f"--dbname={self.database}"]

    def __str__(self) -> str:
        return f"postgresql/{self.namespace}/{self.pod}/{self.database}"


class DatabaseSource(BaseModel):
    """Which database."""

    model_config = ConfigDict(extra="forbid")

    postgresql: PostgresSource = Field(description="A PostgreSQL database.")
