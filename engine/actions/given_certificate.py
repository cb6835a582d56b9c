"""A certificate or key that a person put into the store: whom it is for, how long, and whether they belong together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from engine.core.weakness import is_placeholder

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def certificate_lacks(pem: str, hosts: Sequence[str], days_left: int, now: datetime) -> str:
    """What is wrong with the first certificate of a chain; empty: nothing.

    `hosts`: names that must all be in its alternative names (RFC 6125: the subject's common name does not count, a
    wildcard stands for one label). `days_left`: how many days it must still be valid.
    """
    found = _certificate(pem)
    if found is None:
        return "a placeholder" if is_placeholder(pem) else "no certificate in PEM"
    names = _names(found)
    missing = [host for host in hosts if not any(_matches(name, host) for name in names)]
    if missing:
        return f"for {', '.join(names) or 'no host at all'}, not for {', '.join(missing)}"
    starts, ends = found.not_valid_before_utc, found.not_valid_after_utc
    if ends <= now:
        return f"expired since {ends:%Y-%m-%d}"
    if starts > now:
        return f"not valid before {starts:%Y-%m-%d}"
    left = (ends - now).days
    return (
        f"valid for {left} more days only, until {ends:%Y-%m-%d}, and {days_left} are wanted"
        if left < days_left
        else ""
    )


def private_key_lacks(pem: str, certificate: str | None) -> str:
    """What is wrong with a private key; `certificate`: the chain it must belong to, None: not looked at."""
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        return "a placeholder" if is_placeholder(pem) else "no private key in PEM, or one with a password"
    found = _certificate(certificate) if certificate is not None else None
    return "of another certificate" if found and found.public_key() != key.public_key() else ""


def _certificate(pem: str) -> Certificate | None:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        return None


def _names(found: Certificate) -> list[str]:
    from cryptography import x509

    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def _matches(name: str, host: str) -> bool:
    name, host = name.lower(), host.lower()
    return name == host or (name.startswith("*.") and "." in host and name[1:] == host[host.index(".") :])
