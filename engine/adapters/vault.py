"""HashiCorp Vault or OpenBao: a KV version 2 engine as a secret store, and login by Kubernetes service account."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from engine.core.ports import SecretVersion
from engine.core.redaction import Redactor, Secret
from engine.errors import NotYetError, PermanentError, RefusedError, RunbookError, TemporaryError

_TIMEOUT = 15  # seconds for one request; KV requests answer in milliseconds

Answer = TypeVar("Answer")


class Vault:
    """A KV version 2 engine (port SecretStore).

    `connect` gives the base URL and may raise NotYetError; it is asked again after a lost connection. `token` logs
    in at that URL; it is asked again, once a call, when the server refuses, because an expired token is answered by
    a plain "permission denied". `ca` is a file; empty means the system's.
    """

    known = True

    def __init__(
        self,
        connect: Callable[[], str],
        token: Callable[[str], Secret],
        redactor: Redactor,
        *,
        mount: str = "secret",
        ca: str = "",
    ) -> None:
        self._connect = connect
        self._token = token
        self._redactor = redactor
        self._mount = mount
        self._ca = ca
        self._url: str | None = None
        self._client: Any = None
        self._lock = threading.Lock()

    def read(
        self, path: str, version: int | None = None, *, sensitive: Collection[str] | None = None
    ) -> SecretVersion | None:
        """See SecretStore. A value that is no text shows as its JSON."""
        raw = self._raw(path, version)
        if raw is None:
            return None
        data, metadata = raw["data"], raw["metadata"]
        values = {}
        for key, value in (data or {}).items():
            secret = Secret(value if isinstance(value, str) else json.dumps(value))
            if sensitive is None or key in sensitive:
                self._redactor.register(secret)
            values[key] = secret
        return SecretVersion(
            version=metadata["version"],
            values=values,
            deleted=data is None,
            metadata={k: str(v) for k, v in (metadata.get("custom_metadata") or {}).items()},
        )

    def write(
        self, path: str, values: Mapping[str, Secret], *, expected: int, metadata: Mapping[str, str] | None = None
    ) -> int:
        """See SecretStore. Guarded by the engine's own check-and-set, so nothing written in between is lost; metadata
        follows in a request of its own."""
        current = self._raw(path, None)
        found = current["metadata"]["version"] if current else 0
        if found != expected:
            raise RefusedError(_moved(self._mount, path, expected, found))
        kept = (current["data"] if current else None) or {}
        document = {**kept, **{key: value.reveal() for key, value in values.items()}}

        def send(client: Any) -> int:
            answer = client.secrets.kv.v2.create_or_update_secret(
                path=path, secret=document, cas=expected, mount_point=self._mount
            )
            return int(answer["data"]["version"])

        from hvac.exceptions import InvalidRequest

        try:
            version = self._call(
                f"write {self._mount}/data/{path}", "create", send, unreachable=TemporaryError, again=False
            )
        except PermanentError as error:
            if isinstance(error.__cause__, InvalidRequest) and "check-and-set" in str(error.__cause__):
                raise RefusedError(_moved(self._mount, path, expected, None)) from error
            raise
        if metadata:
            self.annotate(path, metadata)
        return version

    def annotate(self, path: str, metadata: Mapping[str, str]) -> None:
        """See SecretStore: the path's custom metadata."""
        current = self._raw(path, None)
        kept = ((current or {}).get("metadata") or {}).get("custom_metadata") or {}

        def send(client: Any) -> None:
            client.secrets.kv.v2.update_metadata(
                path=path, custom_metadata={**kept, **metadata}, delete_version_after=None, mount_point=self._mount
            )

        self._call(f"write {self._mount}/metadata/{path}", "update", send, unreachable=TemporaryError)

    def health(self) -> Mapping[str, Any]:
        """`initialized`, `sealed`, `version`; needs no token."""
        import hvac

        with self._lock:
            url = self._address()
        try:
            with vault_errors("read its health", unreachable=NotYetError):
                answer = _client(hvac, url, "", self._ca).sys.read_health_status(method="GET")
                body = answer if isinstance(answer, dict) else answer.json()
        except NotYetError:
            self._forget(self._client, lost=True)
            raise
        return {key: body.get(key) for key in ("initialized", "sealed", "version")}

    def _raw(self, path: str, version: int | None) -> Mapping[str, Any] | None:
        """The `data` part of the answer: `data` (None: deleted) and `metadata`. None: no such path."""
        from hvac.exceptions import InvalidPath

        def get(client: Any) -> Mapping[str, Any] | None:
            try:
                answer = client.secrets.kv.v2.read_secret_version(
                    path=path, version=version, mount_point=self._mount, raise_on_deleted_version=True
                )
            except InvalidPath as error:
                if any("no handler for route" in str(e) for e in error.errors or ()):
                    raise NotYetError(f"vault: no secrets engine is mounted at {self._mount}/") from error
                body = error.json if isinstance(error.json, dict) else {}
                # A soft-deleted version is a 404 that still carries its metadata; a path never written has none.
                return (body.get("data") or {}) if (body.get("data") or {}).get("metadata") else None
            return dict(answer["data"])

        return self._call(f"read {self._mount}/data/{path}", "read", get, unreachable=NotYetError)

    def _call(
        self,
        doing: str,
        capability: str,
        request: Callable[[Any], Answer],
        *,
        unreachable: type[RunbookError],
        again: bool = True,
    ) -> Answer:
        """One request, with one new login when the token is refused and, if `again`, one new connection when it is
        lost. A write whose answer was lost is not sent again here: it may have happened."""
        import hvac
        from hvac.exceptions import Forbidden

        client, fresh = self._session(hvac)
        try:
            with vault_errors(doing, unreachable=unreachable):
                return request(client)
        except RunbookError as error:
            refused = isinstance(error.__cause__, Forbidden)
            if fresh and refused:
                raise PermanentError(_refusal(client, doing, capability)) from error
            lost = isinstance(error.__cause__, OSError)
            if lost or refused:
                self._forget(client, lost=lost)
            if fresh or not (refused or (lost and again)):
                raise
        client, _ = self._session(hvac)
        try:
            with vault_errors(doing, unreachable=unreachable):
                return request(client)
        except PermanentError as error:
            if isinstance(error.__cause__, Forbidden):
                raise PermanentError(_refusal(client, doing, capability)) from error
            raise

    def _session(self, hvac: Any) -> tuple[Any, bool]:
        """A logged-in client, and whether it logged in just now."""
        with self._lock:
            if self._client is not None:
                return self._client, False
            url = self._address()
            try:
                token = self._redactor.register(self._token(url))
            except NotYetError:
                self._url = None  # nobody there, or not for long: the next call asks where
                raise
            self._client = _client(hvac, url, token.reveal(), self._ca)
            return self._client, True

    def _address(self) -> str:
        """The base URL, asked for once: asking again may move the tunnel under another thread. Needs the lock."""
        if self._url is None:
            self._url = self._connect()
        return self._url

    def _forget(self, client: Any, *, lost: bool) -> None:
        """Unless another thread has made a new one meanwhile."""
        with self._lock:
            if self._client is client:
                self._client = None
                if lost:
                    self._url = None


