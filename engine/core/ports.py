"""The systems that actions act on and whoever answers them, as protocols: clusters, stores, encryption, people.

Adapters implement them; outside.py joins them. Child processes are in `processes`, what only checks ask in `services`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from engine.core.action import Context, Deadline
from engine.core.redaction import Secret

Manifest = Mapping[str, Any]
"""A Kubernetes object as plain data."""


class Declared(dict[str, Any]):
    """A Kubernetes object that knows where it is declared: `policies/mesh/mtls.yaml`."""

    def __init__(self, content: Mapping[str, Any], source: str) -> None:
        super().__init__(content)
        self.source = source


def source_of(manifest: Manifest) -> str:
    """Where it is declared; empty when that is not known."""
    return manifest.source if isinstance(manifest, Declared) else ""


# --- Kubernetes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reference:
    """Which Kubernetes object: enough to GET it."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""

    @classmethod
    def of(cls, manifest: Manifest) -> Reference:
        meta = manifest["metadata"]
        return cls(manifest["apiVersion"], manifest["kind"], meta["name"], meta.get("namespace", ""))

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"


@dataclass(frozen=True, slots=True)
class Look:
    """One object as it is and as a server-side-apply dry run says it would be. Secrets are masked already."""

    reference: Reference
    live: Manifest | None
    dry: Manifest | None
    missing: str = ""
    """Why no dry run was possible: `namespace shop does not exist`, `kind Gateway is not served`."""


class Cluster(Protocol):
    """A Kubernetes API server, reached as one identity."""

    def uid(self) -> str:
        """The kube-system namespace's uid: which cluster this is. Raises NotYetError when there is none yet."""

    def version(self) -> str: ...

    def api_versions(self) -> Sequence[str]:
        """`group/version` and `group/version/Kind`, as Helm's `--api-versions` wants them."""

    def namespaced(self, api_version: str, kind: str) -> bool | None:
        """Whether objects of this kind live in a namespace; None when the kind is not served."""

    def masked(self, manifest: Manifest) -> Manifest:
        """A Secret with keyed hashes for values, as `look` shows it; any other object as it is."""

    def look(self, objects: Sequence[Manifest], *, manager: str, dry_run: bool = True) -> Sequence[Look]:
        """GET plus dry run of each, several at once. 4xx of the dry run is PermanentError with the object's name.

        Without the dry run an object needs no more than what names it.
        """

    def apply(self, manifest: Manifest, *, manager: str) -> Manifest:
        """Server-side apply with force. Retries `kind not served` for some seconds after a CRD."""

    def patch(self, reference: Reference, body: Mapping[str, Any], *, manager: str) -> None:
        """Merge patch."""

    def delete(self, reference: Reference, deadline: Deadline, *, wait: bool = True, grace: int | None = None) -> None:
        """Absent already is fine. Waits until it is gone unless told not to. `grace`: seconds for a pod."""

    def get(self, reference: Reference) -> Manifest | None: ...

    def list(self, api_version: str, kind: str, namespace: str = "", selector: str = "") -> Sequence[Manifest]: ...

    def logs(self, namespace: str, pod: str, container: str, *, lines: int = 20) -> str: ...

    def exec(
        self,
        namespace: str,
        pod: str,
        argv: Sequence[str],
        *,
        container: str = "",
        stdin: bytes | Iterator[bytes] = b"",
        deadline: Deadline,
    ) -> Iterator[bytes]:
        """Standard output in pieces. A non-zero exit raises PermanentError with the end of standard error.

        What goes in may come in pieces, each taken when the one before is sent; an error of theirs is raised here.
        """

    def tunnel(self, service: str) -> AbstractContextManager[tuple[str, int]]:
        """A loopback address that leads to a ready pod behind `namespace/service:port`."""

    def service_account_token(self, namespace: str, name: str) -> Secret:
        """A short-lived token by TokenRequest."""

    def swap(self, manifest: Manifest, resource_version: str) -> Manifest | None:
        """Create (empty version) or replace at exactly that version; None when it moved: compare-and-swap."""


# --- Helm -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """One revision of a Helm release."""

    revision: int
    status: str
    chart: str
    """`name-version`."""
    manifest: str
    hooks: Sequence[Mapping[str, Any]] = ()
    values: Mapping[str, Any] = field(default_factory=dict)


class Helm(Protocol):
    """The `helm` program and its release records."""

    def records(self, namespace: str, name: str) -> Sequence[ReleaseRecord]:
        """Newest first; read from the release's Secrets."""

    def render(
        self,
        name: str,
        namespace: str,
        chart: Path,
        values: Mapping[str, Any],
        *,
        upgrade: bool,
        deadline: Deadline,
    ) -> str:
        """`helm template` with CRDs, without tests, for this cluster's version and APIs."""

    def upgrade(self, name: str, namespace: str, chart: Path, values: Mapping[str, Any], *, deadline: Deadline) -> None:
        """`helm upgrade --install --force-conflicts`, not waiting. Values by standard input."""

    def rollback(self, name: str, namespace: str, revision: int, *, deadline: Deadline) -> None: ...

    def uninstall(self, name: str, namespace: str, *, deadline: Deadline) -> None: ...

    def forget(self, name: str, namespace: str, revision: int) -> None:
        """Delete one revision's record: how a `pending-*` of a dead process is freed."""


# --- Analysis ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Objection:
    """What an analysis holds against one object."""

    object: str
    """As `str(Reference)` names it."""
    code: str
    text: str
    error: bool
    """False: a warning."""
    missing: bool = False
    """What the object refers to is not there: an earlier step may bring it."""


