"""HTTP by requests, with a connection that may go elsewhere than the URL says, as curl's --connect-to does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from engine.adapters.local_networks import LocalNetworks
from engine.core.action import Deadline
from engine.core.services import NoAnswerError, Response
from engine.errors import UsageError

_LONGEST = 10.0  # seconds to connect, and between two reads
_LARGEST = 8 * 1024 * 1024  # bytes of a body that are read


class Requests:
    """Asks once, follows nothing (port Http). A new connection each time: a check must not see an old one's luck."""

    def __init__(self, networks: LocalNetworks | None = None) -> None:
        self._networks = networks or LocalNetworks()

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
        """See Http. A `body` that is neither text nor bytes is sent as JSON."""
        import requests

        parts = _parts(url)
        doing = f"{method} {urlunsplit(parts._replace(netloc=_host(parts)))}"  # without a password in the URL
        deadline.check(doing)
        self._networks.require(connect_to[0] if connect_to else parts.hostname or "")
        sent, data = dict(headers or {}), body
        if body is not None and not isinstance(body, str | bytes):
            data = json.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        timeout = min(_LONGEST, deadline.remaining())
        with requests.Session() as session, http_errors(doing, timeout):
            if connect_to:
                session.trust_env = False  # a proxy would be asked for the URL's own host
                sent.setdefault("Host", _host(parts))
                adapter = _redirected(connect_to, parts.hostname or "")
                session.mount(f"{parts.scheme}://", adapter)
            with session.request(
                method,
                url,
                headers=sent,
                data=data,
                timeout=timeout,
                verify=ca or True,
                allow_redirects=False,
                stream=True,
            ) as answer:
                text = _body(answer, doing, deadline)
                return Response(answer.status_code, text, {k.lower(): v for k, v in answer.headers.items()})


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a [ without ], a port beyond 65535
        good = False
    if not good:
        raise UsageError(f"{url.rpartition('@')[2]} is not an http or https URL")
    return parts


def _host(parts: SplitResult) -> str:
    """Host and port as the URL has them, without user and password."""
    return parts.netloc.rpartition("@")[2]


def _redirected(address: tuple[str, int], server_name: str) -> Any:
    """An adapter whose connections go to `address` while SNI and the certificate's name stay `server_name`."""
    from requests.adapters import HTTPAdapter

    class ConnectTo(HTTPAdapter):
        def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
            host: Any
            pool: Any
            host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
            host["host"], host["port"] = address
            if host["scheme"] == "https":
                pool["server_hostname"] = pool["assert_hostname"] = server_name
            return host, pool

    return ConnectTo()


def _body(answer: Any, doing: str, deadline: Deadline) -> str:
    pieces, size = [], 0
    for piece in answer.iter_content(65536):
        pieces.append(piece)
        size += len(piece)
        deadline.check(doing)
        if size > _LARGEST:
            break
    return b"".join(pieces).decode(answer.encoding or "utf-8", errors="replace")


@contextmanager
def http_errors(doing: str, timeout: float) -> Iterator[None]:
    """Translate requests' errors into NoAnswerError with its cause; a URL it cannot parse is UsageError."""
    import requests

    try:
        yield
    except requests.exceptions.SSLError as error:
        raise NoAnswerError(f"{doing}: {_innermost(error)}", "tls") from error
    except requests.exceptions.Timeout as error:
        raise NoAnswerError(f"{doing}: no answer within {timeout:.0f} s", "timeout") from error
    except requests.exceptions.ConnectionError as error:
        raise NoAnswerError(*_explained(doing, error)) from error
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        raise NoAnswerError(f"{doing}: the answer broke off", "reset") from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader) as error:
        raise UsageError(f"{doing}: {error}") from error
    except OSError as error:  # a CA file that is not there
        raise UsageError(f"{doing}: {error}") from error


def _explained(doing: str, error: BaseException) -> tuple[str, str]:
    causes = list(_chain(error))
    for kind, cause, text in (
        (ConnectionRefusedError, "refused", "connection refused"),
        (ConnectionResetError, "reset", "connection reset"),
        (BrokenPipeError, "reset", "connection reset"),
    ):
        if any(isinstance(c, kind) for c in causes):
            return f"{doing}: {text}", cause
    names = {type(c).__name__ for c in causes}
    if "RemoteDisconnected" in names or "ProtocolError" in names:
        return f"{doing}: closed without an answer", "reset"
    if "ReadTimeoutError" in names:
        return f"{doing}: the answer stopped in the middle", "timeout"
    if "NameResolutionError" in names:
        return f"{doing}: the name does not resolve", "name"
    return f"{doing}: {_innermost(error)}", "unreachable"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and everything it was made from: causes, contexts, and the `reason` urllib3 keeps."""
    seen: set[int] = set()
    todo: list[Any] = [error]
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]


def _innermost(error: BaseException) -> str:
    """The plainest text of a nested error: an OSError's own where there is one."""
    own = [c for c in _chain(error) if isinstance(c, OSError) and c.strerror]
    return str(own[-1].strerror) if own else str(error)
