"""S3 and what speaks it, as an object store. boto3 costs 0.5 s to load, so it is loaded when first asked."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.adapters.local_networks import LocalNetworks
from engine.adapters.s3_errors import code_of, s3_errors
from engine.core.action import Deadline
from engine.core.ports import StoredObject
from engine.core.redaction import Redactor, Secret
from engine.errors import NotYetError, PermanentError, RunbookError, TemporaryError, UsageError

BLOCKS = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
_PIECE = 1024 * 1024
_PARTS_OF = 8 * _PIECE  # bytes; larger objects are uploaded in parts of this size
_DIGEST = "sha256"  # the metadata entry that `put` adds
_ABSENT = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}
_UNSET = {
    "ServerSideEncryptionConfigurationNotFoundError",
    "NoSuchPublicAccessBlockConfiguration",
    "NoSuchTagSet",
}


class S3:
    """Buckets and objects (port ObjectStore).

    `endpoint` empty means AWS itself; `credentials` None means boto3's own chain (instance role, SSO, profile).
    Reading raises NotYetError when the endpoint does not answer, writing TemporaryError.
    """

    def __init__(
        self,
        endpoint: str,
        region: str,
        credentials: tuple[str, Secret] | None,
        redactor: Redactor,
        *,
        ca: str = "",
        networks: LocalNetworks | None = None,
    ) -> None:
        self._networks = networks or LocalNetworks()
        self._endpoint = endpoint
        self._region = region
        self._credentials = credentials
        self._ca = ca
        self._made: Any = None
        self._lock = threading.Lock()
        if credentials:
            redactor.register(credentials[1])

    # --- buckets --------------------------------------------------------------------------------------------------

    def bucket(self, name: str) -> Mapping[str, Any] | None:
        with s3_errors(f"read bucket {name}", unreachable=NotYetError):
            try:
                region = self._client.get_bucket_location(Bucket=name).get("LocationConstraint") or "us-east-1"
            except self._client.exceptions.ClientError as error:
                if code_of(error) in _ABSENT:
                    return None
                raise
            return {
                "versioning": self._client.get_bucket_versioning(Bucket=name).get("Status") == "Enabled",
                "encryption": self._optional(self._client.get_bucket_encryption, name) is not None,
                "public_access": self._public_access(name),
                "region": region,
                "tags": {
                    tag["Key"]: tag["Value"]
                    for tag in (self._optional(self._client.get_bucket_tagging, name) or {}).get("TagSet", ())
                },
            }

    def create_bucket(self, name: str) -> None:
        """Ours already is fine; another account's is PermanentError."""
        where = (
            {} if self._region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": self._region}}
        )
        with s3_errors(f"create bucket {name}", unreachable=TemporaryError):
            try:
                self._client.create_bucket(Bucket=name, **where)
            except self._client.exceptions.ClientError as error:
                if code_of(error) != "BucketAlreadyOwnedByYou":
                    raise

    def set_bucket(self, name: str, setting: str, value: Any) -> None:
        setters: Mapping[str, Callable[[str, Any], None]] = {
            "versioning": self._set_versioning,
            "encryption": self._set_encryption,
            "public_access": self._set_public_access,
            "tags": self._set_tags,
        }
        if setting not in setters:
            raise UsageError(f"s3: a bucket has no setting '{setting}'; there are {', '.join(setters)}")
        with s3_errors(f"set {setting} of bucket {name}", unreachable=TemporaryError):
            setters[setting](name, value)

    def delete_bucket(self, name: str) -> None:
        with s3_errors(f"delete bucket {name}", unreachable=TemporaryError):
            try:
                self._client.delete_bucket(Bucket=name)
            except self._client.exceptions.ClientError as error:
                if code_of(error) not in _ABSENT:
                    raise

    # --- objects --------------------------------------------------------------------------------------------------

    def put(
        self, bucket: str, key: str, source: Path, metadata: Mapping[str, str], *, deadline: Deadline
    ) -> StoredObject:
        """See ObjectStore. The object's metadata also gets `sha256`, of the bytes stored."""
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            self._upload(bucket, key, source, {**metadata, _DIGEST: digest}, deadline)
            found = hashlib.sha256()
            for piece in self._pieces(bucket, key, deadline):
                found.update(piece)
            if found.hexdigest() != digest:
                raise TemporaryError(f"s3: {bucket}/{key} read back differs from what was written; it was removed")
        except RunbookError:
            with suppress(RunbookError):  # what matters is why it failed; a rest is overwritten by the next attempt
                self.delete(bucket, key)
            raise
        stored = self.head(bucket, key)
        if stored is None:
            raise TemporaryError(f"s3: {bucket}/{key} was written and is gone")
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
            raise PermanentError(f"s3: {bucket}/{key} is damaged: SHA-256 {found.hexdigest()}, written as {wanted}")

    def list(self, bucket: str, prefix: str) -> Sequence[StoredObject]:
        with s3_errors(f"list {bucket}/{prefix}", unreachable=NotYetError):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            try:
                return [
                    StoredObject(item["Key"], item["Size"], item["ETag"].strip('"'), item["LastModified"])
                    for page in pages
                    for item in page.get("Contents", ())
                ]
            except self._client.exceptions.ClientError as error:
                if code_of(error) in _ABSENT:
                    return []
                raise

    def head(self, bucket: str, key: str) -> StoredObject | None:
        with s3_errors(f"read {bucket}/{key}", unreachable=NotYetError):
            try:
                found = self._client.head_object(Bucket=bucket, Key=key)
            except self._client.exceptions.ClientError as error:
                if code_of(error) in _ABSENT:
                    return None
                raise
        return StoredObject(
            key=key,
            size=found["ContentLength"],
            etag=found["ETag"].strip('"'),
            modified=found["LastModified"],
            version=found.get("VersionId", ""),
            metadata={name.lower(): value for name, value in found["Metadata"].items()},
        )

    def delete(self, bucket: str, key: str) -> None:
        """With versioning on, older versions stay."""
        with s3_errors(f"delete {bucket}/{key}", unreachable=TemporaryError):
            self._client.delete_object(Bucket=bucket, Key=key)

    def _upload(self, bucket: str, key: str, source: Path, metadata: Mapping[str, str], deadline: Deadline) -> None:
        from boto3.s3.transfer import TransferConfig

        parts = TransferConfig(multipart_threshold=_PARTS_OF, multipart_chunksize=_PARTS_OF, max_concurrency=2)
        doing = f"uploading {bucket}/{key}"
        deadline.check(doing)
        # An own file object: given a name, s3transfer leaves its file open when the callback raises.
        with source.open("rb") as file, s3_errors(f"put {bucket}/{key}", unreachable=TemporaryError):
            self._client.upload_fileobj(
                file,
                bucket,
                key,
                ExtraArgs={"Metadata": dict(metadata)},
                Config=parts,
                Callback=lambda _bytes: deadline.check(doing),
            )

    # --- settings -------------------------------------------------------------------------------------------------

    def _public_access(self, name: str) -> str:
        answer = self._optional(self._client.get_public_access_block, name)
        flags = (answer or {}).get("PublicAccessBlockConfiguration", {})
        on = [flag for flag in BLOCKS if flags.get(flag)]
        if len(on) == len(BLOCKS):
            return "blocked"
        return "+".join(on) or "open"

    def _set_public_access(self, name: str, value: str) -> None:
        if value == "open":
            self._client.delete_public_access_block(Bucket=name)
            return
        on = BLOCKS if value == "blocked" else value.split("+")
        self._client.put_public_access_block(
            Bucket=name, PublicAccessBlockConfiguration={flag: flag in on for flag in BLOCKS}
        )

    def _set_versioning(self, name: str, value: bool) -> None:
        status = "Enabled" if value else "Suspended"  # S3 knows no way back to never versioned
        self._client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": status})

    def _set_encryption(self, name: str, value: bool) -> None:
        if not value:
            self._client.delete_bucket_encryption(Bucket=name)
            return
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
        self._client.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})

    def _set_tags(self, name: str, value: Mapping[str, str]) -> None:
        tags = [{"Key": key, "Value": text} for key, text in sorted(value.items())]
        self._client.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})

    # --- the client -----------------------------------------------------------------------------------------------

    @property
    def _client(self) -> Any:
        self._networks.require(urlsplit(self._endpoint).hostname or "")
        with self._lock:
            if self._made is None:
                self._made = self._make_client()
            return self._made

    def _make_client(self) -> Any:
        import boto3
        from botocore.config import Config

        keys = {}
        if self._credentials:
            access, secret = self._credentials
            keys = {"aws_access_key_id": access, "aws_secret_access_key": secret.reveal()}
        # An own endpoint is rarely reachable by bucket.host names.
        style = {"addressing_style": "path"} if self._endpoint else {}
        return boto3.session.Session().client(
            "s3",
            region_name=self._region,
            endpoint_url=self._endpoint or None,
            verify=self._ca or None,
            config=Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 2}, s3=style),
            **keys,
        )

    def _optional(self, get: Any, bucket: str) -> Mapping[str, Any] | None:
        """A setting's answer; None when it was never set."""
        try:
            return dict(get(Bucket=bucket))
        except self._client.exceptions.ClientError as error:
            if code_of(error) in _UNSET:
                return None
            raise

    def _pieces(self, bucket: str, key: str, deadline: Deadline) -> Iterator[bytes]:
        with s3_errors(f"read {bucket}/{key}", unreachable=TemporaryError):
            for piece in self._client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(_PIECE):
                deadline.check(f"reading {bucket}/{key}")
                yield piece
