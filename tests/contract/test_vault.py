"""The Vault adapter and the `secret` action and `vault` check over it, against OpenBao."""

from __future__ import annotations

import threading
from pathlib import Path

import hvac
import pytest

from engine.actions.secret import SecretAction, SecretParams
from engine.adapters.vault import Vault, kubernetes_login
from engine.checks.vault import VaultCheck, VaultParams
from engine.core.change import Verb
from engine.core.convergence import Decision, converge
from engine.core.redaction import Redactor, Secret
from engine.errors import NotYetError, PermanentError, RefusedError, TemporaryError
from tests.contract.services import free_port
from tests.fakes.contexts import context


@pytest.fixture
def redactor():
    return Redactor()


@pytest.fixture
def raw(bao):
    """An own client, to arrange and to look from outside."""
    client = hvac.Client(bao.url, bao.token, verify=bao.ca)
    yield client
    client.session.close()


@pytest.fixture
def vault(bao, redactor):
    return Vault(lambda: bao.url, lambda _url: Secret(bao.token), redactor, ca=bao.ca)


@pytest.fixture
def path(request):
    return f"tests/{request.node.name}"


def put(raw, path, **values):
    raw.secrets.kv.v2.create_or_update_secret(path=path, secret=values)


def stored(raw, path):
    return raw.secrets.kv.v2.read_secret_version(path=path, raise_on_deleted_version=True)["data"]["data"]


# --- the adapter ---


def test_nothing_there(vault, path):
    assert vault.read(path) is None


def test_write_keeps_keys_it_does_not_name(vault, raw, path):
    put(raw, path, other="kept", number=7)
    assert vault.write(path, {"password": Secret("s3cret-value")}, expected=1) == 2
    assert stored(raw, path) == {"other": "kept", "number": 7, "password": "s3cret-value"}


def test_write_of_a_version_that_moved_is_refused(vault, raw, path):
    put(raw, path, a="1")
    put(raw, path, a="2")
    with pytest.raises(RefusedError, match="was version 1 when planned, it is version 2"):
        vault.write(path, {"a": Secret("3")}, expected=1)
    assert stored(raw, path) == {"a": "2"}


def test_a_write_in_between_is_refused_by_the_server(vault, raw, path, monkeypatch):
    put(raw, path, a="1")
    look = vault._raw
    monkeypatch.setattr(vault, "_raw", lambda p, v: (look(p, v), put(raw, path, a="2"))[0])
    with pytest.raises(RefusedError, match="another now"):
        vault.write(path, {"a": Secret("3")}, expected=1)
    assert stored(raw, path) == {"a": "2"}


def test_soft_deleted_path_is_written_at_its_current_version(vault, raw, path):
    put(raw, path, a="1")
    raw.secrets.kv.v2.delete_latest_version_of_secret(path)
    seen = vault.read(path)
    assert (seen.deleted, seen.version, dict(seen.values)) == (True, 1, {})
    assert vault.write(path, {"a": Secret("2")}, expected=1) == 2
    assert stored(raw, path) == {"a": "2"}


def test_an_older_version(vault, raw, path):
    put(raw, path, a="first")
    put(raw, path, a="second")
    assert vault.read(path, 1).values["a"].reveal() == "first"


def test_only_the_sensitive_keys_are_masked(vault, raw, path, redactor):
    put(raw, path, username="belizechain", password="correct-horse")
    vault.read(path, sensitive={"password"})
    assert redactor.text("belizechain correct-horse") == "belizechain (sensitive)"
    vault.read(path)
    assert redactor.text("belizechain") == "(sensitive)"


def test_health_needs_no_token(bao, redactor):
    def no_token(_url):
        raise AssertionError("asked for a token")

    health = Vault(lambda: bao.url, no_token, redactor, ca=bao.ca).health()
    assert (health["initialized"], health["sealed"]) == (True, False)


def test_an_expired_token_is_renewed_once(bao, raw, redactor, path):
    put(raw, path, a="1")
    tokens = [raw.auth.token.create(policies=["root"])["auth"]["client_token"] for _ in range(2)]
    given = iter(tokens)
    vault = Vault(lambda: bao.url, lambda _url: Secret(next(given)), redactor, ca=bao.ca)
    vault.read(path)
    raw.auth.token.revoke(tokens[0])
    assert vault.read(path).version == 1
    assert next(given, None) is None


