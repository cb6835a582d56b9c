"""The `backup` action: a real pg_dump, real age, a real signature, into moto; proved by a real restore."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyrage
import pytest

from engine.actions.backup import BackupAction, BackupParams
from engine.actions.backup_store import BackupStore
from engine.adapters.age import Age
from engine.core.backup import How
from engine.core.change import Verb
from engine.core.convergence import Decision, converge
from engine.errors import PermanentError, TemporaryError, UsageError
from tests.contract.backups import *  # noqa: F403 (fixtures)
from tests.contract.backups import KEY, names, take
from tests.contract.services import require
from tests.fakes.contexts import context
from tests.fakes.signing import signing

WHOLE = [f"{KEY.replace('/', '_')}.{ending}" for ending in ("dump.age", "manifest.json", "proof.json")]


def test_taken_proved_and_restorable(action, params, s3, age, bucket, tmp_path, database):
    change, outcome = take(action, params)
    assert change.verb is Verb.RUN
    assert outcome.evidence["key"] == f"daily/postgresql/shop/postgresql-0/{database.name}/{WHOLE[0]}"
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
    assert names(s3, bucket) == WHOLE
    assert (outcome.evidence["how"], outcome.evidence["tables"], outcome.evidence["rows"]) == ("restore", 3, 502)


def test_the_manifest_tells_what_was_in_it_in_the_same_snapshot(action, params, store, cluster, database):
    """Rows that come while the dump is taken are in neither."""
    exec_there = cluster.exec

    def meanwhile(*given, **named):
        for piece in exec_there(*given, **named):
            yield piece
            if "psql" in given[2][0] and b"\ndump\n" in piece:
                database.ask("INSERT INTO goods VALUES (501, 'late')")

    cluster.exec = meanwhile
    _, outcome = take(action, params)
    cluster.exec = exec_there
    assert int(database.ask("SELECT count(*) FROM goods")) > 500
    (found,) = action.backups(params, context())
    tables = found.manifest.contents.tables
    assert {t: rows for t, (rows, _) in tables.items()} == {
        "public.goods": 500,
        "public.empty": 0,
        '"Odd"."a ""b"""': 2,
    }
    assert found.manifest.contents.server.startswith(database.ask("SHOW server_version").partition(" ")[0])
    assert outcome.evidence["rows"] == 502
    age_of_it = datetime.now(UTC) - found.manifest.taken
    assert timedelta(0) <= age_of_it < timedelta(minutes=1)


def test_done_in_steps_a_killed_backup_is_gone_on_with(action, params, s3, store, bucket, monkeypatch):
    def dies(*_given, **_named):
        raise TemporaryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(store, "keep_manifest", dies)
        with pytest.raises(TemporaryError):
            take(action, params)
    assert names(s3, bucket) == WHOLE[:1]
    assert action.read(params, context(key=KEY)).state == {}
    with monkeypatch.context() as patch:
        patch.setattr(store, "keep_proof", dies)
        with pytest.raises(TemporaryError):
            take(action, params)
    assert names(s3, bucket) == WHOLE[:2]
    assert action.read(params, context(key=KEY)).state == {}
    dumped = s3.head(bucket, params.name(KEY) + ".dump.age").etag
    take(action, params)
    assert names(s3, bucket) == WHOLE
    assert s3.head(bucket, params.name(KEY) + ".dump.age").etag == dumped, "it was dumped again"


def test_a_restore_that_differs_is_no_proof(action, params, s3, store, bucket, monkeypatch):
    kept = store.keep_manifest

    def altered(bucket, name, manifest, deadline):
        manifest.contents.tables["public.goods"] = (500, "7")
        manifest.contents.tables["public.empty"] = (3, "0")
        manifest.contents.tables["public.gone"] = (1, "0")
        kept(bucket, name, manifest, deadline)

    monkeypatch.setattr(store, "keep_manifest", altered)
    with pytest.raises(PermanentError) as error:
        take(action, params)
    for words in (
        "table public.gone is missing",
        "table public.goods has 500 rows, but others: their checksum differs",
        "table public.empty has 0 rows, not 3",
    ):
        assert words in str(error.value)
    assert names(s3, bucket) == WHOLE[:2]


def test_proved_by_decrypting_alone_when_the_step_says_so(action, params, s3, bucket):
    loose = params.model_copy(update={"proof": How.DECRYPT})
    _, outcome = take(action, loose)
    assert outcome.evidence["how"] == "decrypt"
    hour = timedelta(hours=1)
    assert action.plan(loose, action.read(loose, context(fresh=hour)), context(fresh=hour)).verb is Verb.NONE
    assert action.plan(params, action.read(params, context(fresh=hour)), context(fresh=hour)).verb is Verb.RUN
    proved = action.prove(params, "20260101-1_services_first-dump", context())
    assert proved.proof.how is How.RESTORE
    assert action.plan(params, action.read(params, context(fresh=hour)), context(fresh=hour)).verb is Verb.NONE


