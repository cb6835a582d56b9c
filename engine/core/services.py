"""The services that checks ask, as protocols: HTTP, plain connections, names, databases. Nothing here changes any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from engine.core.action import Deadline
from engine.core.redaction import Secret
from engine.errors import TemporaryError


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer."""

    status: int
    body: str
    headers: Mapping[str, str]


class NoAnswerError(TemporaryError):
    """Nothing answered. `cause` tells a firm no from a mistake: `refused`, `reset`, `timeout`, `protocol` (no common
    version of TLS), `tls`, `name`, `unreachable`."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class Http(Protocol):
    def request(
        self,
        method: str,
        url: str,
        *,
        connect_to: tuple[str, int] | None = None,
        ca: str = "",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        deadline: Deadline,
    ) -> Response:
        """NoAnswerError when there is no answer (refused, reset, TLS failure, timeout), naming which.

        `connect_to` changes only where the connection goes: Host, SNI and certificate name stay the URL's. `ca` is
        a file; empty means the system's. Redirects are answers, not followed.
        """


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a TLS server showed, after it was verified."""

    subject: str
    issuer: str
    names: Sequence[str]
    not_after: datetime
    protocol: str


class Network(Protocol):
    """Plain TCP and TLS connections."""

    def connect(self, host: str, port: int, *, hold: float = 0, deadline: Deadline) -> None:
        """Open and close. NoAnswerError when that is not possible, or when it does not stay open for `hold` seconds:
        a tunnel accepts before it knows whether anything listens behind it."""

    def certificate(
        self, host: str, port: int, server_name: str, *, ca: str = "", newest: str = "", deadline: Deadline
    ) -> Certificate:
        """Verify the server's certificate against `ca` (a file; empty: the system's). NoAnswerError when it fails.

        `newest`: the newest version of TLS that is offered to the server, `TLSv1.2` or `TLSv1.3`; empty: any.
        """


class NameResolver(Protocol):
    """DNS."""

    def resolve(self, name: str, kind: str, *, server: str = "", deadline: Deadline) -> Sequence[str]:
        """The answers as text, sorted; empty when the name or kind does not exist. NoAnswerError without an answer."""


class Databases(Protocol):
    """SQL and Redis, asked by their own clients. NoAnswerError when nothing answers."""

    def query(
        self, host: str, port: int, database: str, user: str, password: Secret, statement: str, *, deadline: Deadline
    ) -> Sequence[Sequence[Any]]: ...

    def ping(self, host: str, port: int, password: Secret | None, *, deadline: Deadline) -> str: ...
