"""What a Kubernetes API server or the way to it can answer, as the engine's errors. Translated here, once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from engine.errors import NotYetError, PermanentError, RunbookError, TemporaryError

_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]+)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)
_NO_NAMESPACE = re.compile(r'namespaces "([^"]+)" not found')
_PASSING = (408, 429, 502, 503, 504)


class GoneError(PermanentError):
    """A read, a patch or a delete of what is not there (404). The adapter turns it into None, or lets it out."""


class MovedError(TemporaryError):
    """The object changed since it was read, or exists already (409)."""


class NotServedError(NotYetError):
    """The API server does not serve this kind (yet)."""


class NamespaceMissingError(NotYetError):
    """The namespace an object belongs to does not exist (yet)."""


def status_error(code: int, body: bytes, what: str, identity: str, *, secret: bool = False) -> RunbookError:
    """The error of an answer of 400 or more. `secret`: the object is a Secret, so its text is never shown."""
    status = _status(body)
    message = str(status.get("message") or f"HTTP {code}")
    shown = f"HTTP {code} {status.get('reason') or ''}".strip() + " (text withheld: it may quote values)"
    text = shown if secret else message
    if code == 404:
        if missing := _NO_NAMESPACE.search(message):
            return NamespaceMissingError(f"namespace {missing[1]} does not exist")
        return GoneError(f"{what}: not found")
    if code == 403:
        return _forbidden(message, status, what, identity, secret=secret)
    if code == 401:
        return PermanentError(f"{what}: the cluster does not know {identity}: its credentials are wrong or expired")
    passing = code in _PASSING or (code == 500 and _passing(message))
    kind = MovedError if code == 409 else TemporaryError if passing else PermanentError
    return kind(f"{what}: {text}")


def _forbidden(message: str, status: Mapping[str, Any], what: str, identity: str, *, secret: bool) -> RunbookError:
    causes = (status.get("details") or {}).get("causes") or []
    if any(c.get("reason") == "NamespaceTerminating" for c in causes):
        return TemporaryError(f"{what}: its namespace is being deleted")
    if found := _FORBIDDEN.search(message):
        resource = found["resource"] + (f".{found['group']}" if found["group"] else "")
        where = f" in namespace {found['namespace']}" if found["namespace"] else ""
        return PermanentError(
            f"{what}: {identity} may not {found['verb']} {resource}{where}: "
            f"add it to the ClusterRole of {found['user']}. Nothing was changed."
        )
    return PermanentError(f"{what}: refused" if secret else f"{what}: {message}")


def _passing(message: str) -> bool:
    """A 500 is a typo or bad base64 as often as a trouble of the server (etcd, a webhook that does not answer)."""
    return any(word in message for word in ("etcdserver", "failed calling webhook", "context deadline", "timeout"))


def _status(body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {"message": body[:500].decode(errors="replace")} if body else {}
    return answer if isinstance(answer, dict) else {}
