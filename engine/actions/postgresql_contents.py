"""What is in a PostgreSQL database, and moving all of it: dumped with its sums in one snapshot, restored, swapped in.

Sums are of SHA-256 over each row's text, added up, so that the order of rows does not matter and a server of another
version gives the same. Large objects are dumped, but neither counted nor compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from engine.actions.postgresql import PostgresSource
from engine.core.action import Deadline
from engine.core.backup import Contents
from engine.core.ports import Cluster, Reference
from engine.errors import NotYetError, PermanentError, RunbookError

_MAINTENANCE = "postgres"  # the database one is connected to while another is made, renamed or dropped
_DUMP = b"dump"  # the line that ends the sums
_CLEARING = 60.0  # seconds for dropping what is left behind, whatever the deadline says

_SUMS = r"""
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL statement_timeout = 0;
SET LOCAL row_security = off;
SET LOCAL search_path = pg_catalog;
SET LOCAL timezone = 'UTC';
SET LOCAL datestyle = 'ISO, YMD';
SET LOCAL intervalstyle = 'postgres';
SET LOCAL extra_float_digits = 3;
SET LOCAL bytea_output = 'hex';
SET LOCAL lc_monetary = 'C';
SELECT json_build_object('server', current_setting('server_version'),
  'taken', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'));
SELECT format(
  'SELECT json_build_object(''table'', %L, ''rows'', count(*), ''sum'', coalesce(sum((''x'' || encode(substr('
  'sha256(convert_to(ROW(r.*)::text, getdatabaseencoding())), 1, 8), ''hex''))::bit(64)::bigint::numeric), 0)::text) '
  'FROM ONLY %I.%I r', format('%I.%I', n.nspname, c.relname), n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname
\gexec
SELECT 'dump';
"""
# psql runs pg_dump itself, so that the snapshot lives as long as the dump; one that fails ends psql.
_DUMP_OF_IT = r"""
SELECT pg_export_snapshot() AS snapshot \gset
\setenv RUNBOOK_SNAPSHOT :snapshot
\! ARGV --snapshot="$RUNBOOK_SNAPSHOT" || kill $PPID
"""
_CREATE = """
DROP DATABASE IF EXISTS "NEW" WITH (FORCE);
SELECT coalesce(
  (SELECT format('CREATE DATABASE "NEW" TEMPLATE template0 ENCODING %L LC_COLLATE %L LC_CTYPE %L OWNER %I',
    pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba))
   FROM pg_database WHERE datname = 'LIKE'), 'CREATE DATABASE "NEW" TEMPLATE template0')
\\gexec
"""
_SWAP = """
SELECT 'ALTER DATABASE "NAME" ALLOW_CONNECTIONS false' FROM pg_database WHERE datname = 'NAME' \\gexec
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'NAME';
BEGIN;
SELECT 'ALTER DATABASE "NAME" RENAME TO "OLD"' FROM pg_database WHERE datname = 'NAME' \\gexec
ALTER DATABASE "NEW" RENAME TO "NAME";
COMMIT;
"""


class PostgresPod:
    """The databases of one pod, by its own programs."""

    def __init__(self, cluster: Cluster, source: PostgresSource) -> None:
        self._cluster = cluster
        self._source = source

    def require_ready(self) -> None:
        """NotYetError when the pod is not there or not ready."""
        source = self._source
        pod = self._cluster.get(Reference("v1", "Pod", source.pod, source.namespace))
        if pod is None:
            raise NotYetError(f"pod {source.namespace}/{source.pod} does not exist yet")
        conditions = (pod.get("status") or {}).get("conditions") or ()
        if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            raise NotYetError(f"pod {source.namespace}/{source.pod} is not ready yet")

    def dump(self, deadline: Deadline) -> tuple[Contents, Iterator[bytes]]:
        """What is in the database, and its dump, both of one snapshot. The dump is taken while it is read."""
        argv = " ".join(self._source.dump_argv())  # names hold nothing that a shell would read otherwise
        script = _SUMS + _DUMP_OF_IT.replace("ARGV", argv) + "COMMIT;\n"
        pieces = self._psql(self._source, script, deadline)
        lines, begun = _until_dump(pieces, str(self._source))
        return _contents(lines, str(self._source)), _chained(begun, pieces)

    def contents(self, database: str, deadline: Deadline) -> Contents:
        """What is in one of its databases."""
        source = self._source.other(database)
        lines = b"".join(self._psql(source, _SUMS + "COMMIT;\n", deadline)).splitlines()
        return _contents(lines, str(source))

    def exists(self, database: str, deadline: Deadline) -> bool:
        return bool(self._asked(f"SELECT 1 FROM pg_database WHERE datname = '{database}';", deadline))  # noqa: S608

    @contextmanager
    def restored(self, name: str, dump: Iterable[bytes], deadline: Deadline) -> Iterator[Contents]:
        """A new database with what the dump holds, in one transaction; dropped at the end, unless renamed."""
        made = self._source.other(name)
        try:
            create = _CREATE.replace("NEW", name).replace("LIKE", self._source.database)
            self._asked(create, deadline)
            for _ in self._exec(made.restore_argv(), dump, deadline):
                pass
            yield self.contents(name, deadline)
        finally:
            # Also after a cancellation and when time is up: nothing of ours stays.
            with suppress(RunbookError):
                self.drop(name, Deadline(_CLEARING))

    def swap_in(self, name: str, aside: str, comment: str, deadline: Deadline) -> None:
        """Let a database take the source's place and name, in one transaction. The old one is kept as `aside`.

        The comment goes with it. Connections to the old one are ended.
        """
        target = self._source.database
        if target == _MAINTENANCE:
            raise PermanentError(f"{self._source}: the database {_MAINTENANCE} cannot be replaced; nothing was changed")
        quoted = comment.replace("'", "''")
        script = f'COMMENT ON DATABASE "{name}" IS \'{quoted}\';\nDROP DATABASE IF EXISTS "{aside}" WITH (FORCE);\n'
        script += _SWAP.replace("NAME", target).replace("NEW", name).replace("OLD", aside)
        try:
            self._asked(script, deadline)
        except RunbookError:
            reopen = f"""SELECT 'ALTER DATABASE "{target}" ALLOW_CONNECTIONS true' FROM pg_database WHERE datname = '{target}'"""  # noqa: S608, E501
            with suppress(RunbookError):
                self._asked(reopen + " \\gexec\n", Deadline(_CLEARING))
            raise

    def drop(self, database: str, deadline: Deadline) -> None:
        """No such database already is fine."""
        self._asked(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE);', deadline)

    def comment(self, deadline: Deadline) -> str:
        """The source's own comment; empty when it has none, or does not exist."""
        query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = "
        return self._asked(f"{query}'{self._source.database}';", deadline).strip()

    def _asked(self, script: str, deadline: Deadline) -> str:
        return b"".join(self._psql(self._source.other(_MAINTENANCE), script, deadline)).decode()

    def _psql(self, source: PostgresSource, script: str, deadline: Deadline) -> Iterator[bytes]:
        return self._exec(source.psql_argv(), [script.encode()], deadline)

    def _exec(self, argv: list[str], stdin: Iterable[bytes], deadline: Deadline) -> Iterator[bytes]:
        source = self._source
        return self._cluster.exec(
            source.namespace, source.pod, argv, container=source.container, stdin=iter(stdin), deadline=deadline
        )


def _until_dump(pieces: Iterator[bytes], source: str) -> tuple[list[bytes], bytes]:
    """The lines of sums, and what of the dump came with the last of them."""
    seen = b""
    for piece in pieces:
        seen += piece
        before, end, after = seen.partition(b"\n" + _DUMP + b"\n")
        if end:
            return before.splitlines(), after
    raise PermanentError(f"{source}: psql ended before the dump began; nothing was kept")


def _contents(lines: Iterable[bytes], source: str) -> Contents:
    try:
        told = [json.loads(line) for line in lines if line.strip() and line.strip() != _DUMP]
        tables = {t["table"]: (int(t["rows"]), str(t["sum"])) for t in told[1:]}
        return Contents(told[0]["server"].partition(" ")[0], told[0]["taken"], tables)
    except (ValueError, LookupError, TypeError) as error:
        raise PermanentError(f"{source}: psql did not answer as it should: {error}") from error


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest
