"""`migration` in a database of its own on a real PostgreSQL: one file applied before, two pending."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from engine.actions.migration import MigrationAction, MigrationParams
from engine.actions.migration_files import read_folder
from engine.actions.migration_sql import apply_file
from engine.core.action import Deadline
from tests.contract.conformance.subject import Subject
from tests.fakes.local_cluster import LocalCluster

FILES = {
    "0001-accounts.sql": "CREATE TABLE accounts (id int);",
    "0002-jobs.sql": "CREATE TABLE jobs (id int);\nINSERT INTO jobs VALUES (1);",
    "0003-ledger.sql": "CREATE TABLE ledger (id int);",
}
BACK = {"0002-jobs.sql": "DROP TABLE jobs;", "0003-ledger.sql": "DROP TABLE ledger;"}


@contextmanager
def make(request, tmp_path, *, undo: bool = False) -> Iterator[Subject]:
    postgres, name = request.getfixturevalue("postgres"), f"c{uuid.uuid4().hex[:12]}"
    cluster = LocalCluster(env={"PGHOST": postgres.socket, "PGPORT": str(postgres.port)}, user=postgres.admin)

    def ask(query: str, database: str = name) -> list[str]:
        argv = ["psql", "-XAtq", "-h", postgres.socket, "-p", str(postgres.port), "-U", postgres.admin, database]
        argv += ["-c", query]
        done = subprocess.run(argv, user=postgres.admin, cwd="/", check=True, capture_output=True, text=True)
        return done.stdout.split()

    def world() -> dict:
        tables = ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = ask("SELECT name FROM runbook.migrations")
        return dict.fromkeys([*tables, *rows], True)

    ask(f'CREATE DATABASE "{name}"', "shop")
    forward, back = tmp_path / "migrations", tmp_path / "migrations/undo"
    for folder, files in ((forward, FILES), (back, BACK)):
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)
    of = {"namespace": "shop", "pod": "database", "database": name, "user": postgres.admin}
    params = MigrationParams(of={"postgresql": of}, path=str(forward))
    first, second, _ = read_folder(forward, "migrations")
    apply_file(cluster, params.source, first, "", Deadline(30))
    pending = ("jobs", "0002-jobs.sql", "ledger", "0003-ledger.sql")
    yield Subject(
        action=MigrationAction(cluster),
        params=params,
        world=world,
        wanted=dict.fromkeys(("accounts", "0001-accounts.sql", *pending), True),
        residue=frozenset() if undo else frozenset(pending),
        disturb=lambda _change: apply_file(cluster, params.source, second, "", Deadline(30)),
        given={"undo_params": {"path": str(back)}} if undo else {},
        cuts=range(2),
    )
