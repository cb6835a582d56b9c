"""What holds for every secret store, and for the `secret` action on it: a real OpenBao, and Azure Key Vault's fake."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import hvac
import pytest
import trustme

from engine.actions.secret import SecretAction, SecretParams
from engine.adapters.vault import Vault
from engine.core.change import Verb
from engine.core.convergence import Decision, converge
from engine.core.keyvault import secret_name
from engine.core.ports import EXPIRES, OWNER, SecretStore
from engine.core.redaction import Redactor, Secret
from engine.errors import RefusedError
from tests.contract.conformance.subjects.secret import connect
from tests.fakes.contexts import context


@dataclass
class Arranged:
    """A store, and what a person does to it with other tools."""

    store: SecretStore
    redactor: Redactor
    put: Callable[[str, Mapping[str, Any]], None]
    delete: Callable[[str], None]
    stored: Callable[[str], Mapping[str, Any]]


@pytest.fixture(params=["vault", "keyvault"])
def arranged(request, tmp_path):
    redactor = Redactor()
    if request.param == "keyvault":
        fake = request.getfixturevalue("keyvault")

        def delete(path):
            fake.deleted[secret_name(path)] = fake.held.pop(secret_name(path))

        return Arranged(
            connect(fake, redactor, tmp_path),
            redactor,
            put=lambda path, values: fake.put(secret_name(path), json.dumps(values)),
            delete=delete,
            stored=lambda path: json.loads(fake.held[secret_name(path)].versions[-1]["value"]),
        )
    bao = request.getfixturevalue("bao")
    client = hvac.Client(bao.url, bao.token, verify=bao.ca)
    kv = client.secrets.kv.v2
    return Arranged(
        Vault(lambda: bao.url, lambda _url: Secret(bao.token), redactor, ca=bao.ca),
        redactor,
        put=lambda path, values: kv.create_or_update_secret(path=path, secret=dict(values)),
        delete=kv.delete_latest_version_of_secret,
        stored=lambda path: kv.read_secret_version(path=path, raise_on_deleted_version=True)["data"]["data"],
    )


@pytest.fixture
def store(arranged):
    return arranged.store


@pytest.fixture
def path():
    return f"stores/{uuid.uuid4().hex}"


def revealed(found):
    return {key: value.reveal() for key, value in found.values.items()}


# --- the port ---


def test_nothing_there(store, path):
    assert store.read(path) is None


def test_versions_count_from_one_and_older_ones_can_be_read(store, path):
    assert [store.write(path, {"a": Secret(str(n))}, expected=n) for n in range(3)] == [1, 2, 3]
    assert store.read(path).version == 3
    assert [revealed(store.read(path, n)) for n in (1, 2, 3)] == [{"a": "0"}, {"a": "1"}, {"a": "2"}]


def test_keys_that_are_not_named_are_kept(arranged, store, path):
    arranged.put(path, {"other": "kept", "number": 7})
    assert store.write(path, {"password": Secret("s3cret-value")}, expected=1) == 2
    assert arranged.stored(path) == {"other": "kept", "number": 7, "password": "s3cret-value"}


def test_a_version_that_moved_is_refused_and_nothing_written(arranged, store, path):
    arranged.put(path, {"a": "1"})
    arranged.put(path, {"a": "2"})
    with pytest.raises(RefusedError, match="was version 1 when planned, it is version 2"):
        store.write(path, {"a": Secret("3")}, expected=1)
    assert arranged.stored(path) == {"a": "2"}


def test_deleted_is_told_apart_from_never_there_and_can_be_written_again(arranged, store, path):
    store.write(path, {"a": Secret("1"), "b": Secret("1")}, expected=0)
    arranged.delete(path)
    seen = store.read(path)
    assert (seen.deleted, seen.version, dict(seen.values)) == (True, 1, {})
    assert store.write(path, {"a": Secret("2")}, expected=1) == 2
    assert arranged.stored(path) == {"a": "2"}


def test_metadata_comes_with_a_version_or_alone_and_is_kept(store, path):
    until = "2031-02-03T04:05:06+00:00"
    store.write(path, {"a": Secret("1")}, expected=0, metadata={OWNER: "shop/test", EXPIRES: until})
    assert store.read(path).metadata == {OWNER: "shop/test", EXPIRES: until}
    store.annotate(path, {"team": "payments"})
    store.write(path, {"a": Secret("2")}, expected=1)
    seen = store.read(path)
    assert (seen.version, dict(seen.metadata)) == (2, {OWNER: "shop/test", EXPIRES: until, "team": "payments"})


def test_only_sensitive_keys_are_masked(arranged, store, path):
    arranged.put(path, {"username": "belizechain", "password": "correct-horse"})
    store.read(path, sensitive={"password"})
    assert arranged.redactor.text("belizechain correct-horse") == "belizechain (sensitive)"


def test_health(store):
    health = store.health()
    assert (health["initialized"], health["sealed"]) == (True, False)


# --- the action ---


def action(store, owner="shop/test"):
    return SecretAction(store, owner)


def secret(path, **keys):
    more = {name: keys.pop(name) for name in ("lifetime_days",) if name in keys}
    return SecretParams(path=path, keys=keys or {"password": {"generate": {}}}, **more)


def planned(store, params, owner="shop/test", **given):
    ctx, made = context(**given), action(store, owner)
    return made.plan(params, made.read(params, ctx), ctx)


def applied(store, params, **given):
    change = planned(store, params, **given)
    if change.verb is not Verb.NONE:
        action(store).apply(params, change, context(**given))
    return change


def test_every_kind_is_generated_once(arranged, store, path):
    params = secret(
        path,
        username={"value": "shop"},
        password={"generate": {"length": 24}},
        node_key={"generate": {"bytes": 32}},
        cookie_key={"generate": {"bytes": 32, "encoding": "base64"}},
        signing={"generate": {"private_key": "ed25519"}},
        verifying={"public_of": "signing"},
    )
    assert applied(store, params).verb is Verb.CREATE
    first = arranged.stored(path)
    assert first["verifying"].startswith("-----BEGIN PUBLIC KEY-----")
    assert (len(first["password"]), len(first["node_key"]), len(first["cookie_key"])) == (24, 64, 44)
    assert applied(store, params).verb is Verb.NONE
    assert arranged.stored(path) == first


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("CHANGE_ME", "a placeholder"),
        ("changeme-please", "a placeholder"),
        ("<your-password>", "a placeholder"),
        ("short7Q", "7 of 40 characters"),
        ("a" * 40, "made of 1 different characters"),
        ("someone", "the same as the user name"),
    ],
)
def test_a_bad_value_in_the_store_refuses_the_plan_without_showing_it(arranged, store, path, value, why):
    arranged.put(path, {"username": "someone", "password": value})
    params = secret(path, username={"value": "someone"}, password={"generate": {}})
    with pytest.raises(RefusedError) as caught:
        planned(store, params)
    assert f"secret {path}: key password is {why}" in str(caught.value)
    assert f"{value} " not in str(caught.value)
    assert arranged.stored(path)["password"] == value


def test_a_bad_value_is_replaced_where_the_runbook_says_so(arranged, store, path):
    arranged.put(path, {"password": "CHANGE_ME", "theirs": "kept"})
    assert applied(store, secret(path, password={"generate": {"replace": True}})).verb is Verb.UPDATE
    assert len(arranged.stored(path)["password"]) == 40
    assert arranged.stored(path)["theirs"] == "kept"


def test_a_given_value_must_be_there_and_good(arranged, store, path):
    params = secret(path, token={"given": {}})
    with pytest.raises(RefusedError, match="key token is not there: put it into the store"):
        planned(store, params)
    arranged.put(path, {"token": "your_token_here"})
    with pytest.raises(RefusedError, match="key token is a placeholder"):
        planned(store, params)
    arranged.put(path, {"token": "kR8-vQ2-pL5-xW9"})
    assert [line.path for d in planned(store, params).objects.values() for line in d.diff] == [f"({OWNER})"]


def test_a_bought_certificate_is_judged_when_planned(arranged, store, path):
    authority, now = trustme.CA(), datetime.now(UTC)
    demand = {"tls.crt": {"given": {"form": "certificate", "hosts": ["shop.example.com"], "days_left": 14}}}
    demand["tls.key"] = {"given": {"form": "private_key", "certificate": "tls.crt"}}
    params = SecretParams(path=path, keys=demand)

    def put(*names, days=90, key=None):
        made = authority.issue_cert(*names, not_after=now + timedelta(days=days))
        own = made.private_key_pem.bytes().decode()
        arranged.put(path, {"tls.crt": made.cert_chain_pems[0].bytes().decode(), "tls.key": key or own})
        return own

    first = put("old.example.com")
    with pytest.raises(RefusedError, match=r"key tls.crt is for old.example.com, not for shop.example.com. Nothing"):
        planned(store, params)
    put("shop.example.com", days=3)
    with pytest.raises(RefusedError, match=r"key tls.crt is valid for \d more days only, until .* and 14 are wanted"):
        planned(store, params)
    put("shop.example.com", key=first)
    with pytest.raises(RefusedError, match=r"key tls.key is of another certificate"):
        planned(store, params)
    put("shop.example.com")
    assert applied(store, params).verb is Verb.UPDATE  # the owner is noted
    assert planned(store, params).verb is Verb.NONE


def test_a_path_of_another_owner_is_refused_when_planned_and_when_it_comes_between(arranged, store, path):
    params = secret(path)
    change = planned(store, params)
    store.write(path, {"password": Secret("x" * 40)}, expected=0, metadata={OWNER: "other/production"})
    with pytest.raises(RefusedError, match=f"secret {path} belongs to other/production; this is shop/test"):
        planned(store, params)
    ctx = context()
    assert converge(change, action(store).read(params, ctx).state, resuming=False).decision is Decision.STALE
    with pytest.raises(RefusedError, match="belongs to other/production"):
        action(store).apply(params, change, ctx)
    assert arranged.stored(path) == {"password": "x" * 40}


def test_a_path_without_owner_is_taken_over_without_a_new_version(arranged, store, path):
    arranged.put(path, {"password": "pR7xQ2mN" * 5})
    change = applied(store, secret(path))
    assert (change.verb, store.read(path).version) == (Verb.UPDATE, 1)
    assert store.read(path).metadata[OWNER] == "shop/test"
    assert applied(store, secret(path)).verb is Verb.NONE


def test_expired_values_refuse_the_plan_or_are_replaced(arranged, store, path):
    now = datetime(2030, 1, 1, tzinfo=UTC)
    applied(store, secret(path, lifetime_days=30), now=now)
    first = arranged.stored(path)
    later = {"now": now + timedelta(days=31)}
    assert planned(store, secret(path, lifetime_days=30), now=now + timedelta(days=29)).verb is Verb.NONE
    with pytest.raises(RefusedError, match="key password is expired on 2030-01-31"):
        planned(store, secret(path, lifetime_days=30), **later)
    renewing = secret(path, password={"generate": {"replace": True}}, lifetime_days=30)
    assert applied(store, renewing, **later).verb is Verb.UPDATE
    assert arranged.stored(path) != first
    assert applied(store, renewing, **later).verb is Verb.NONE
