"""What only Azure Key Vault does, by the real client against the fake; and the names of paths."""

from __future__ import annotations

import json

import pytest
from azure.core.exceptions import HttpResponseError
from azure.keyvault.secrets import SecretClient
from azure.keyvault.secrets._shared.http_challenge_cache import clear as forget_challenges
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.keyvault import KeyVault, credential
from engine.core.keyvault import secret_name, secret_path
from engine.core.redaction import Redactor, Secret
from engine.errors import NotYetError, PermanentError, RefusedError, TemporaryError, UsageError
from engine.settings import Settings
from tests.contract.conformance.subjects.secret import connect
from tests.fakes.keyvault import CLIENT, TENANT, running


@pytest.fixture
def fake(tmp_path):
    forget_challenges()  # the client keeps challenges for the whole process
    with running(tmp_path) as started:
        yield started


@pytest.fixture
def slept():
    return []


@pytest.fixture
def vault(fake, tmp_path, slept):
    return connect(fake, Redactor(), tmp_path, sleep=slept.append)


def login(fake, tmp_path, secret):
    file = tmp_path / "other"
    file.write_text(secret)
    named = {"tenant": TENANT, "client": CLIENT, "secret_file": str(file), "token_file": str(file)}
    return lambda kind: credential(kind, **named, authority=fake.authority, ca=fake.ca)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("belizechain/postgresql", "belizechain--postgresql"),
        ("team/api-key", "team--api-key"),
        ("Team/api_key", "---54eam--api---5fkey"),
        ("a-/b", "a---2d--b"),
        ("a/-b", "a-----2db"),
    ],
)
def test_the_name_of_a_path(path, name):
    assert secret_name(path) == name
    assert secret_path(name) == path


@given(st.lists(st.text("ab5-_F.é", min_size=1, max_size=6), min_size=1, max_size=4).map("/".join))
def test_a_name_leads_back_to_its_path_whatever_the_case(path):
    assert secret_path(secret_name(path)) == path
    assert secret_name(path) == secret_name(path).lower()


def test_a_name_of_somebody_else_is_no_path():
    with pytest.raises(ValueError, match="no name of a path"):
        secret_path("Portal---zz")


def test_the_first_request_carries_nothing_and_the_token_is_got_once(vault, fake):
    vault.write("a/b", {"x": Secret("1")}, expected=0)
    vault.read("a/b")
    assert len(fake.tokens) == 1
    assert fake.requests[:2] == ["GET /secrets/a--b/"] * 2  # the challenge, then with the token


def test_a_token_that_is_about_to_end_is_renewed(vault, fake):
    fake.token_seconds = 60
    vault.write("a/b", {"x": Secret("1")}, expected=0)
    assert len(fake.tokens) > 1
    assert vault.read("a/b").version == 1


def test_a_federated_token_logs_in(fake, tmp_path):
    made = login(fake, tmp_path, fake.client_secret)
    assert KeyVault(fake.url, lambda: made("workload"), Redactor(), ca=fake.ca).read("a/b") is None


def test_a_wrong_client_secret_is_said_and_not_shown(fake, tmp_path):
    made = login(fake, tmp_path, "not-the-right-one")
    with pytest.raises(PermanentError, match="not logged in") as caught:
        KeyVault(fake.url, lambda: made("client_secret"), Redactor(), ca=fake.ca).read("a/b")
    assert "not-the-right-one" not in str(caught.value)


def test_a_client_secret_file_that_is_missing(fake, tmp_path):
    with pytest.raises(UsageError, match=r"no credential of kind client_secret: .*No such file"):
        credential(
            "client_secret", tenant=TENANT, client=CLIENT, secret_file=str(tmp_path / "none"), token_file="",
            authority="", ca="",
        )  # fmt: skip


@pytest.mark.parametrize(("said", "waited"), [(["7", "3"], [7.0, 3.0]), (["", ""], [1.0, 2.0])])
def test_throttling_is_waited_for_as_long_as_it_says(vault, fake, slept, said, waited):
    vault.write("a/b", {"x": Secret("1")}, expected=0)
    fake.throttled = said
    assert vault.read("a/b").version == 1
    assert slept == waited


