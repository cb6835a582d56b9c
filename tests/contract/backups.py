"""Fixtures of backups: real pg_dump and pg_restore, real age, real signatures, into moto."""

from __future__ import annotations

import subprocess
import tempfile
import zlib

import pyrage
import pytest

from engine.actions.backup import BackupAction, BackupParams
from engine.actions.backup_store import BackupStore
from engine.actions.restore import RestoreAction, RestoreParams
from engine.adapters.age import Age
from engine.adapters.s3 import S3
from engine.core.redaction import Redactor, Secret
from tests.fakes.contexts import context
from tests.fakes.local_cluster import LocalCluster
from tests.fakes.signing import signing

KEY = "20260101-1/services/first-dump"


class Database:
    """The test's own database on the shared server, looked at without the engine."""

    def __init__(self, postgres, name: str) -> None:
        self._postgres, self.name = postgres, name

    def ask(self, query: str, database: str = "") -> str:
        argv = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self._postgres.socket, "-p", str(self._postgres.port)]
        argv += ["-d", database or self.name, "-c", query]
        done = subprocess.run(argv, user=self._postgres.admin, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def databases(self) -> set[str]:
        return set(self.ask("SELECT datname FROM pg_database", "postgres").split())


@pytest.fixture
def identity():
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def age(identity):
    return Age([str(identity.to_public())], lambda: [str(identity)])


@pytest.fixture
def s3(moto):
    return S3(moto, "us-east-1", ("access", Secret("secret-key")), Redactor())


@pytest.fixture
def signed(tmp_path_factory):
    return signing(tmp_path_factory.mktemp("signing"))


@pytest.fixture
def store(s3, age, signed):
    return BackupStore(s3, age, signed)


@pytest.fixture
def number(request):
    return zlib.crc32(request.node.nodeid.encode())


@pytest.fixture
def bucket(s3, number):
    s3.create_bucket(f"backups-{number}")
    return f"backups-{number}"


@pytest.fixture
def database(postgres, number):
    """Its own for each test: `goods` of 500 rows, an empty table, and one whose names and values are awkward."""
    there = Database(postgres, f"shop_{number}")
    there.ask(f'CREATE DATABASE "{there.name}" OWNER shop', "postgres")
    there.ask("CREATE TABLE goods AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 500) g")
    there.ask("CREATE TABLE empty (id int)")
    odd = '"Odd"."a ""b"""'
    there.ask(f'CREATE SCHEMA "Odd"; CREATE TABLE {odd} (r text, t float8, "at" timestamptz)')
    there.ask(f"INSERT INTO {odd} VALUES (E'x\\ny', 0.1, '2026-01-01 12:00+02'), (NULL, 'NaN', NULL)")
    yield there
    there.ask(f'DROP DATABASE IF EXISTS "{there.name}" WITH (FORCE)', "postgres")


@pytest.fixture
def cluster(postgres):
    return LocalCluster(env={"PGHOST": postgres.socket, "PGPORT": str(postgres.port)}, user=postgres.admin)


@pytest.fixture
def of(postgres, database):
    pod = {"namespace": "shop", "pod": "postgresql-0", "database": database.name, "user": postgres.admin}
    return {"postgresql": pod}


@pytest.fixture
def action(cluster, store):
    return BackupAction(cluster, store)


@pytest.fixture
def params(bucket, of):
    return BackupParams(of=of, to={"bucket": bucket, "prefix": "daily"})


@pytest.fixture
def restore(cluster, store):
    return RestoreAction(cluster, store)


@pytest.fixture
def wanted(bucket, of):
    """Parameters of a restore."""

    def make(**given):
        return RestoreParams(**{"of": of, "from": {"bucket": bucket, "prefix": "daily"}, **given})

    return make


@pytest.fixture(autouse=True)
def leaves_nothing(tmp_path, monkeypatch, postgres):
    """Temporary files go where a test can see that none stays; no database of ours stays either."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert not list(tmp_path.glob("runbook-*"))
    left = {name for name in Database(postgres, "postgres").databases() if name.startswith("runbook_")}
    assert not left


def take(action, params, key=KEY, **given):
    ctx = context(key=key, **given)
    change = action.plan(params, action.read(params, ctx), ctx)
    return change, action.apply(params, change, ctx)


def names(s3, bucket) -> list[str]:
    return [o.key.rpartition("/")[2] for o in s3.list(bucket, "")]