class Analyzer(Protocol):
    """Judges objects together with what they refer to, which a dry run of the API server does not."""

    def analyze(self, manifests: Sequence[Manifest], *, live: bool, deadline: Deadline) -> Sequence[Objection]:
        """`live`: beside what is on the cluster; else by themselves, and what they only refer to is not asked for.

        TemporaryError when the cluster does not answer.
        """


# --- Secret stores ----------------------------------------------------------------------------------------------


OWNER = "runbook-owner"
"""Metadata of a secret: which runbook and environment it belongs to, `RUNBOOK/ENVIRONMENT`."""
EXPIRES = "expires"
"""Metadata of a secret: when it should be used no more (ISO 8601, UTC, whole seconds)."""


@dataclass(frozen=True, slots=True)
class SecretVersion:
    """One version of a secret. `deleted`: the path has history but no current value. `metadata` belongs to the path."""

    version: int
    values: Mapping[str, Secret] = field(default_factory=dict)
    deleted: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


class SecretStore(Protocol):
    """Vault/OpenBao KV v2, or Azure Key Vault."""

    def read(
        self, path: str, version: int | None = None, *, sensitive: Collection[str] | None = None
    ) -> SecretVersion | None:
        """None when the path never existed. NotYetError when the store itself does not answer yet.

        Registers the values of the `sensitive` keys with the redactor, all keys when None: a caller that knows
        some of them to be plain (a user name) keeps such words readable.
        """

    def write(
        self, path: str, values: Mapping[str, Secret], *, expected: int, metadata: Mapping[str, str] | None = None
    ) -> int:
        """Write a new version when the current one is `expected` (0: none). Returns it. RefusedError when it moved.

        Keys, and names of metadata, that are not given keep what they hold. How far a write by somebody else at the
        same moment is fenced off is the store's: docs/reliability.md.
        """

    def annotate(self, path: str, metadata: Mapping[str, str]) -> None:
        """Metadata alone, without a new version."""

    def health(self) -> Mapping[str, Any]:
        """`initialized`, `sealed`, `version`. NotYetError when nothing answers."""


# --- Object stores ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object in a bucket; `metadata` in lower case."""

    key: str
    size: int
    etag: str
    modified: datetime
    version: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class ObjectStore(Protocol):
    """S3 and what speaks it, or Azure Blob."""

    @property
    def region(self) -> str:
        """Where its buckets must be; empty: not a matter of the bucket (an Azure container is where its account is)."""

    @property
    def limits(self) -> Mapping[str, str]:
        """Settings that `set_bucket` cannot change here, each with why and what to do instead."""

    @property
    def shared(self) -> Collection[str]:
        """Settings of the whole account, which stand before any bucket does: they are set before it is made."""

    def bucket(self, name: str) -> Mapping[str, Any] | None:
        """Its settings; None when it does not exist.

        `versioning`, `encryption` (bool), `public_access` (`blocked`, `open` or the flags that are on, joined by +),
        `expire_days`, `noncurrent_days` (whole days or None), `object_lock` (None: it was made without; `{}`: no
        default retention; else `{"mode": "governance" | "compliance", "days": n}`), `region`, `tags`.
        """

    def create_bucket(self, name: str, *, object_lock: bool = False) -> None:
        """With `object_lock`, retention can be set; it cannot be had later. Ours already is fine."""

    def set_bucket(self, name: str, setting: str, value: Any) -> None:
        """One of the settings that `bucket` shows, in the same form; not the region. UsageError for one of `limits`."""

    def delete_bucket(self, name: str) -> None:
        """Only when empty; PermanentError otherwise."""

    def put(
        self, bucket: str, key: str, source: Path, metadata: Mapping[str, str], *, deadline: Deadline
    ) -> StoredObject:
        """Whole or not at all. Reads back and compares SHA-256; a difference removes it and raises."""

    def get(self, bucket: str, key: str, target: Path, *, deadline: Deadline) -> None: ...

    def list(self, bucket: str, prefix: str) -> Sequence[StoredObject]:
        """Without metadata, which costs a request for each: `head` it. Empty when the bucket does not exist."""

    def head(self, bucket: str, key: str) -> StoredObject | None:
        """One object with its metadata; None when it, or the bucket, does not exist."""

    def delete(self, bucket: str, key: str) -> None: ...


# --- Encryption -------------------------------------------------------------------------------------------------


class Encryption(Protocol):
    """age, to the environment's recipients."""

    @property
    def recipients(self) -> Sequence[str]:
        """Public keys of those who can read what is encrypted."""

    def encrypt(self, source: Iterator[bytes], target: Path) -> None:
        """Encrypt a stream to a file; never a plain copy on disk."""

    def decrypt(self, encrypted: Path, sink: Callable[[bytes], object]) -> None:
        """Decrypt with an identity at hand, in pieces; PermanentError when none fits or the file is damaged."""

    def seal(self, document: bytes) -> str:
        """A small document, ASCII-armoured, for a preimage."""

    def open(self, blob: str) -> bytes: ...


# --- What the engine itself offers to events --------------------------------------------------------------------


class Evidence(Protocol):
    """What earlier events left in the journal."""

    def find(self, ctx: Context) -> Mapping[str, Any] | None:
        """Evidence under `ctx.key` when it is set, else the newest of that step within `ctx.fresh`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person said: who, when (UTC, ISO 8601), and whether it was yes."""

    by: str
    at: str
    yes: bool


class Asker(Protocol):
    """A person at the terminal."""

    def ask(self, question: str) -> Answer | None:
        """None when nobody can be asked: no terminal, or `--no-input`."""
