"""`secret` on a development server of OpenBao: an old version whose password does not do, and a foreign key."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from engine.actions.secret import SecretAction, SecretParams
from engine.adapters.vault import Vault
from engine.core.redaction import Redactor, Secret
from tests.contract.conformance.subject import Subject

OLD = "canary-7f3a9c51d2"


@contextmanager
def make(request, tmp_path) -> Iterator[Subject]:
    bao, path, redactor = request.getfixturevalue("bao"), f"conformance/{uuid.uuid4().hex}", Redactor()
    headers, seen = {"X-Vault-Token": bao.token}, [OLD]

    def ask(method: str, **more) -> dict:
        answer = requests.request(
            method, f"{bao.url}/v1/secret/data/{path}", headers=headers, verify=bao.ca, timeout=5, **more
        )
        answer.raise_for_status()
        return answer.json()["data"]

    def world() -> dict:
        found = ask("GET")
        password = found["data"].pop("password")
        seen.append(password)
        kind = "as it was" if password == OLD else f"{len(password)} {'alnum' if password.isalnum() else 'other'}"
        return {"version": found["metadata"]["version"], "password": kind, **found["data"]}

    ask("POST", json={"data": {"username": "old-user", "password": OLD, "theirs": "kept"}})
    keys = {"username": {"value": "shop"}, "password": {"generate": {"length": 40}}}
    vault = Vault(lambda: bao.url, lambda _url: Secret(bao.token), redactor, mount="secret", ca=bao.ca)
    yield Subject(
        action=SecretAction({"vault": vault}),
        params=SecretParams(path=path, keys=keys),
        world=world,
        wanted={"version": 2, "password": "40 alnum", "username": "shop", "theirs": "kept"},
        residue=frozenset({"version", "password", "username", "theirs"}),
        canaries=lambda: [*seen, bao.token],
        redactor=redactor,
    )
