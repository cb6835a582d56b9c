"""The `migration` action on a real PostgreSQL: a file and its row are applied together, or not at all."""

from __future__ import annotations

import subprocess
import threading
import uuid

import pytest

from engine.actions import migration_files
from engine.actions.migration import NO_WAY_BACK, MigrationAction, MigrationParams
from engine.core.action import Deadline
from engine.core.change import Fidelity, Verb
from engine.core.planning import barrier
from engine.errors import CancelledError, NotYetError, PermanentError, RefusedError, RunbookError, TemporaryError
from tests.contract.services import wait_until
from tests.fakes.contexts import context
from tests.fakes.local_cluster import LocalCluster

FILES = {
    "0001-accounts.sql": "CREATE TABLE accounts (id int PRIMARY KEY);\nINSERT INTO accounts VALUES (1);",
    "0002-jobs.sql": "CREATE TABLE jobs (id int PRIMARY KEY); ALTER TABLE accounts ADD jobs int;",
}


class Database:
    """One database of the server, and a folder of migrations."""

    def __init__(self, postgres, folder) -> None:
        self.name, self.folder, self._postgres = f"m{uuid.uuid4().hex[:12]}", folder, postgres
        env = {"PGHOST": postgres.socket, "PGPORT": str(postgres.port)}
        self.cluster = LocalCluster(env=env, user=postgres.admin)
        self.action = MigrationAction(self.cluster)
        self._psql(f'CREATE DATABASE "{self.name}"', "shop")
        for name, text in FILES.items():
            (folder / name).write_text(text)

    def params(self, **more) -> MigrationParams:
        of = {"namespace": "shop", "pod": "postgresql-0", "database": self.name, "user": self._postgres.admin}
        return MigrationParams(of={"postgresql": of}, path=str(self.folder), **more)

    def plan(self, **given):
        ctx = context(**given)
        return self.action.plan(self.params(), self.action.read(self.params(), ctx), ctx)

    def apply(self, **more):
        params, ctx = self.params(**more), context()
        return self.action.apply(params, self.plan(), ctx)

    def ask(self, query: str) -> list[str]:
        return self._psql(query, self.name).split()

    def tables(self) -> list[str]:
        return self.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")

    def rows(self) -> list[str]:
        return self.ask("SELECT number || ':' || name FROM runbook.migrations ORDER BY 1")

    def _psql(self, query: str, database: str) -> str:
        p = self._postgres
        argv = ["psql", "-XAtq", "-h", p.socket, "-p", str(p.port), "-U", p.admin, "-d", database, "-c", query]
        return subprocess.run(argv, user=p.admin, cwd="/", check=True, capture_output=True, text=True).stdout


@pytest.fixture
def db(postgres, tmp_path):
    return Database(postgres, tmp_path)


def test_every_pending_file_is_a_line_and_there_is_no_way_back(db):
    change = db.plan()
    assert change.verb is Verb.UPDATE
    assert change.fidelity is Fidelity.EXACT
    assert change.irreversible == NO_WAY_BACK
    assert barrier([change]) is change
    lines = [line for delta in change.objects.values() for line in delta.diff]
    assert [(line.sign, line.path) for line in lines] == [("+", name) for name in FILES]


def test_applied_and_recorded(db):
    outcome = db.apply()
    assert db.tables() == ["accounts", "jobs"]
    assert db.rows() == ["1:0001-accounts.sql", "2:0002-jobs.sql"]
    assert outcome.summary.endswith("2 applied, newest 0002-jobs.sql")
    again = db.plan()
    assert (again.verb, again.irreversible) == (Verb.NONE, None)
    assert not any(delta.diff for delta in again.objects.values())
    (db.folder / "0003-more.sql").write_text("CREATE TABLE more ();")
    assert [line.path for d in db.plan().objects.values() for line in d.diff] == ["0003-more.sql"]


def test_a_pod_that_is_not_there_yet_defers_with_its_barrier(db, monkeypatch):
    monkeypatch.setattr(db.cluster, "get", lambda _reference: None)
    change = db.plan()
    assert (change.fidelity, change.irreversible) == (Fidelity.DEFERRED, NO_WAY_BACK)
    assert len(change.objects) == 2
    with pytest.raises(NotYetError, match=r"pod shop/postgresql-0 does not exist yet"):
        db.action.apply(db.params(), change, context())


def test_a_server_that_does_not_answer_may_do_so_later(db):
    db.cluster.env["PGPORT"] = "1"
    with pytest.raises(TemporaryError, match=r"failed: No such file"):
        db.plan()


def test_a_file_that_fails_leaves_the_ones_before_it_and_nothing_of_its_own(db):
    (db.folder / "0002-jobs.sql").write_text("CREATE TABLE jobs ();\nINSERT INTO\n  nowhere VALUES (1);\nSELECT 2;")
    with pytest.raises(PermanentError, match=r'0002-jobs.sql:3:3: relation "nowhere" does not exist. Nothing of it'):
        db.apply()
    assert db.tables() == ["accounts"]
    assert db.rows() == ["1:0001-accounts.sql"]
    (db.folder / "0002-jobs.sql").write_text("CREATE TABLE jobs ();")
    db.apply()
    assert db.tables() == ["accounts", "jobs"]


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE left_behind ();\nCOMMIT;\nSELECT 1/0;",
        "CREATE TABLE left_behind (); ROLLBACK; CREATE TABLE more ()",
        "CREATE TABLE left_behind (); DO $$ BEGIN COMMIT; END $$;",
        "CREATE TABLE left_behind (); CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$; CALL p();",
    ],
)
def test_the_server_itself_keeps_a_file_from_ending_its_transaction(db, text, monkeypatch):
    monkeypatch.setattr(migration_files, "mistakes", lambda _text: [])  # what lint would have missed
    (db.folder / "0002-jobs.sql").write_text(text)
    with pytest.raises(PermanentError, match=r"0002-jobs.sql.*: it begins or ends a transaction"):
        db.apply()
    assert db.tables() == ["accounts"]
    assert db.rows() == ["1:0001-accounts.sql"]


