"""The `restore` action: the newest proven backup in the place of a real database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from engine.core.backup import How
from engine.core.change import Verb
from engine.core.convergence import Decision, converge
from engine.errors import NotYetError, PermanentError, RefusedError, TemporaryError
from tests.contract.backups import *  # noqa: F403 (fixtures)
from tests.contract.backups import KEY, take
from tests.fakes.contexts import context

BACK = "20260102-1/recovery/restore"


def test_lost_rows_come_back(action, params, restore, wanted, database):
    _, taken = take(action, params)
    before = database.ask("SELECT md5(string_agg(goods::text, ',' ORDER BY id)) FROM goods")
    database.ask("DELETE FROM goods WHERE id > 100; CREATE TABLE later (id int)")
    change, outcome = take(restore, wanted(replace=True), BACK)
    assert change.verb is Verb.RUN
    assert database.ask("SELECT md5(string_agg(goods::text, ',' ORDER BY id)) FROM goods") == before
    assert database.ask("SELECT to_regclass('later') IS NULL") == "t", "what came after the backup is gone"
    assert database.ask("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()") == "shop"
    assert (outcome.evidence["key"], outcome.evidence["taken"]) == (taken.evidence["key"], taken.evidence["taken"])
    assert outcome.evidence["rows"] == 502


def test_into_an_empty_database_and_into_none(action, params, restore, wanted, database):
    take(action, params)
    database.ask('DROP TABLE goods, empty; DROP SCHEMA "Odd" CASCADE')
    take(restore, wanted(), BACK)
    assert database.ask("SELECT count(*) FROM goods") == "500"
    database.ask(f'DROP DATABASE "{database.name}"', "postgres")
    take(restore, wanted(), "20260103-1/recovery/restore")
    assert database.ask("SELECT count(*) FROM goods") == "500"


def test_a_database_with_tables_is_not_replaced_unasked(action, params, restore, wanted, database):
    take(action, params)
    database.ask("DELETE FROM goods WHERE id > 100")
    change = restore.plan(wanted(), restore.read(wanted(), context()), context())
    (delta,) = change.objects.values()
    assert any("replace: true" in line.note for line in delta.diff)
    with pytest.raises(RefusedError, match=r"is not empty \(3 tables\).*replace: true"):
        take(restore, wanted(), BACK)
    assert database.ask("SELECT count(*) FROM goods") == "100"


def test_nothing_proved_is_refused_while_planning(action, params, restore, wanted, bucket, s3):
    with pytest.raises(RefusedError, match="nothing to restore"):
        restore.plan(wanted(), restore.read(wanted(), context()), context())
    take(action, params.model_copy(update={"proof": How.DECRYPT}))
    with pytest.raises(RefusedError, match=r"no signed backup of .* that was proved by a restore"):
        restore.plan(wanted(), restore.read(wanted(), context()), context())
    named = wanted(backup="20260101-1_services_first-dump")
    with pytest.raises(RefusedError, match="it was not proved by a restore"):
        restore.plan(named, restore.read(named, context()), context())
    action.prove(params, KEY, context())
    assert restore.plan(wanted(), restore.read(wanted(), context()), context()).verb is Verb.RUN


def test_an_altered_manifest_is_refused(action, params, restore, wanted, bucket, s3, tmp_path):
    take(action, params)
    key, file = params.name(KEY) + ".manifest.json", tmp_path / "manifest"
    s3.get(bucket, key, file, deadline=context().deadline)
    envelope = json.loads(file.read_text())
    envelope["document"]["taken"] = "2020-01-01T00:00:00+00:00"
    file.write_text(json.dumps(envelope))
    s3.put(bucket, key, file, {}, deadline=context().deadline)
    named = wanted(backup=params.name(KEY) + ".dump.age")
    with pytest.raises(RefusedError, match="the signature does not hold"):
        restore.plan(named, restore.read(named, context()), context())


def test_an_altered_dump_changes_nothing(action, params, restore, wanted, bucket, s3, database, age, tmp_path):
    take(action, params)
    ctx = context(key=BACK)
    change = restore.plan(wanted(replace=True), restore.read(wanted(replace=True), ctx), ctx)
    size = s3.head(bucket, params.name(KEY) + ".dump.age").size
    other = tmp_path / "other"
    other.write_bytes(b"x" * size)
    s3.put(bucket, params.name(KEY) + ".dump.age", other, {}, deadline=context().deadline)
    database.ask("DELETE FROM goods WHERE id > 100")
    with pytest.raises(PermanentError, match="is not what its manifest says: SHA-256"):
        restore.apply(wanted(replace=True), change, ctx)
    assert database.ask("SELECT count(*) FROM goods") == "100"


def test_the_newest_proven_one_is_chosen_and_the_planned_one_restored(action, params, restore, wanted, database):
    take(action, params)
    database.ask("INSERT INTO goods VALUES (501, 'second')")
    take(action, params, "20260102-1/services/first-dump")
    ctx = context(key=BACK)
    change = restore.plan(wanted(replace=True), restore.read(wanted(replace=True), ctx), ctx)
    database.ask("INSERT INTO goods VALUES (502, 'third')")
    take(action, params, "20260103-1/services/first-dump")
    restore.apply(wanted(replace=True), change, ctx)
    assert database.ask("SELECT count(*) FROM goods") == "501"
    first = wanted(replace=True, backup="20260101-1/services/first-dump")
    take(restore, first, "20260104-1/recovery/restore")
    assert database.ask("SELECT count(*) FROM goods") == "500"


def test_done_once_per_key(action, params, restore, wanted, database):
    take(action, params)
    chosen = wanted(replace=True)
    change, first = take(restore, chosen, BACK)
    database.ask("INSERT INTO goods VALUES (501, 'after')")
    ctx = context(key=BACK, resuming=True)
    assert converge(change, restore.read(chosen, ctx).state, resuming=True).decision is Decision.ALREADY
    assert restore.apply(chosen, change, ctx).evidence == first.evidence
    assert database.ask("SELECT count(*) FROM goods") == "501"
    fresh = context(fresh=timedelta(hours=1))
    assert restore.plan(chosen, restore.read(chosen, fresh), fresh).verb is Verb.NONE
    later = context(fresh=timedelta(hours=1), now=datetime.now(UTC) + timedelta(hours=2))
    assert restore.plan(chosen, restore.read(chosen, later), later).verb is Verb.RUN


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_the_swap_it_is_gone_on_with(action, params, restore, wanted, database, cluster, when):
    """What is left behind is gone after the second attempt, and nothing was done twice."""
    take(action, params)
    database.ask("DELETE FROM goods WHERE id > 100")
    chosen, ctx, exec_there = wanted(replace=True), context(key=BACK), cluster.exec
    change = restore.plan(chosen, restore.read(chosen, ctx), ctx)

    def dead(*_given, **_named):
        raise TemporaryError("killed")

    def dies(namespace, pod, argv, **named):
        if argv[0] != "psql":
            return exec_there(namespace, pod, argv, **named)
        script = b"".join(named.pop("stdin"))
        if b"RENAME TO" in script:
            cluster.exec = dead
            if when == "after":
                list(exec_there(namespace, pod, argv, stdin=script, **named))
            dead()
        return exec_there(namespace, pod, argv, stdin=script, **named)

    cluster.exec = dies
    with pytest.raises(TemporaryError, match="killed"):
        restore.apply(chosen, change, ctx)
    cluster.exec = exec_there
    assert any(name.startswith("runbook_") for name in database.databases()), "nothing was left to clear up"
    verdict = converge(change, restore.read(chosen, context(key=BACK, resuming=True)).state, resuming=True)
    assert verdict.decision is (Decision.APPLY if when == "before" else Decision.ALREADY)
    if when == "after":
        database.ask("INSERT INTO goods VALUES (501, 'after')")
    restore.apply(chosen, change, ctx)
    assert database.ask("SELECT count(*) FROM goods") == ("500" if when == "before" else "501")


def test_whoever_is_connected_is_sent_away(action, params, restore, wanted, database, postgres):
    import subprocess

    take(action, params)
    argv = ["psql", "-XAtq", "-h", postgres.socket, "-p", str(postgres.port), "-d", database.name]
    with subprocess.Popen(
        [*argv, "-c", "BEGIN; SELECT count(*) FROM goods; SELECT pg_sleep(60)"],
        user=postgres.admin,
        cwd="/",
        stderr=subprocess.DEVNULL,
    ) as held:
        take(restore, wanted(replace=True), BACK)
        assert held.wait(10) != 0
    assert database.ask("SELECT count(*) FROM goods") == "500"


def test_a_pod_that_is_not_ready_is_waited_for(restore, wanted, cluster):
    cluster.ready = False
    with pytest.raises(NotYetError, match="pod shop/postgresql-0 is not ready yet"):
        restore.read(wanted(), context())
