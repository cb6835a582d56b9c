"""Values that are no secrets, told at their place in the file; and the platform's manifests for either secret store."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from engine.core.weakness import is_placeholder, weakness
from engine.load.lint import Registry, check
from engine.load.text import render_file
from engine.registry import ACTION_TYPES, CHECK_TYPES

MANIFESTS = Path(__file__).parents[2] / "runbooks/belizechain/manifests"


@pytest.mark.parametrize(
    "value",
    [
        "CHANGE_ME", "changeme", "change-me-now", "please_change_me", "REPLACE_ME", "changeit", "your_api_key",
        "your-key-here", "<password>", "${DB_PASSWORD}", "xxx", "example", "example-key", "Secret", "password123",
        "TODO", "my-secret-key", "admin", "postgres", "insert-key-here",
    ],
)  # fmt: skip
def test_placeholders(value):
    assert is_placeholder(value)


@pytest.mark.parametrize(
    "value", ["kR8vQ2pL5xW9", "platform-admin", "belizechain", "https://hooks.lab.test/x", "db.lab.test"]
)
def test_what_is_none(value):
    assert not is_placeholder(value)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("kR8vQ2pL5xW9", ""),
        ("kR8vQ2p", "only 7 characters"),
        ("abababababababab", "made of 2 different characters"),
        ("abcdefghijklm", "a sequence"),
        ("Someone-Long-Enough", "the same as the user name"),
    ],
)
def test_weakness(value, why):
    assert weakness(value, "someone-long-enough") == why


def lint(tmp_path, keys):
    phases = tmp_path / "runbooks/shop/phases"
    phases.mkdir(parents=True)
    (phases.parent / "runbook.yml").write_text("title: Shop\n")
    lines = ["phase: one", "steps:", "  - id: db", "    secret:", "      path: shop/db", "      keys:"]
    (phases / "01.yml").write_text("\n".join([*lines, *(f"        {line}" for line in keys)]) + "\n")
    found = check(tmp_path, None, {"given": "CHANGE_ME"}, Registry(ACTION_TYPES, CHECK_TYPES))
    return [(d.position.line, d.position.column, d.message) for d in found]


@pytest.mark.parametrize(
    ("keys", "line", "column", "message"),
    [
        (["host: {value: CHANGE_ME}"], 7, 23, "is a placeholder; generate the value instead"),
        (['host: {value: "{{ given }}"}'], 7, 23, "is a placeholder; generate the value instead"),
        (["user: {value: shop}", "password: {value: short7Q}"], 8, 27, "is only 7 characters"),
        (
            ["user: {value: shop-keeper-one}", "password: {value: shop-keeper-one}"],
            8,
            27,
            "is the same as the user name",
        ),
        (["api_token: {value: aaaaaaaaaaaaaaaaaaaa}"], 7, 28, "is made of 1 different characters"),
        (["p: {public_of: signing}"], 7, 24, "'signing' is no private key that is generated here"),
        (["k: {generate: {bytes: 32, length: 40}}"], 7, 23, "wants either length and alphabet, or bytes and encoding"),
    ],
)
def test_a_value_that_is_no_secret_is_told_at_its_place(tmp_path, keys, line, column, message):
    found = lint(tmp_path, keys)
    assert [(at, col) for at, col, said in found if message in said] == [(line, column)], found


@pytest.mark.parametrize("store", ["vault", "keyvault"])
@pytest.mark.parametrize("folder", ["external-secrets", "monitoring-secrets"])
def test_one_variable_chooses_the_store_that_the_cluster_reads(store, folder):
    variables = {
        "secret_store": store,
        "validators": ["chain-0", "chain-1"],
        "keyvault_url": "https://shop.vault.test",
        "keyvault_tenant": "t",
        "keyvault_reader_client": "c",
        "backups_reader": False,
    }
    objects = []
    for file in sorted((MANIFESTS / folder).iterdir()):
        objects += filter(None, yaml.safe_load_all(render_file(file.read_text(), variables, file.name)))
    (provider,) = [o["spec"]["provider"] for o in objects if o["kind"] == "SecretStore"]
    assert list(provider) == [{"vault": "vault", "keyvault": "azurekv"}[store]]
    externals = [o for o in objects if o["kind"] == "ExternalSecret"]
    assert {e["spec"]["secretStoreRef"]["name"] for e in externals} == {"platform"}
    paths = {d["remoteRef"]["key"] for e in externals for d in e["spec"]["data"]}
    assert all(("/" in path) == (store == "vault") for path in paths)
    if folder == "external-secrets":
        wanted = {"vault": "belizechain/chain/chain-1", "keyvault": "belizechain--chain--chain-1"}[store]
        assert wanted in paths
