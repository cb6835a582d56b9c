"""Azure Key Vault as a secret store: one secret per path, its value a JSON object of the path's keys.

External Secrets reads one key of it by `property`. Names of paths: engine/core/keyvault.py. A version is counted: the
first is 1. Every version carries the path's metadata as tags, and in `version` its number, which a deleted secret still
shows. Key Vault has no compare-and-swap; what that leaves open is in docs/reliability.md.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay
from tenacity.stop import stop_base

from engine.core.keyvault import secret_name
from engine.core.ports import EXPIRES, SecretVersion
from engine.core.redaction import Redactor, Secret
from engine.errors import NotYetError, PermanentError, RefusedError, RunbookError, TemporaryError, UsageError

_TIMEOUT = 15  # seconds to connect, and between two reads
_PATIENCE = 60.0  # seconds that throttling, and a recovery, are waited for in one call
_NUMBER = "version"
_JSON = "application/json"

Answer = TypeVar("Answer")


class KeyVault:
    """Secrets of one vault (port SecretStore).

    `credential` gives one of azure-identity's, asked for at the first request. `ca` is a file; empty: the usual ones.
    `sleep` waits (seconds) between two attempts.
    """

    known = True

    def __init__(
        self,
        url: str,
        credential: Callable[[], Any],
        redactor: Redactor,
        *,
        ca: str = "",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url.rstrip("/")
        self._credential = credential
        self._redactor = redactor
        self._ca = ca
        self._sleep = sleep
        self._made: Any = None
        self._lock = threading.Lock()

    def read(
        self, path: str, version: int | None = None, *, sensitive: Collection[str] | None = None
    ) -> SecretVersion | None:
        """See SecretStore. A value that is no JSON object, as a person may have put it there, is the key `value`."""
        found = self._current(path)
        if found is None:
            return None
        if version is not None and not found.deleted:
            found = self._older(path, version)
            if found is None:
                return None
        values = {}
        for key, value in found.document().items():
            secret = Secret(value if isinstance(value, str) else json.dumps(value))
            if sensitive is None or key in sensitive:
                self._redactor.register(secret)
            values[key] = secret
        return SecretVersion(found.number, values, found.deleted, found.metadata)

    def write(
        self, path: str, values: Mapping[str, Secret], *, expected: int, metadata: Mapping[str, str] | None = None
    ) -> int:
        """See SecretStore. A deleted secret is recovered first: its name cannot be used otherwise.

        PermanentError when the vault shows afterwards that somebody else wrote at the same moment: both versions are
        kept there, and which of them is right only a person can say.
        """
        found = self._current(path)
        number = found.number if found else 0
        if number != expected:
            raise RefusedError(
                f"key vault: {path} was version {expected} when planned, it is version {number}. "
                "Nothing was written; plan again."
            )
        if found and found.deleted:
            self._recover(path)
        elif found and not found.is_json:
            raise RefusedError(
                f"key vault: {secret_name(path)} holds plain text, not a JSON object of keys: writing to {path} would "
                "break who reads it. Nothing was written; use another path."
            )
        document = {**(found.document() if found else {}), **{k: v.reveal() for k, v in values.items()}}
        kept = {**(found.metadata if found else {}), **(metadata or {})}
        self._call(
            f"write {path}",
            lambda client: client.set_secret(
                secret_name(path),
                json.dumps(document),
                content_type=_JSON,
                tags=_tags(kept, expected + 1),
                expires_on=_expiry(kept),
            ),
            unreachable=TemporaryError,
        )
        now = len(self._versions(path))
        if now > expected + 1:
            raise PermanentError(
                f"key vault: {path} was written by somebody else at the same moment: it has {now} versions where "
                f"{expected + 1} were expected. All are kept; see which one is right, and plan again."
            )
        return expected + 1

    def annotate(self, path: str, metadata: Mapping[str, str]) -> None:
        """See SecretStore: tags and expiry of the current version."""
        found = self._current(path)
        if found is None or found.deleted:
            raise RefusedError(f"key vault: {path} is not there any more. Nothing was written; plan again.")
        kept = {**found.metadata, **metadata}
        self._call(
            f"tag {path}",
            lambda client: client.update_secret_properties(
                secret_name(path), tags=_tags(kept, found.number), expires_on=_expiry(kept)
            ),
            unreachable=TemporaryError,
        )

    def health(self) -> Mapping[str, Any]:
        """See SecretStore: a vault that lists its secrets to us is open."""
        self._call("list its secrets", lambda client: next(iter(client.list_properties_of_secrets()), None))
        return {"initialized": True, "sealed": False, "version": "of Azure Key Vault"}

    def _current(self, path: str) -> _Found | None:
        name = secret_name(path)
        bundle = self._call(f"read {path}", lambda client: client.get_secret(name), missing=True)
        if bundle is None:
            gone = self._call(f"read {path}", lambda client: client.get_deleted_secret(name), missing=True)
            return _Found.of(gone.properties, _number(gone.properties) or 1, deleted=True) if gone else None
        current = bundle.properties.version
        here = [v.version for v in self._versions(path, current)].index(current) + 1
        return _Found.of(bundle.properties, here, text=bundle.value)

    def _older(self, path: str, version: int) -> _Found | None:
        versions = self._versions(path)
        if not 0 < version <= len(versions):
            return None
        name, wanted = secret_name(path), versions[version - 1].version
        bundle = self._call(f"read version {version} of {path}", lambda client: client.get_secret(name, wanted))
        return _Found.of(bundle.properties, version, text=bundle.value)

    def _versions(self, path: str, current: str = "") -> list[Any]:
        """Oldest first. Times have whole seconds: within one, the number we gave says more, and which is `current`."""
        name = secret_name(path)
        listed = self._call(
            f"list the versions of {path}", lambda client: list(client.list_properties_of_secret_versions(name))
        )
        return sorted(listed, key=lambda p: (p.created_on, _number(p), p.version == current))

    def _recover(self, path: str) -> None:
        """Bring a deleted secret back, and wait until it is: it is not found (404) until then."""
        name = secret_name(path)
        self._call(
            f"recover {path}", lambda client: client.begin_recover_deleted_secret(name), unreachable=TemporaryError
        )
        end = time.monotonic() + _PATIENCE
        while self._call(f"read {path}", lambda client: client.get_secret(name), missing=True) is None:
            if time.monotonic() > end:
                raise TemporaryError(f"key vault: {path} is still being recovered after {_PATIENCE:.0f} s")
            self._sleep(1)

    def _call(
        self,
        doing: str,
        request: Callable[[Any], Answer],
        *,
        unreachable: type[RunbookError] = NotYetError,
        missing: bool = False,
    ) -> Any:
        """One request. 429 is waited for as Retry-After says and sent again: it was not carried out. Nothing else is,
        because a write whose answer was lost may have happened. `missing`: None for what is not found."""
        from azure.core.exceptions import ResourceNotFoundError

        patiently = Retrying(
            retry=retry_if_exception(_throttled),
            stop=stop_after_delay(_PATIENCE) | _AsksTooLong(_PATIENCE),
            wait=_pause,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            with key_vault_errors(doing, unreachable=unreachable):
                return patiently(lambda: request(self._client()))
        except PermanentError as error:
            if missing and isinstance(error.__cause__, ResourceNotFoundError):
                return None
            raise

    def _client(self) -> Any:
        from azure.keyvault.secrets import SecretClient

        with self._lock:
            if self._made is None:
                self._made = SecretClient(
                    self._url,
                    self._credential(),
                    retry_total=0,
                    connection_timeout=_TIMEOUT,
                    read_timeout=_TIMEOUT,
                    connection_verify=self._ca or True,
                )
            return self._made


@dataclass(frozen=True, slots=True)
class _Found:
    """A version as it is in the vault."""

    number: int
    metadata: Mapping[str, str]
    text: str = "{}"
    deleted: bool = False

    @classmethod
    def of(cls, properties: Any, number: int, *, text: str = "{}", deleted: bool = False) -> _Found:
        metadata = {name: value for name, value in (properties.tags or {}).items() if name != _NUMBER}
        if properties.expires_on:
            metadata[EXPIRES] = properties.expires_on.isoformat()
        return cls(number, metadata, text, deleted)

    @property
    def is_json(self) -> bool:
        return self._object() is not None

    def document(self) -> Mapping[str, Any]:
        found = self._object()
        return {"value": self.text} if found is None else found

    def _object(self) -> Mapping[str, Any] | None:
        try:
            found = json.loads(self.text)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


def credential(
    kind: str, *, tenant: str, client: str, secret_file: str, token_file: str, authority: str, ca: str
) -> Any:
    """One of azure-identity's. `kind`: `default` (whatever this machine has: environment, workload or managed identity,
    Azure CLI), `workload` (a federated token in a file), `client_secret` (its secret in a file). UsageError."""
    from azure.identity import ClientSecretCredential, DefaultAzureCredential, WorkloadIdentityCredential

    more: dict[str, Any] = {"connection_verify": ca or True}
    if authority:  # not one of Microsoft's own: there is nobody to ask whether it exists
        more |= {"authority": authority, "disable_instance_discovery": True}
    try:
        if kind == "client_secret":
            with open(secret_file, encoding="utf-8") as file:
                secret = file.read().strip()
            return ClientSecretCredential(tenant, client, secret, **more)
        if kind == "workload":
            named = {"tenant_id": tenant, "client_id": client, "token_file_path": token_file}
            return WorkloadIdentityCredential(**{k: v for k, v in named.items() if v}, **more)
        return DefaultAzureCredential(**more)
    except (OSError, ValueError) as error:
        raise UsageError(f"key vault: no credential of kind {kind}: {_first_line(error)}") from error


@contextmanager
def key_vault_errors(doing: str, *, unreachable: type[RunbookError]) -> Iterator[None]:
    """Translate the client's errors; `unreachable` is what no answer means here."""
    from azure.core import exceptions as azure

    try:
        yield
    except azure.ClientAuthenticationError as error:
        raise PermanentError(f"key vault: cannot {doing}: not logged in: {_first_line(error)}") from error
    except azure.HttpResponseError as error:
        status, why = error.status_code or 0, _reason(error)
        if status == 429:
            pause = f", and asks to wait {_retry_after(error):.0f} s" if _retry_after(error) else ""
            raise TemporaryError(f"key vault: cannot {doing}: it is throttling{pause}") from error
        if status == 408 or status >= 500:
            raise TemporaryError(f"key vault: cannot {doing}: {why}") from error
        if status == 403:
            hint = "the identity needs the role Key Vault Secrets Officer, and the network a way in"
            raise PermanentError(f"key vault: cannot {doing}: {why}; {hint}. Nothing was changed.") from error
        raise PermanentError(f"key vault: cannot {doing}: {why}") from error
    except azure.AzureError as error:  # no answer
        raise unreachable(f"key vault: cannot {doing}: {_first_line(error)}") from error