def test_a_missing_right_is_named(bao, raw, redactor, path):
    raw.sys.create_or_update_policy("reader", 'path "secret/data/*" { capabilities = ["read"] }')
    token = raw.auth.token.create(policies=["reader"])["auth"]["client_token"]
    vault = Vault(lambda: bao.url, lambda _url: Secret(token), redactor, ca=bao.ca)
    with pytest.raises(PermanentError, match=r"policies \[default, reader\] do not allow 'create'") as caught:
        vault.write(path, {"a": Secret("1")}, expected=0)
    assert f"secret/data/{path}" in str(caught.value)


def test_no_server_yet(redactor):
    url = f"http://127.0.0.1:{free_port()}"
    vault = Vault(lambda: url, lambda _url: Secret("none"), redactor)
    with pytest.raises(NotYetError, match="Connection refused"):
        vault.read("a")
    with pytest.raises(NotYetError):
        vault.health()


def test_a_lost_connection_is_made_again(bao, raw, redactor, path):
    put(raw, path, a="1")
    urls = iter([bao.url, f"https://127.0.0.1:{free_port()}", bao.url])
    vault = Vault(lambda: next(urls), lambda _url: Secret(bao.token), redactor, ca=bao.ca)
    assert vault.read(path).version == 1
    vault._client.url = f"https://127.0.0.1:{free_port()}"  # the tunnel is gone
    with pytest.raises(NotYetError):
        vault.read(path)
    assert vault.read(path).version == 1


def test_the_address_is_asked_again_only_after_a_loss(bao, raw, redactor, path):
    put(raw, path, a="1")
    asked, dead = [], f"https://127.0.0.1:{free_port()}"

    def connect():
        asked.append(dead if not asked else bao.url)
        return asked[-1]

    def token(url):
        if url == dead:
            kubernetes_login(url, Secret("a.b.c"), "none", redactor, ca=bao.ca)
        return Secret(bao.token)

    vault = Vault(connect, token, redactor, ca=bao.ca)
    with pytest.raises(NotYetError):
        vault.read(path)  # the login found nobody
    for _ in range(2):
        assert vault.read(path).version == 1
        assert vault.health()["initialized"]
    assert asked == [dead, bao.url]


def test_a_write_without_an_answer_is_temporary_and_not_sent_twice(bao, redactor, path, monkeypatch):
    vault = Vault(lambda: bao.url, lambda _url: Secret(bao.token), redactor, ca=bao.ca)
    monkeypatch.setattr(vault, "_raw", lambda _p, _v: None)
    vault._session(hvac)
    vault._client.url = f"https://127.0.0.1:{free_port()}"
    with pytest.raises(TemporaryError):
        vault.write(path, {"a": Secret("1")}, expected=0)
    monkeypatch.undo()
    assert vault.read(path) is None


def test_a_wrong_ca_is_said(bao, redactor, tmp_path):
    import trustme

    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    vault = Vault(lambda: bao.url, lambda _url: Secret("none"), redactor, ca=str(tmp_path / "ca.pem"))
    with pytest.raises(NotYetError, match="certificate verify failed"):
        vault.read("a")


def test_a_missing_engine_is_not_yet(bao, redactor):
    vault = Vault(lambda: bao.url, lambda _url: Secret(bao.token), redactor, mount="elsewhere", ca=bao.ca)
    with pytest.raises(NotYetError, match="no secrets engine is mounted at elsewhere/"):
        vault.read("a")


def test_login_before_the_auth_mount_exists_is_not_yet(bao, redactor):
    with pytest.raises(NotYetError):
        kubernetes_login(bao.url, Secret("a.b.c"), "runbook", redactor, ca=bao.ca)


def test_login_before_the_role_exists_is_not_yet(bao, raw, redactor):
    raw.sys.enable_auth_method("kubernetes", path="k8s-norole")
    config = {
        "kubernetes_host": "https://127.0.0.1:1",
        "disable_local_ca_jwt": True,
        "kubernetes_ca_cert": Path(bao.ca).read_text(),
    }
    raw.write_data("auth/k8s-norole/config", data=config)
    with pytest.raises(NotYetError, match="role runbook"):
        kubernetes_login(bao.url, Secret("a.b.c"), "runbook", redactor, mount="k8s-norole", ca=bao.ca)


# --- the `secret` action ---

DATABASE = {"username": {"value": "belizechain"}, "password": {"generate": {"length": 24, "replace": True}}}


@pytest.fixture
def action(vault):
    return SecretAction(vault, "shop/test")


@pytest.fixture
def params(path):
    return SecretParams(path=path, keys=DATABASE)