def test_what_cannot_run_in_a_transaction_says_what_to_do(db, monkeypatch):
    monkeypatch.setattr(migration_files, "mistakes", lambda _text: [])
    (db.folder / "0002-jobs.sql").write_text("CREATE INDEX CONCURRENTLY i ON accounts (id)")
    with pytest.raises(
        PermanentError, match=r"CONCURRENTLY cannot run inside a transaction block, which a migration is"
    ):
        db.apply()


def test_what_changed_since_is_refused_at_plan_time(db):
    db.apply()
    (db.folder / "0001-accounts.sql").write_text("CREATE TABLE accounts (id bigint);")
    with pytest.raises(RefusedError, match=r"0001-accounts.sql was changed after it was applied at 2\d{3}-"):
        db.plan()


def test_the_role_owns_what_is_made(db):
    db.ask("GRANT CREATE ON SCHEMA public TO shop")
    db.apply(role="shop")
    assert db.ask("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == ["shop"]
    assert db.ask("SELECT count(*) FROM runbook.migrations") == ["2"]


def test_two_at_once_apply_each_file_once(db):
    (db.folder / "0001-accounts.sql").write_text("CREATE TABLE accounts (id int); SELECT pg_sleep(0.3);")
    change, failed = db.plan(), []

    def one() -> None:
        try:
            db.action.apply(db.params(), change, context())
        except RunbookError as error:
            failed.append(error)

    workers = [threading.Thread(target=one) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failed == []
    assert db.rows() == ["1:0001-accounts.sql", "2:0002-jobs.sql"]


def test_killed_in_the_middle_is_not_applied(db):
    (db.folder / "0001-accounts.sql").write_text("CREATE TABLE accounts (); SELECT pg_sleep(60);")
    change, seen = db.plan(), []

    def one() -> None:
        try:
            db.action.apply(db.params(), change, context())
        except RunbookError as error:
            seen.append(error)

    worker = threading.Thread(target=one)
    worker.start()
    busy = f"FROM pg_stat_activity WHERE datname = '{db.name}' AND wait_event = 'PgSleep'"
    wait_until(lambda: db.ask(f"SELECT count(*) {busy}") == ["1"])
    db.ask(f"SELECT pg_terminate_backend(pid) {busy}")
    worker.join()
    assert isinstance(seen[0], TemporaryError)
    assert db.tables() == []
    (db.folder / "0001-accounts.sql").write_text("CREATE TABLE accounts (jobs int);")
    (db.folder / "0002-jobs.sql").write_text("CREATE TABLE jobs ();")
    db.apply()
    assert db.tables() == ["accounts", "jobs"]


def test_the_server_gives_up_at_the_deadline(db):
    (db.folder / "0001-accounts.sql").write_text("SELECT pg_sleep(60);")
    with pytest.raises(PermanentError, match=r"0001-accounts.sql: it took longer than the step's `timeout`"):
        db.action.apply(db.params(), db.plan(), context(deadline=Deadline(1)))


def test_stopped_between_two_files(db):
    change, stop = db.plan(), threading.Event()

    def after_first(line: str) -> None:
        if "0002" in line:
            stop.set()

    with pytest.raises(CancelledError, match=r"stopped while .*: 0002-jobs.sql was next"):
        db.action.apply(db.params(), change, context(deadline=Deadline(30, stop), progress=after_first))
    assert db.rows() == ["1:0001-accounts.sql"]


def test_the_authors_way_back(db):
    (db.folder / "0001-accounts.sql").write_text("CREATE TABLE accounts (id int);")
    (db.folder / "0002-jobs.sql").unlink()
    db.apply()
    (db.folder / "0002-jobs.sql").write_text("CREATE TABLE jobs ();")
    (db.folder / "0003-more.sql").write_text("ALTER TABLE jobs ADD more int;")
    back = db.folder / "undo"
    back.mkdir()
    (back / "0003-more.sql").write_text("ALTER TABLE jobs DROP more;")
    undo = {"path": str(back)}
    with pytest.raises(PermanentError, match=f"undo: {back} has no 0002-jobs.sql"):
        db.plan(undo_params=undo)
    (back / "0002-jobs.sql").write_text("DROP TABLE jobs;")
    change = db.plan(undo_params=undo)
    assert change.irreversible is None
    ctx, params = context(undo_params=undo), db.params()
    db.action.apply(params, change, ctx)
    preimage = db.action.capture(params, change, db.action.read(params, ctx), ctx)
    for _ in range(2):
        db.action.undo(params, change, preimage, ctx)
        assert db.tables() == ["accounts"]
        assert db.rows() == ["1:0001-accounts.sql"]
        live = db.action.read_back(params, change, preimage, ctx)
        assert {o: f for o, f in change.undo_to.items() if not f.absent} == live
