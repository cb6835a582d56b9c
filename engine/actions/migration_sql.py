"""What `migration` sends to psql, and what PostgreSQL answers.

A file is executed as one string by a DO block: EXECUTE refuses whatever begins or ends a transaction before any of it
takes effect (PL/pgSQL, "Transaction Management"), so the file and its row are applied together or not at all.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode

from engine.actions.migration_files import Applied, MigrationFile
from engine.actions.postgresql import PostgresSource
from engine.core.action import Deadline
from engine.core.ports import Cluster
from engine.errors import PermanentError, RunbookError, TemporaryError

_READ = r"""\set VERBOSITY terse
SET lock_timeout = '20s';
BEGIN;
-- What a killed run's psql is still at is waited for: it may be about to commit.
SELECT pg_advisory_xact_lock_shared(hashtext('runbook.migrations'));
SELECT to_regclass('runbook.migrations') IS NOT NULL AS there \gset
\if :there
SELECT json_build_array(number, name, sha256, to_char(applied AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
  FROM runbook.migrations ORDER BY number;
\endif
COMMIT;
"""
_BEGIN = r"""\set VERBOSITY terse
SET client_min_messages = warning;
SET statement_timeout = {milliseconds};
BEGIN;
SELECT pg_advisory_xact_lock(hashtext('runbook.migrations'));
"""
_TABLE = """CREATE SCHEMA IF NOT EXISTS runbook;
CREATE TABLE IF NOT EXISTS runbook.migrations (
  number integer PRIMARY KEY,
  name text NOT NULL,
  sha256 text NOT NULL,
  applied timestamptz NOT NULL DEFAULT now()
);
"""
_APPLY = """DO $runbook$
DECLARE
  known text;
  newest integer;
BEGIN
  SELECT sha256 INTO known FROM runbook.migrations WHERE number = {number};
  SELECT coalesce(max(number), 0) INTO newest FROM runbook.migrations;
  IF known = '{sha256}' THEN
    RETURN;  -- applied by ourselves before we were killed
  ELSIF newest <> {number} - 1 THEN
    RAISE EXCEPTION 'runbook: the newest applied migration is %, so this is not its turn', newest;
  END IF;
  INSERT INTO runbook.migrations (number, name, sha256) VALUES ({number}, '{name}', '{sha256}');
  {role}
  EXECUTE pg_catalog.convert_from(pg_catalog.decode('{text}', 'base64'), 'UTF8');
END
$runbook$;
COMMIT;
"""
_UNDO = """DO $runbook$
DECLARE
  newest integer;
BEGIN
  SELECT coalesce(max(number), 0) INTO newest FROM runbook.migrations;
  IF newest < {number} THEN
    RETURN;  -- taken back already
  ELSIF newest > {number} THEN
    RAISE EXCEPTION 'runbook: migration % was applied after it, and stands', newest;
  END IF;
  DELETE FROM runbook.migrations WHERE number = {number};
  {role}
  EXECUTE pg_catalog.convert_from(pg_catalog.decode('{text}', 'base64'), 'UTF8');
END
$runbook$;
COMMIT;
"""
_ERROR = re.compile(
    r"(?:ERROR|FATAL|PANIC|psql: error):\s+(?P<message>.*?)(?: at character (?P<at>\d+))?$", re.MULTILINE
)
_PASSING = re.compile(
    "starting up|shutting down|Connection refused|No such file or directory|closed the connection|"
    "terminating connection|too many clients|deadlock detected|could not serialize|lock timeout"
)
_ENDED = re.compile("EXECUTE of transaction commands|invalid transaction termination")
_ALONE = re.compile("cannot run inside a transaction block|cannot be executed from a function")


def read_applied(cluster: Cluster, source: PostgresSource, deadline: Deadline) -> list[Applied]:
    """What was applied, by number; nothing while the table is not there. TemporaryError when no server answers."""
    answer = _psql(cluster, source, _READ, deadline)
    return [Applied(*json.loads(line)) for line in answer.splitlines() if line.strip()]


def apply_file(cluster: Cluster, source: PostgresSource, file: MigrationFile, role: str, deadline: Deadline) -> None:
    """Apply one file and record it, together or not at all; applied already is fine.

    PermanentError names the file, and the line where the server says so.
    """
    _transaction(cluster, source, _TABLE + _APPLY, file, file, role, deadline)


def undo_file(
    cluster: Cluster, source: PostgresSource, file: MigrationFile, back: MigrationFile, role: str, deadline: Deadline
) -> None:
    """Run what takes `file` back and remove its row, together or not at all; taken back already is fine."""
    _transaction(cluster, source, _TABLE + _UNDO, file, back, role, deadline)


def _transaction(
    cluster: Cluster,
    source: PostgresSource,
    script: str,
    file: MigrationFile,
    run: MigrationFile,
    role: str,
    deadline: Deadline,
) -> None:
    deadline.check(f"{source}: {run.name} was next")
    body = script.format(
        number=file.number,
        name=file.name,
        sha256=file.sha256,
        role=f"""EXECUTE format('SET LOCAL ROLE %I', '{role}');""" if role else "",
        text=b64encode(run.text).decode(),
    )
    # The server itself gives up at the deadline: a psql that lost its way to us would hold its locks.
    begin = _BEGIN.format(milliseconds=max(1, int(deadline.remaining() * 1000)))
    try:
        _psql(cluster, source, begin + body, deadline)
    except PermanentError as error:
        raise PermanentError(f"{source}: {_told(str(error), run)} Nothing of it was applied.") from error


def _psql(cluster: Cluster, source: PostgresSource, script: str, deadline: Deadline) -> str:
    try:
        pieces = cluster.exec(
            source.namespace,
            source.pod,
            source.psql_argv(),
            container=source.container,
            stdin=script.encode(),
            deadline=deadline,
        )
        return b"".join(pieces).decode()
    except PermanentError as error:
        if _PASSING.search(str(error)):
            raise TemporaryError(f"{source}: {_message(error)}") from error
        raise


def _message(error: RunbookError) -> str:
    found = _ERROR.search(str(error))
    return found["message"] if found else str(error)


def _told(error: str, file: MigrationFile) -> str:
    """The server's error as one sentence, at the line of the file where it gives one."""
    found = _ERROR.search(error)
    if found is None:
        return f"{file.name}: {error}."
    message, where = found["message"].removeprefix("runbook: "), file.name
    if found["at"]:
        before = file.text.decode()[: int(found["at"]) - 1]
        where = f"{file.name}:{before.count(chr(10)) + 1}:{len(before) - (before.rfind(chr(10)) + 1) + 1}"
    if _ENDED.search(message):
        message = "it begins or ends a transaction, and the file is one already, together with the row that records it"
    elif _ALONE.search(message):
        message += ", which a migration is: do it in a `command` step"
    elif "statement timeout" in message:
        message = "it took longer than the step's `timeout`"
    return f"{where}: {message}."