class _AsksTooLong(stop_base):
    """Stops when the server asks for a longer pause than one call waits."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, state: RetryCallState) -> bool:
        return _pause(state) > self._seconds


def _throttled(error: BaseException) -> bool:
    return getattr(error, "status_code", None) == 429


def _pause(state: RetryCallState) -> float:
    """Retry-After, else 1, 2, 4, 8, 16 s as the throttling guidance has it."""
    error = state.outcome.exception() if state.outcome else None
    return _retry_after(error) or float(min(2 ** (state.attempt_number - 1), 16))


def _retry_after(error: Any) -> float:
    """Seconds; 0 when the answer does not say."""
    response = getattr(error, "response", None)
    said = response.headers.get("Retry-After", "") if response is not None else ""
    return float(said) if said.isdigit() else 0.0


def _reason(error: Any) -> str:
    """`Forbidden (AccessDenied)`: the codes, and the first line of the message."""
    said = getattr(error, "error", None)
    inner = (getattr(said, "innererror", None) or {}).get("code", "") if said else ""
    code = f"{getattr(said, 'code', '') or error.status_code}{f' ({inner})' if inner else ''}"
    return f"{code}: {_first_line(getattr(said, 'message', '') or error.message)}"


def _first_line(error: object) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _number(properties: Any) -> int:
    said = (properties.tags or {}).get(_NUMBER, "")
    return int(said) if said.isdigit() else 0


def _tags(metadata: Mapping[str, str], number: int) -> dict[str, str]:
    return {**{name: value for name, value in metadata.items() if name != EXPIRES}, _NUMBER: str(number)}


def _expiry(metadata: Mapping[str, str]) -> datetime | None:
    return datetime.fromisoformat(metadata[EXPIRES]) if EXPIRES in metadata else None