def kubernetes_login(
    url: str, jwt: Secret, role: str, redactor: Redactor, *, mount: str = "kubernetes", ca: str = ""
) -> Secret:
    """A token for the role, from a service account's token. NotYetError when the role or auth mount is not there."""
    import hvac
    from hvac.exceptions import Forbidden, InvalidRequest

    try:
        with vault_errors(f"log in as role {role} at auth/{mount}", unreachable=NotYetError):
            answer = _client(hvac, url, "", ca).auth.kubernetes.login(role, jwt.reveal(), mount_point=mount)
    except PermanentError as error:
        # To a login, a mount that is not there is a plain "permission denied" (403), like a failing TokenReview;
        # a service account that the role does not name is told apart.
        if isinstance(error.__cause__, Forbidden) and "not authorized" not in str(error.__cause__):
            why = f"auth/{mount} is not set up yet, or the server may not review tokens"
            raise NotYetError(f"vault: cannot log in as role {role}: {why} ({error.__cause__})") from error
        if isinstance(error.__cause__, InvalidRequest) and "role" in str(error.__cause__):
            raise NotYetError(f"vault: role {role} does not exist yet at auth/{mount}") from error
        raise
    return redactor.register(str(answer["auth"]["client_token"]))


@contextmanager
def vault_errors(doing: str, *, unreachable: type[RunbookError]) -> Iterator[None]:
    """Translate hvac's and the connection's errors; `unreachable` is what no answer, sealed or empty means here."""
    from hvac import exceptions as vault

    try:
        yield
    except (vault.VaultDown, vault.VaultNotInitialized) as error:
        raise unreachable(f"vault: cannot {doing}: it is sealed or not initialised") from error
    except (vault.InternalServerError, vault.BadGateway, vault.RateLimitExceeded) as error:
        raise TemporaryError(f"vault: cannot {doing}: {error}") from error
    except vault.VaultError as error:
        raise PermanentError(f"vault: cannot {doing}: {error}") from error
    except OSError as error:  # every error of the requests library is one
        raise unreachable(f"vault: cannot {doing}: {_network_reason(error)}") from error


def _client(hvac: Any, url: str, token: str, ca: str) -> Any:
    client = hvac.Client(url=url, token=token, verify=ca or True, timeout=_TIMEOUT)
    client.session.trust_env = False  # a proxy of the shell must not see a tunnel's address
    return client


def _network_reason(error: OSError) -> str:
    """The end of requests' nested message: `Connection refused`, `certificate verify failed: …`."""
    text = str(error)
    return text.rsplit("] ", 1)[-1].rstrip("'\")") if "] " in text else text


def _refusal(client: Any, doing: str, capability: str) -> str:
    from hvac.exceptions import VaultError

    try:
        policies = ", ".join(client.auth.token.lookup_self()["data"]["policies"])
    except (VaultError, OSError):
        return f"vault: cannot {doing}: permission denied, and a new login did not help. Nothing was changed."
    return (
        f"vault: cannot {doing}: permission denied. The token's policies [{policies}] do not allow "
        f"'{capability}' there; add it, or use a role that has it. Nothing was changed."
    )


def _moved(mount: str, path: str, expected: int, found: int | None) -> str:
    now = f"it is version {found}" if found is not None else "it is another now"
    return f"vault: {mount}/{path} was version {expected} when planned, {now}. Nothing was written; plan again."