def run(action, params):
    """Plan and apply as the executor does."""
    ctx = context()
    change = action.plan(params, action.read(params, ctx), ctx)
    if change.verb is not Verb.NONE:
        action.apply(params, change, ctx)
    return change


def test_created_once_and_then_kept(action, params, raw, redactor):
    assert run(action, params).verb is Verb.CREATE
    first = stored(raw, params.path)
    assert first["username"] == "belizechain"
    assert len(first["password"]) == 24
    assert first["password"].isalnum()
    assert run(action, params).verb is Verb.NONE
    assert stored(raw, params.path) == first


def test_plan_holds_no_value_and_does_not_change(action, params, raw):
    put(raw, params.path, username="someone-else", password="CHANGE_ME")
    ctx = context()
    change = action.plan(params, action.read(params, ctx), ctx)
    assert change == action.plan(params, action.read(params, ctx), ctx)
    text = str(change.to_json())
    assert "someone-else" not in text
    assert "CHANGE_ME" not in text
    assert [(line.path, line.before) for d in change.objects.values() for line in d.diff] == [
        ("username", "(another value)"),
        ("password", "(a placeholder)"),
        ("(runbook-owner)", None),
    ]


def test_a_weak_value_is_replaced_and_others_stay(action, params, raw):
    put(raw, params.path, username="belizechain", password="short", url="postgres://db")
    assert run(action, params).verb is Verb.UPDATE
    after = stored(raw, params.path)
    assert after["url"] == "postgres://db"
    assert len(after["password"]) == 24


def test_moved_since_the_plan_is_stale_and_the_write_refused(action, params, raw):
    put(raw, params.path, username="belizechain")
    ctx = context()
    change = action.plan(params, action.read(params, ctx), ctx)
    put(raw, params.path, username="belizechain", password="tooshort")
    assert converge(change, action.read(params, ctx).state, resuming=False).decision is Decision.STALE
    with pytest.raises(RefusedError):
        action.apply(params, change, ctx)


def test_two_at_once_make_one_version(vault, params, raw):
    ctx = context()
    actions = [SecretAction(vault, "shop/test") for _ in range(4)]
    change = actions[0].plan(params, actions[0].read(params, ctx), ctx)
    refused = []

    def attempt(action):
        try:
            action.apply(params, change, ctx)
        except RefusedError as error:
            refused.append(error)

    threads = [threading.Thread(target=attempt, args=(a,)) for a in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert vault.read(params.path).version == 1


def test_apply_again_after_a_lost_answer_writes_nothing(action, params, vault):
    ctx = context()
    change = action.plan(params, action.read(params, ctx), ctx)
    first = action.apply(params, change, ctx)
    assert action.apply(params, change, ctx).outputs == first.outputs == {"path": params.path, "version": 1}
    assert vault.read(params.path).version == 1


def test_deleted_comes_back(action, params, raw):
    run(action, params)
    raw.secrets.kv.v2.delete_latest_version_of_secret(params.path)
    assert run(action, params).verb is Verb.CREATE
    assert run(action, params).verb is Verb.NONE


def test_values_are_masked_from_the_moment_they_are_read(action, params, raw, redactor):
    run(action, params)
    action.read(params, context())
    assert redactor.text(stored(raw, params.path)["password"]) == "(sensitive)"


def test_undo_keeps_the_version(action, params, raw):
    change = run(action, params)
    assert change.undo_to == {}
    before = stored(raw, params.path)
    action.undo(params, change, action.capture(params, change, action.read(params, context()), context()), context())
    assert stored(raw, params.path) == before


# --- the `vault` check ---


def test_check_health(vault):
    check = VaultCheck(vault)
    assert check.run(VaultParams(initialized=True, sealed=False), context()).ok
    finding = check.run(VaultParams(sealed=True), context())
    assert not finding.ok
    assert finding.saw.startswith("initialized, not sealed, version ")


def test_check_version(vault, raw, path):
    check = VaultCheck(vault)
    assert check.run(VaultParams(path=path), context()).saw == f"{path} does not exist"
    put(raw, path, a="1")
    assert check.run(VaultParams(path=path), context()).ok
    finding = check.run(VaultParams(path=path, version_at_least=2), context())
    assert (finding.ok, finding.saw) == (False, f"{path} is version 1")
    raw.secrets.kv.v2.delete_latest_version_of_secret(path)
    assert "deleted" in check.run(VaultParams(path=path), context()).saw
