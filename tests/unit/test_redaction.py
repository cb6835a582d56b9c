"""No form of a registered value passes."""

from __future__ import annotations

import base64
import json
import pickle
import shlex
import urllib.parse

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.core.redaction import MASK, Redactor, Secret

VALUES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=10, max_size=40)


@given(VALUES, st.text(max_size=5), st.text(max_size=5))
def test_raw_base64_hex_url_and_json(value: str, before: str, after: str) -> None:
    assume(value not in MASK)  # a secret that is part of the mask is shown by it
    redactor = Redactor()
    redactor.register(value)
    surrounded = f"{before}{value}{after}"
    written = [
        surrounded,
        value.encode().hex(),
        urllib.parse.quote(value),
        json.dumps(value),
        shlex.quote(value),
    ]
    for text in written:
        assert value not in redactor.text(text)
    assert MASK in redactor.text(base64.b64encode(surrounded.encode()).decode())


def test_base64_core_leaves_nothing_to_decode() -> None:
    redactor = Redactor()
    redactor.register("correct-horse-battery")
    for shift in range(6):
        encoded = base64.b64encode(b"x" * shift + b"correct-horse-battery" + b"tail").decode()
        left = redactor.text(encoded).split(MASK)
        assert all(len(part) < 14 for part in left), left


def test_each_line_of_a_pem() -> None:
    redactor = Redactor()
    redactor.register("-----BEGIN KEY-----\nMIIBVgIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----")
    assert "hkiG9w0BAQEFAASC" not in redactor.text("log: hkiG9w0BAQEFAASC")


def test_short_values_do_not_mask_words() -> None:
    redactor = Redactor()
    redactor.register("yes")
    assert redactor.text("yes, it is done") == "yes, it is done"


def test_data_and_keys() -> None:
    redactor = Redactor()
    secret = redactor.register("a-long-secret")
    document = {"a-long-secret": [secret, "is a-long-secret", 3, None]}
    assert redactor.data(document) == {MASK: [MASK, f"is {MASK}", 3, None]}


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret("a-long-secret")
    shown = f"{secret} {secret!r} {secret:>3} {[secret]} {vars(Exception(secret))} {Exception(secret)}"
    assert "a-long-secret" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(secret)