def test_a_throttled_write_is_one_version(vault, fake, slept):
    vault.write("a/b", {"x": Secret("1")}, expected=0)
    vault.read("a/b")
    fake.throttled = ["2"] * 3
    assert vault.write("a/b", {"x": Secret("2")}, expected=1) == 2
    assert len(fake.held["a--b"].versions) == 2


def test_throttling_for_longer_than_a_call_waits_is_temporary(vault, fake, slept):
    fake.throttled = ["600"]
    with pytest.raises(TemporaryError, match="throttling, and asks to wait 600 s"):
        vault.read("a/b")
    assert not slept


def test_a_deleted_secret_is_recovered_before_it_is_written(vault, fake, slept):
    vault.write("a/b", {"x": Secret("1")}, expected=0)
    fake.deleted["a--b"] = fake.held.pop("a--b")
    fake.recovery_takes = 2
    assert vault.write("a/b", {"x": Secret("2")}, expected=1) == 2
    assert slept == [1, 1]
    assert [json.loads(v["value"]) for v in fake.held["a--b"].versions] == [{"x": "1"}, {"x": "2"}]


def test_soft_delete_and_purge_protection_as_the_client_meets_them(fake, tmp_path):
    made = login(fake, tmp_path, fake.client_secret)
    with (
        made("client_secret") as logged_in,
        SecretClient(fake.url, logged_in, connection_verify=fake.ca, retry_total=0) as client,
    ):
        client.set_secret("Name", "one")
        client.begin_delete_secret("name").wait()
        assert [d.name for d in client.list_deleted_secrets()] == ["name"]
        with pytest.raises(HttpResponseError) as caught:
            client.set_secret("name", "two")
        assert (caught.value.status_code, caught.value.error.innererror["code"]) == (
            409,
            "ObjectIsDeletedButRecoverable",
        )
        fake.purge_protection = True
        assert client.get_deleted_secret("name").properties.recovery_level == "Recoverable"
        with pytest.raises(HttpResponseError) as caught:
            client.purge_deleted_secret("name")
        assert caught.value.status_code == 403
        fake.purge_protection = False
        client.purge_deleted_secret("name")
        assert not fake.deleted


def test_many_versions_come_in_pages(vault, fake):
    for number in range(60):
        fake.put("a--b", json.dumps({"x": str(number)}), tags={"version": str(number + 1)})
    assert vault.read("a/b").version == 60
    assert vault.read("a/b", 7).values["x"].reveal() == "6"


def test_somebody_who_writes_at_the_same_moment_is_noticed(vault, fake):
    vault.write("a/b", {"x": Secret("1")}, expected=0)
    fake.before_write = lambda: fake.put("a--b", '{"x": "theirs"}')
    with pytest.raises(PermanentError, match="a/b was written by somebody else at the same moment: it has 3 versions"):
        vault.write("a/b", {"x": Secret("mine")}, expected=1)
    assert len(fake.held["a--b"].versions) == 3


def test_plain_text_is_the_key_value_and_not_written_over(vault, fake):
    fake.put("a--b", "just-text")
    assert vault.read("a/b").values["value"].reveal() == "just-text"
    with pytest.raises(RefusedError, match="holds plain text"):
        vault.write("a/b", {"x": Secret("1")}, expected=1)


def test_a_missing_right_is_named(vault, fake):
    fake.denied = {"set"}
    with pytest.raises(PermanentError, match=r"cannot write a/b: Forbidden \(AccessDenied\).*secrets set permission"):
        vault.write("a/b", {"x": Secret("1")}, expected=0)


def test_a_secret_that_is_too_long_is_refused_by_the_vault(vault):
    with pytest.raises(PermanentError, match="too long"):
        vault.write("a/b", {"x": Secret("1" * 26_000)}, expected=0)


def test_nobody_there_is_not_yet(fake, tmp_path):
    made = login(fake, tmp_path, fake.client_secret)
    vault = KeyVault("https://127.0.0.1:9", lambda: made("client_secret"), Redactor(), ca=fake.ca)
    with pytest.raises(NotYetError, match="cannot read a/b"):
        vault.read("a/b")


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({}, "needs keyvault_url"),
        ({"keyvault_url": "https://x.vault.test", "keyvault_credential": "client_secret"}, "needs keyvault_tenant"),
    ],
)
def test_settings_that_cannot_work(given_settings, message):
    with pytest.raises(ValueError, match=message):
        Settings.model_validate({"secret_store": "keyvault", **given_settings})
