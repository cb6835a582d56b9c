"""Azure Blob storage as an object store: a bucket is a container of one storage account.

Through the data plane only, with the rights of "Storage Blob Data Owner". There versioning is blob soft delete, which
keeps what is overwritten or deleted for some days and is a setting of the whole account ("Soft delete for blobs" in
Azure's documentation). Expiry and immutability are the resource manager's: `limits` says so, and what is set is read.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.adapters.azureblob_errors import blob_errors
from engine.adapters.local_networks import LocalNetworks
from engine.core.action import Deadline
from engine.core.ports import StoredObject
from engine.core.redaction import Redactor, Secret
from engine.errors import NotYetError, PermanentError, RunbookError, TemporaryError, UsageError

_PART = 8 * 1024 * 1024  # bytes; larger objects are uploaded in parts of this size, and all are read in such
_DIGEST = "sha256"  # the metadata entry that `put` adds
_KEPT_DAYS = 7  # of soft delete, where nobody says how many
_MOST_DAYS = 365  # the service's own limit of soft delete
_LIMITS = {
    "expire_days": "an Azure container's lifecycle is the account's management policy. Set it there "
    "(az storage account management-policy create), and leave `lifecycle.expire_days` out.",
    "object_lock": "an Azure container's immutability is set by the resource manager "
    "(az storage container immutability-policy create). Set it there, and leave `object_lock` out.",
}


class AzureBlob:
    """Containers and blobs (port ObjectStore).

    `endpoint` is the account's blob service (`https://ACCOUNT.blob.core.windows.net`); `key` None means
    azure-identity's own chain (workload identity, managed identity, `az login`), else (account, key) of an emulator.
    Reading raises NotYetError when the endpoint does not answer, writing TemporaryError.
    """

    def __init__(
        self,
        endpoint: str,
        key: tuple[str, Secret] | None,
        redactor: Redactor,
        *,
        networks: LocalNetworks | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._key = key
        self._networks = networks or LocalNetworks()
        self._made: Any = None
        self._lock = threading.Lock()
        if key:
            redactor.register(key[1])

    # --- containers -------------------------------------------------------------------------------------------------

    @property
    def region(self) -> str:
        return ""

    @property
    def limits(self) -> Mapping[str, str]:
        return _LIMITS

    @property
    def shared(self) -> Collection[str]:
        return ("noncurrent_days", "versioning")

    def bucket(self, name: str) -> Mapping[str, Any] | None:
        with blob_errors(f"read container {name}", unreachable=NotYetError):
            container = self._client.get_container_client(name)
            found = _absent_is_none(container.get_container_properties)
            if found is None:
                return None
            deleted = self._client.get_service_properties()["delete_retention_policy"]
            return {
                "versioning": bool(deleted.enabled),
                "encryption": True,  # the service encrypts everything, and nobody can switch it off
                "public_access": "blocked" if not found.public_access else str(found.public_access),
                "expire_days": None,
                "noncurrent_days": deleted.days if deleted.enabled else None,
                "object_lock": {} if found.has_immutability_policy else None,
                "region": "",
                "tags": _named_outside(found.metadata),
            }

    def create_bucket(self, name: str, *, object_lock: bool = False) -> None:
        """Private from the first moment. Ours already is fine. UsageError with `object_lock`: see `limits`."""
        if object_lock:
            raise UsageError(f"azure blob: container {name}: {_LIMITS['object_lock']}")
        from azure.core.exceptions import ResourceExistsError

        with blob_errors(f"create container {name}", unreachable=TemporaryError):
            try:
                self._client.create_container(name)
            except ResourceExistsError as error:
                if getattr(error, "error_code", "") != "ContainerAlreadyExists":
                    raise

    def set_bucket(self, name: str, setting: str, value: Any) -> None:
        setters: Mapping[str, Callable[[str, Any], None]] = {
            "versioning": self._set_versioning,
            "noncurrent_days": lambda _name, days: self._keep_deleted(days),
            "encryption": _always_encrypted,
            "public_access": self._set_public_access,
            "tags": self._set_tags,
        }
        if setting not in setters:
            why = _LIMITS.get(setting, f"no such setting; there are {', '.join(setters)}")
            raise UsageError(f"azure blob: container {name} has no setting '{setting}' here: {why}")
        with blob_errors(f"set {setting} of container {name}", unreachable=TemporaryError):
            setters[setting](name, value)

    def delete_bucket(self, name: str) -> None:
        """The service would delete a full container as well, so it is looked into first."""
        with blob_errors(f"delete container {name}", unreachable=TemporaryError):
            container = self._client.get_container_client(name)
            if _absent_is_none(container.get_container_properties) is None:
                return
            if next(iter(container.list_blobs(results_per_page=1)), None) is not None:
                raise PermanentError(f"azure blob: cannot delete container {name}: it is not empty")
            container.delete_container()

    # --- blobs ------------------------------------------------------------------------------------------------------

    def put(
        self, bucket: str, key: str, source: Path, metadata: Mapping[str, str], *, deadline: Deadline
    ) -> StoredObject:
        """See ObjectStore. The blob's metadata also gets `sha256`, of the bytes stored."""
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            self._upload(bucket, key, source, {**metadata, _DIGEST: digest}, deadline)
            found = hashlib.sha256()
            for piece in self._pieces(bucket, key, deadline):
                found.update(piece)
            if found.hexdigest() != digest:
                raise TemporaryError(
                    f"azure blob: {bucket}/{key} read back differs from what was written; it was removed"
                )
        except RunbookError:
            with suppress(RunbookError):  # what matters is why it failed; a rest is overwritten by the next attempt
                self.delete(bucket, key)
            raise
        stored = self.head(bucket, key)
        if stored is None:
            raise TemporaryError(f"azure blob: {bucket}/{key} was written and is gone")
        return stored

    def get(self, bucket: str, key: str, target: Path, *, deadline: Deadline) -> None:
        """Into a file of mode 0600. The digest that `put` left is compared; a difference is PermanentError."""
        found = hashlib.sha256()
        target.touch(mode=0o600)
        with target.open("wb") as out:
            for piece in self._pieces(bucket, key, deadline):
                found.update(piece)
                out.write(piece)
        stored = self.head(bucket, key)
        wanted = stored.metadata.get(_DIGEST) if stored else None
        if wanted and wanted != found.hexdigest():
            target.unlink()
            raise PermanentError(
                f"azure blob: {bucket}/{key} is damaged: SHA-256 {found.hexdigest()}, written as {wanted}"
            )

    def list(self, bucket: str, prefix: str) -> Sequence[StoredObject]:
        with blob_errors(f"list {bucket}/{prefix}", unreachable=NotYetError):
            container = self._client.get_container_client(bucket)
            listed = _absent_is_none(lambda: list(container.list_blobs(name_starts_with=prefix)))
            return [_stored(properties, {}) for properties in listed or ()]

    def head(self, bucket: str, key: str) -> StoredObject | None:
        with blob_errors(f"read {bucket}/{key}", unreachable=NotYetError):
            found = _absent_is_none(self._client.get_blob_client(bucket, key).get_blob_properties)
            return _stored(found, _named_outside(found.metadata)) if found else None

    def delete(self, bucket: str, key: str) -> None:
        """With soft delete on it is kept for some days."""
        with blob_errors(f"delete {bucket}/{key}", unreachable=TemporaryError):
            _absent_is_none(self._client.get_blob_client(bucket, key).delete_blob)

    def _upload(self, bucket: str, key: str, source: Path, metadata: Mapping[str, str], deadline: Deadline) -> None:
        doing = f"uploading {bucket}/{key}"
        deadline.check(doing)
        # Azure takes only the names of C# identifiers.
        named = {name.replace("-", "_"): value for name, value in metadata.items()}
        with source.open("rb") as file, blob_errors(f"put {bucket}/{key}", unreachable=TemporaryError):
            self._client.get_blob_client(bucket, key).upload_blob(
                file, overwrite=True, metadata=named, progress_hook=lambda _sent, _total: deadline.check(doing)
            )

    def _pieces(self, bucket: str, key: str, deadline: Deadline) -> Iterator[bytes]:
        with blob_errors(f"read {bucket}/{key}", unreachable=TemporaryError):
            for piece in self._client.get_blob_client(bucket, key).download_blob().chunks():
                deadline.check(f"reading {bucket}/{key}")
                yield piece

    # --- settings ---------------------------------------------------------------------------------------------------

    def _set_versioning(self, _name: str, on: bool) -> None:
        kept = self._client.get_service_properties()["delete_retention_policy"]
        if on != bool(kept.enabled):
            self._keep_deleted(_KEPT_DAYS if on else None)

    def _keep_deleted(self, days: int | None) -> None:
        """Soft delete of the account, for `days`; None: off."""
        from azure.storage.blob import RetentionPolicy

        if days and days > _MOST_DAYS:
            raise UsageError(f"azure blob: soft delete keeps at most {_MOST_DAYS} days, not {days}")
        policy = RetentionPolicy(enabled=True, days=days) if days else RetentionPolicy(enabled=False)
        self._client.set_service_properties(delete_retention_policy=policy)

    def _set_public_access(self, name: str, value: str) -> None:
        access = None if value == "blocked" else value
        self._client.get_container_client(name).set_container_access_policy({}, public_access=access)

    def _set_tags(self, name: str, value: Mapping[str, str]) -> None:
        named = {key.replace("-", "_"): text for key, text in value.items()}
        self._client.get_container_client(name).set_container_metadata(named)

    # --- the client -------------------------------------------------------------------------------------------------

    @property
    def _client(self) -> Any:
        self._networks.require(urlsplit(self._endpoint).hostname or "")
        with self._lock:
            if self._made is None:
                self._made = self._make_client()
            return self._made

    def _make_client(self) -> Any:
        from azure.storage.blob import BlobServiceClient, LinearRetry

        if not self._endpoint:
            raise UsageError(
                "azure blob: the inventory has no azureblob_endpoint; set it to the account's blob service"
            )
        credential: Any
        if self._key:
            credential = {"account_name": self._key[0], "account_key": self._key[1].reveal()}
        else:
            from azure.identity import DefaultAzureCredential

            credential = DefaultAzureCredential()
        return BlobServiceClient(
            self._endpoint,
            credential,
            max_single_put_size=_PART,
            max_block_size=_PART,
            max_single_get_size=_PART,
            max_chunk_get_size=_PART,
            connection_timeout=5,
            read_timeout=30,
            retry_policy=LinearRetry(backoff=1, retry_total=1),
        )


def _always_encrypted(name: str, value: bool) -> None:
    if not value:
        raise UsageError(f"azure blob: container {name}: encryption at rest cannot be switched off")


def _absent_is_none(ask: Callable[[], Any]) -> Any:
    """The answer; None when the container or the blob is not there."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return ask()
    except ResourceNotFoundError:
        return None


def _stored(properties: Any, metadata: Mapping[str, str]) -> StoredObject:
    return StoredObject(
        key=properties.name,
        size=properties.size,
        etag=(properties.etag or "").strip('"'),
        modified=properties.last_modified,
        version=getattr(properties, "version_id", None) or "",
        metadata=metadata,
    )


def _named_outside(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Names as they were given, before Azure's rules: no name of ours has an underscore."""
    return {name.replace("_", "-").lower(): value for name, value in (metadata or {}).items()}
