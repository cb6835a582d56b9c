"""The `backup` action: a real pg_dump, real age, into moto; restored with pg_restore from what is there."""

from __future__ import annotations

import subprocess
import tempfile
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyrage
import pytest

from engine.actions.backup import BackupAction, BackupParams
from engine.adapters.age import Age
from engine.adapters.s3 import S3
from engine.core.change import Verb
from engine.core.convergence import Decision, converge
from engine.core.redaction import Redactor, Secret
from engine.errors import PermanentError
from tests.contract.services import require
from tests.fakes.contexts import context
from tests.fakes.local_cluster import LocalCluster

KEY = "20260101-1/services/first-dump"


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
def bucket(s3, request):
    name = f"backups-{zlib.crc32(request.node.name.encode())}"
    s3.create_bucket(name)
    return name


@pytest.fixture
def cluster(postgres):
    return LocalCluster(env={"PGHOST": postgres.socket, "PGPORT": str(postgres.port)}, user=postgres.admin)


@pytest.fixture
def action(cluster, age, s3):
    return BackupAction(cluster, age, s3)


@pytest.fixture
def params(bucket, postgres):
    of = {"postgresql": {"namespace": "shop", "pod": "postgresql-0", "database": "shop", "user": postgres.admin}}
    return BackupParams(of=of, to={"bucket": bucket, "prefix": "daily"})


@pytest.fixture(autouse=True)
def leaves_no_file(tmp_path, monkeypatch):
    """Temporary files go where a test can see that none stays."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert not list(tmp_path.glob("runbook-backup-*"))


def take(action, params, key=KEY):
    ctx = context(key=key)
    change = action.plan(params, action.read(params, ctx), ctx)
    return change, action.apply(params, change, ctx)


def test_taken_proved_and_restorable(action, params, s3, age, bucket, tmp_path, postgres):
    change, outcome = take(action, params)
    assert change.verb is Verb.RUN
    assert outcome.evidence["key"] == "daily/postgresql/shop/shop/20260101-1_services_first-dump.dump.age"
    assert outcome.evidence["recipients"] == 1
    stored = s3.head(bucket, outcome.evidence["key"])
    assert (stored.size, stored.metadata["sha256"]) == (outcome.evidence["bytes"], outcome.evidence["sha256"])

    s3.get(bucket, stored.key, tmp_path / "dump.age", deadline=context().deadline)
    assert b"PGDMP" not in (tmp_path / "dump.age").read_bytes()
    pieces: list[bytes] = []
    age.decrypt(tmp_path / "dump.age", pieces.append)
    plain = b"".join(pieces)
    assert len(plain) == outcome.evidence["plain_bytes"]
    restore = require("postgres", *sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_restore")))
    script = subprocess.run([restore, "-f", "-"], input=plain, capture_output=True, check=True).stdout.decode()
    assert "COPY public.goods" in script
    assert len([line for line in script.splitlines() if line[:1].isdigit()]) == 500


def test_done_once_per_key(action, params, s3, bucket):
    _, first = take(action, params)
    ctx = context(key=KEY)
    reading = action.read(params, ctx)
    change = action.plan(params, action.read(params, context()), context())
    assert converge(change, reading.state, resuming=True).decision is Decision.ALREADY
    _, second = take(action, params)
    assert second.evidence == first.evidence
    assert len(s3.list(bucket, "")) == 1
    take(action, params, key="20260102-1/services/first-dump")
    assert len(s3.list(bucket, "")) == 2


def test_fresh_evidence_counts_while_planning(action, params):
    hour = timedelta(hours=1)
    ctx = context(fresh=hour)
    assert action.plan(params, action.read(params, ctx), ctx).verb is Verb.RUN
    take(action, params)
    change = action.plan(params, action.read(params, ctx), ctx)
    assert change.verb is Verb.NONE
    assert change.reason.startswith("taken and proved at ")
    assert change == action.plan(params, action.read(params, ctx), ctx)
    later = context(fresh=hour, now=datetime.now(UTC) + timedelta(hours=2))
    assert action.plan(params, action.read(params, later), later).verb is Verb.RUN
    without = context()
    assert action.plan(params, action.read(params, without), without).verb is Verb.RUN


def test_an_object_that_is_no_backup_of_ours_does_not_count(action, params, s3, bucket, tmp_path):
    source = tmp_path / "foreign"
    source.write_bytes(b"something")
    s3.put(bucket, f"{params.folder}foreign.dump.age", source, {}, deadline=context().deadline)
    ctx = context(fresh=timedelta(hours=1))
    assert action.plan(params, action.read(params, ctx), ctx).verb is Verb.RUN


def test_a_failing_dump_leaves_nothing(action, params, s3, bucket):
    params.of.postgresql.database = "no-such-database"
    with pytest.raises(PermanentError, match='database "no-such-database" does not exist'):
        take(action, params)
    assert s3.list(bucket, "") == []


def test_what_is_no_dump_is_not_kept(action, params, s3, bucket, cluster, monkeypatch):
    monkeypatch.setattr(cluster, "exec", lambda *_args, **_given: iter([b"Defaulted container\n"]))
    with pytest.raises(PermanentError, match="20 bytes that are no dump"):
        take(action, params)
    assert s3.list(bucket, "") == []


def test_what_cannot_be_decrypted_is_not_kept(cluster, params, s3, bucket, identity):
    blind = Age([str(identity.to_public())], lambda: [str(pyrage.x25519.Identity.generate())])
    with pytest.raises(PermanentError, match="none of the identities at hand fits"):
        take(BackupAction(cluster, blind, s3), params)
    assert s3.list(bucket, "") == []


def test_what_decrypts_to_something_else_is_not_kept(action, params, s3, bucket, age, monkeypatch):
    monkeypatch.setattr(age, "decrypt", lambda _file, sink: sink(b"PGDMP, but another one"))
    with pytest.raises(PermanentError, match="the decrypted dump differs"):
        take(action, params)
    assert s3.list(bucket, "") == []


def test_a_bucket_that_is_not_there_yet_is_no_evidence(action, params):
    params.to.bucket = "later"
    ctx = context(fresh=timedelta(hours=1))
    assert action.plan(params, action.read(params, ctx), ctx).verb is Verb.RUN


def test_undo_keeps_the_backup(action, params, s3, bucket):
    change, _ = take(action, params)
    assert change.residue == tuple(change.objects)
    action.undo(params, change, action.capture(params, change, action.read(params, context()), context()), context())
    assert len(s3.list(bucket, "")) == 1