def test_what_nobody_vouches_for_does_not_count(action, params, s3, store, bucket, tmp_path):
    take(action, params)
    key, ctx = params.name(KEY) + ".manifest.json", context(fresh=timedelta(hours=1))
    file = tmp_path / "manifest"
    s3.get(bucket, key, file, deadline=context().deadline)
    envelope = json.loads(file.read_text())
    envelope["document"]["tables"]["public.goods"]["rows"] = 499
    file.write_text(json.dumps(envelope))
    s3.put(bucket, key, file, {}, deadline=context().deadline)
    assert action.plan(params, action.read(params, ctx), ctx).verb is Verb.RUN
    (found,) = action.backups(params, context())
    assert (found.manifest, "the signature does not hold" in found.trouble) == (None, True)
    with pytest.raises(PermanentError, match="the signature does not hold"):
        action.prove(params, KEY, context())
    file.write_text(json.dumps(envelope["document"]))
    s3.put(bucket, key, file, {}, deadline=context().deadline)
    (found,) = action.backups(params, context())
    assert found.trouble == f"{bucket}/{key} is not signed"


def test_somebody_elses_key_is_refused_before_anything_is_signed(cluster, s3, age, params, bucket, tmp_path_factory):
    stranger = signing(tmp_path_factory.mktemp("stranger"), allowed=False)
    with pytest.raises(PermanentError, match="allowed_signers has no line that gives runbook-backup the key"):
        take(BackupAction(cluster, BackupStore(s3, age, stranger)), params)
    assert names(s3, bucket) == WHOLE[:1]


def test_two_pods_with_the_same_database_have_two_places(params):
    of = params.of.model_dump()
    of["postgresql"]["pod"] = "postgresql-1"
    assert BackupParams(of=of, to=params.to.model_dump()).folder != params.folder


def test_nobody_to_sign_is_told(cluster, s3, age, signed, params):
    from dataclasses import replace

    with pytest.raises(UsageError, match="no backup_signing_key"):
        take(BackupAction(cluster, BackupStore(s3, age, replace(signed, key=None))), params)


def test_done_once_per_key(action, params, s3, bucket):
    _, first = take(action, params)
    ctx = context(key=KEY)
    reading = action.read(params, ctx)
    change = action.plan(params, action.read(params, context()), context())
    assert converge(change, reading.state, resuming=True).decision is Decision.ALREADY
    _, second = take(action, params)
    assert second.evidence == first.evidence
    assert names(s3, bucket) == WHOLE
    take(action, params, key="20260102-1/services/first-dump")
    assert len(s3.list(bucket, "")) == 6


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
    monkeypatch.setattr(
        cluster,
        "exec",
        lambda *_args, **_given: iter([b'{"server": "15", "taken": "2026-01-01"}\ndump\nDefaulted container\n']),
    )
    with pytest.raises(PermanentError, match="20 bytes that are no dump"):
        take(action, params)
    assert s3.list(bucket, "") == []


def test_what_cannot_be_decrypted_is_not_proved(cluster, params, s3, bucket, identity, signed):
    blind = Age([str(identity.to_public())], lambda: [str(pyrage.x25519.Identity.generate())])
    with pytest.raises(PermanentError, match="none of the identities at hand fits"):
        take(BackupAction(cluster, BackupStore(s3, blind, signed)), params)
    assert names(s3, bucket) == WHOLE[:2]


@pytest.mark.parametrize("how", How)
def test_what_decrypts_to_something_else_is_not_proved(action, params, s3, bucket, age, monkeypatch, how):
    monkeypatch.setattr(age, "decrypt", lambda _file, sink: sink(b"PGDMP, but another one"))
    with pytest.raises(PermanentError, match=r"decrypts to something else|exit|ended with"):
        take(action, params.model_copy(update={"proof": how}))
    assert names(s3, bucket) == WHOLE[:2]


def test_a_bucket_that_is_not_there_yet_is_no_evidence(action, params):
    params.to.bucket = "later"
    ctx = context(fresh=timedelta(hours=1))
    assert action.plan(params, action.read(params, ctx), ctx).verb is Verb.RUN


def test_undo_keeps_the_backup(action, params, s3, bucket):
    change, _ = take(action, params)
    assert change.residue == tuple(change.objects)
    action.undo(params, change, action.capture(params, change, action.read(params, context()), context()), context())
    assert names(s3, bucket) == WHOLE
