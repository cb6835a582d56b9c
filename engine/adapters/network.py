"""Plain TCP and TLS connections by the standard library."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from engine.adapters.local_networks import LocalNetworks
from engine.core.action import Deadline
from engine.core.services import Certificate, NoAnswerError
from engine.errors import UsageError

_LONGEST = 10.0  # seconds to connect, and for the handshake
_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_NO_COMMON_VERSION = ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")


class Sockets:
    """Opens connections and looks at certificates (port Network)."""

    def __init__(self, networks: LocalNetworks | None = None) -> None:
        self._networks = networks or LocalNetworks()

    def connect(self, host: str, port: int, *, hold: float = 0, deadline: Deadline) -> None:
        doing = f"connect to {host}:{port}"
        self._networks.require(host)
        with _opened(host, port, deadline) as opened, _socket_errors(doing):
            if not hold:
                return
            opened.settimeout(min(hold, max(deadline.remaining(), 0.01)))
            try:
                first = opened.recv(1)
            except TimeoutError:
                return  # open and quiet
            if not first:
                raise NoAnswerError(f"{doing}: closed at once", "reset")

    def certificate(
        self, host: str, port: int, server_name: str, *, ca: str = "", newest: str = "", deadline: Deadline
    ) -> Certificate:
        try:
            context = ssl.create_default_context(cafile=ca or None)
        except OSError as error:
            raise UsageError(f"CA file {ca} cannot be used: {error}") from error
        if newest:
            context.maximum_version = _VERSIONS[newest]
        self._networks.require(host)
        with (
            _opened(host, port, deadline) as plain,
            _socket_errors(f"TLS with {host}:{port} as {server_name}"),
            context.wrap_socket(plain, server_hostname=server_name) as wrapped,
        ):
            shown: Any = wrapped.getpeercert()
            return Certificate(
                subject=_name(shown.get("subject", ())),
                issuer=_name(shown.get("issuer", ())),
                names=tuple(value for _, value in shown.get("subjectAltName", ())),
                not_after=datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC),
                protocol=wrapped.version() or "",
            )


@contextmanager
def _opened(host: str, port: int, deadline: Deadline) -> Iterator[socket.socket]:
    doing = f"connect to {host}:{port}"
    deadline.check(doing)
    timeout = min(_LONGEST, deadline.remaining())
    with _socket_errors(doing):
        opened = socket.create_connection((host, port), timeout)
    with opened:
        yield opened


@contextmanager
def _socket_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise NoAnswerError(f"{doing}: {error.verify_message}", "tls") from error
    except ssl.SSLError as error:
        if error.reason in _NO_COMMON_VERSION:
            raise NoAnswerError(f"{doing}: no version of TLS in common", "protocol") from error
        raise NoAnswerError(f"{doing}: {error.reason or error}", "tls") from error
    except TimeoutError as error:
        raise NoAnswerError(f"{doing}: no answer within {_LONGEST:.0f} s", "timeout") from error
    except ConnectionRefusedError as error:
        raise NoAnswerError(f"{doing}: connection refused", "refused") from error
    except (ConnectionResetError, BrokenPipeError) as error:
        raise NoAnswerError(f"{doing}: connection reset", "reset") from error
    except socket.gaierror as error:
        raise NoAnswerError(f"{doing}: the name does not resolve", "name") from error
    except OSError as error:
        raise NoAnswerError(f"{doing}: {error.strerror or error}", "unreachable") from error


def _name(parts: Any) -> str:
    """A distinguished name as its common name, else its organisation, else all of it."""
    fields = {key: value for part in parts for key, value in part}
    return str(fields.get("commonName") or fields.get("organizationName") or ", ".join(fields.values()))
