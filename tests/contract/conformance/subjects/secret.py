"""`secret` on a development server of OpenBao, and on Azure Key Vault's fake: an old version whose password does not
do, and a foreign key."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import requests

from engine.actions.secret import SecretAction, SecretParams
from engine.adapters.keyvault import KeyVault, credential
from engine.adapters.vault import Vault
from engine.core.keyvault import secret_name
from engine.core.ports import SecretStore
from engine.core.redaction import Redactor, Secret
from tests.contract.conformance.subject import Subject
from tests.fakes.keyvault import CLIENT, TENANT, KeyVaultFake

OLD = "canary-7f3a9c51d2"
BEFORE = {"username": "old-user", "password": OLD, "theirs": "kept"}


@contextmanager
def make(request, tmp_path) -> Iterator[Subject]:
    bao, path, redactor = request.getfixturevalue("bao"), f"conformance/{uuid.uuid4().hex}", Redactor()

    def ask(method: str, **more) -> dict:
        answer = requests.request(
            method,
            f"{bao.url}/v1/secret/data/{path}",
            headers={"X-Vault-Token": bao.token},
            verify=bao.ca,
            timeout=5,
            **more,
        )
        answer.raise_for_status()
        return answer.json()["data"]

    def stored() -> tuple[int, dict]:
        found = ask("GET")
        return found["metadata"]["version"], found["data"]

    ask("POST", json={"data": BEFORE})
    vault = Vault(lambda: bao.url, lambda _url: Secret(bao.token), redactor, mount="secret", ca=bao.ca)
    yield _subject(vault, path, redactor, stored, bao.token)


@contextmanager
def make_keyvault(request, tmp_path) -> Iterator[Subject]:
    fake, path, redactor = request.getfixturevalue("keyvault"), f"conformance/{uuid.uuid4().hex}", Redactor()
    name = secret_name(path)

    def stored() -> tuple[int, dict]:
        versions = fake.held[name].versions
        return len(versions), json.loads(versions[-1]["value"])

    fake.put(name, json.dumps(BEFORE))
    yield _subject(connect(fake, redactor, tmp_path), path, redactor, stored, fake.client_secret)


def connect(fake: KeyVaultFake, redactor: Redactor, folder, **more) -> KeyVault:
    """The adapter, logged in with a client secret."""
    secret = folder / "client-secret"
    secret.write_text(f"{fake.client_secret}\n")
    login = {"tenant": TENANT, "client": CLIENT, "secret_file": str(secret), "token_file": "", "ca": fake.ca}
    made = {"sleep": lambda _seconds: None, **more}
    return KeyVault(
        fake.url,
        lambda: credential("client_secret", authority=fake.authority, **login),
        redactor,
        ca=fake.ca,
        **made,
    )


def _subject(
    store: SecretStore, path: str, redactor: Redactor, stored: Callable[[], tuple[int, dict]], token: str
) -> Subject:
    seen = [OLD]

    def world() -> dict:
        version, data = stored()
        password = data.pop("password")
        seen.append(password)
        kind = "as it was" if password == OLD else f"{len(password)} {'alnum' if password.isalnum() else 'other'}"
        return {"version": version, "password": kind, **data}

    keys = {"username": {"value": "shop"}, "password": {"generate": {"length": 40, "replace": True}}}
    return Subject(
        action=SecretAction(store, "shop/conformance"),
        params=SecretParams(path=path, keys=keys),
        world=world,
        wanted={"version": 2, "password": "40 alnum", "username": "shop", "theirs": "kept"},
        residue=frozenset({"version", "password", "username", "theirs"}),
        canaries=lambda: [*seen, token],
        redactor=redactor,
    )
