"""A bought certificate as a person put it into the store: each mistake in one line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import trustme

from engine.actions.given_certificate import certificate_lacks, private_key_lacks
from tests.unit.test_secret_keys import lint

AUTHORITY = trustme.CA()
NOW = datetime.now(UTC)


def bought(*names: str, ends: datetime = NOW + timedelta(days=90), starts: datetime = NOW - timedelta(days=1)):
    made = AUTHORITY.issue_cert(*names, not_before=starts, not_after=ends)
    return made.cert_chain_pems[0].bytes().decode(), made.private_key_pem.bytes().decode()


@pytest.mark.parametrize("name", ["platform.example.com", "*.example.com", "PLATFORM.example.com"])
def test_a_certificate_for_the_host(name):
    assert certificate_lacks(bought(name)[0], ["platform.example.com"], 14, NOW) == ""


@pytest.mark.parametrize("name", ["old.example.com", "*.platform.example.com", "example.com", "*.com"])
def test_a_certificate_for_another_host(name):
    said = certificate_lacks(bought(name)[0], ["platform.example.com"], 14, NOW)
    assert said == f"for {name}, not for platform.example.com"


def test_each_of_several_hosts_must_be_in_it():
    pem, _ = bought("a.example.com", "b.example.com")
    assert certificate_lacks(pem, ["a.example.com", "c.example.com"], 0, NOW).endswith("not for c.example.com")


def test_its_time():
    ends = NOW + timedelta(days=10)
    pem, _ = bought("a.example.com", ends=ends)
    assert "valid for 9 more days only" in certificate_lacks(pem, [], 10, NOW + timedelta(hours=1))
    assert certificate_lacks(pem, [], 9, NOW + timedelta(hours=1)) == ""
    assert certificate_lacks(pem, [], 0, ends + timedelta(days=1)) == f"expired since {ends:%Y-%m-%d}"
    assert "not valid before" in certificate_lacks(pem, [], 0, NOW - timedelta(days=2))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("CHANGE_ME", "a placeholder"),
        ("my certificate", "no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "no certificate in PEM"),
    ],
)
def test_what_is_no_certificate(value, said):
    assert certificate_lacks(value, [], 0, NOW) == said


def test_the_key_must_belong_to_the_certificate():
    (pem, key), (_, other) = bought("a.example.com"), bought("a.example.com")
    assert private_key_lacks(key, pem) == ""
    assert private_key_lacks(other, pem) == "of another certificate"
    assert private_key_lacks(other, None) == ""
    assert private_key_lacks("CHANGE_ME", pem) == "a placeholder"
    assert private_key_lacks(pem, pem) == "no private key in PEM, or one with a password"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["tls.crt: {given: {hosts: [a.example.com]}}"], "hosts needs form: certificate"),
        (["tls.key: {given: {form: private_key, certificate: tls.crt}}"], "'tls.crt' is no certificate given here"),
    ],
)
def test_lint_tells_what_cannot_be(tmp_path, keys, message):
    assert [said for _, _, said in lint(tmp_path, keys) if message in said]
