"""Where backups are kept: signed documents beside encrypted dumps in a bucket."""

from __future__ import annotations

import hashlib
import json
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.action import Deadline
from engine.core.backup import DUMP, MANIFEST, PROOF, Backup, How, Manifest, Objects, Proof, grouped
from engine.core.events import canonical
from engine.core.ports import Encryption, ObjectStore, StoredObject
from engine.core.signatures import Signatures
from engine.errors import PermanentError, UsageError

NAMESPACE = "runbook-backup"
"""What the signatures are made for: one made for something else never counts here."""
PRINCIPAL = "runbook-backup"
"""The name before each key in the file of allowed signers."""
_AHEAD = 16  # pieces decrypted before they are taken


@dataclass(frozen=True, slots=True)
class Signing:
    """Who signs manifests and proofs here, and whose signatures count. `None`: the inventory does not say."""

    signatures: Signatures
    key: Path | None
    allowed_signers: Path | None

    def sign(self, document: Mapping[str, Any], deadline: Deadline) -> bytes:
        """The document with its signature, as it is stored. One that would not be believed later is not made."""
        if self.key is None:
            raise UsageError("the inventory has no backup_signing_key, so nothing can vouch for a backup; name one")
        text = canonical(document).encode()
        signature = self.signatures.sign(text, key=self.key, namespace=NAMESPACE, deadline=deadline)
        self._verify(text, signature, deadline)
        return (canonical({"document": document, "signature": signature}) + "\n").encode()

    def opened(self, stored: bytes, where: str, deadline: Deadline) -> Mapping[str, Any]:
        """The document, when the signature holds. PermanentError for one that is unsigned or altered."""
        try:
            envelope = json.loads(stored)
            document, signature = envelope["document"], envelope["signature"]
        except (ValueError, LookupError, TypeError) as error:
            raise PermanentError(f"{where} is not signed") from error
        if not isinstance(document, dict) or not isinstance(signature, str):
            raise PermanentError(f"{where} is not signed")
        try:
            self._verify(canonical(document).encode(), signature, deadline)
        except PermanentError as error:
            raise PermanentError(f"{where}: {error}") from error
        return document

    def _verify(self, text: bytes, signature: str, deadline: Deadline) -> None:
        if self.allowed_signers is None:
            raise UsageError("the inventory has no backup_allowed_signers: it would say whose backups count")
        try:
            signers = self.allowed_signers.read_text()
        except OSError as error:
            raise PermanentError(
                f"the allowed signers {self.allowed_signers} cannot be read ({error.strerror})"
            ) from error
        self.signatures.verify(
            text, signature, allowed_signers=signers, principal=PRINCIPAL, namespace=NAMESPACE, deadline=deadline
        )


@dataclass(frozen=True, slots=True)
class Encrypted:
    """A dump as it is stored, in a file that lives as long as the block that made it."""

    file: Path
    size: int
    sha256: str


class BackupStore:
    """The backups of one environment."""

    def __init__(self, objects: ObjectStore, encryption: Encryption, signing: Signing) -> None:
        self.objects = objects
        self.encryption = encryption
        self._signing = signing

    # --- Telling ------------------------------------------------------------------------------------------------------

    def backups(self, bucket: str, folder: str, deadline: Deadline) -> Iterator[Backup]:
        """Newest first, each read when it is asked for."""
        listed = ((o.key, o.size, o.modified) for o in self.objects.list(bucket, folder))
        for group in grouped(listed, folder):
            yield self._judged(bucket, group, deadline)

    def backup(self, bucket: str, name: str, deadline: Deadline) -> Backup | None:
        """One by its name; None when it has no object."""
        folder = name.rpartition("/")[0]
        listed = ((o.key, o.size, o.modified) for o in self.objects.list(bucket, name))
        found = [g for g in grouped(listed, f"{folder}/" if folder else "") if g.name == name]
        return self._judged(bucket, found[0], deadline) if found else None

    def newest(self, bucket: str, folder: str, source: str, deadline: Deadline, how: How) -> Backup | None:
        """The newest that is signed, of that source, and proved so."""
        for backup in self.backups(bucket, folder, deadline):
            if backup.proved(how) and backup.manifest and backup.manifest.source == source:
                return backup
        return None

    def _judged(self, bucket: str, group: Objects, deadline: Deadline) -> Backup:
        size = group.there.get(DUMP, (0, None))[0]
        manifest, proof, trouble = None, None, ""
        try:
            manifest = self._manifest(bucket, group, size, deadline)
            if PROOF in group.there:
                proof = self._proof(bucket, group, manifest, deadline)
        except PermanentError as error:
            trouble = str(error)
        return Backup(group.name, group.stored, size, manifest, proof, trouble)

    def _manifest(self, bucket: str, group: Objects, size: int, deadline: Deadline) -> Manifest:
        key = group.name + MANIFEST
        if MANIFEST not in group.there:
            raise PermanentError("there is no manifest: it was never finished")
        if DUMP not in group.there:
            raise PermanentError("there is no dump")
        manifest = Manifest.from_json(self._document(bucket, key, deadline), f"{bucket}/{key}")
        if (manifest.dump, manifest.size) != (group.name + DUMP, size):
            raise PermanentError(f"{bucket}/{key} is of another dump")
        return manifest

    def _proof(self, bucket: str, group: Objects, manifest: Manifest, deadline: Deadline) -> Proof:
        key = group.name + PROOF
        proof = Proof.from_json(self._document(bucket, key, deadline), f"{bucket}/{key}")
        if (proof.dump, proof.sha256) != (manifest.dump, manifest.sha256):
            raise PermanentError(f"{bucket}/{key} is of another dump")
        return proof

    def _document(self, bucket: str, key: str, deadline: Deadline) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory(prefix="runbook-backup-") as folder:
            file = Path(folder, "document")
            self.objects.get(bucket, key, file, deadline=deadline)
            return self._signing.opened(file.read_bytes(), f"{bucket}/{key}", deadline)

    # --- Keeping ------------------------------------------------------------------------------------------------------

    def keep_manifest(self, bucket: str, name: str, manifest: Manifest, deadline: Deadline) -> None:
        self._keep(bucket, name + MANIFEST, manifest.to_json(), deadline)

    def keep_proof(self, bucket: str, name: str, proof: Proof, deadline: Deadline) -> None:
        """Over an earlier one."""
        self._keep(bucket, name + PROOF, proof.to_json(), deadline)

    def _keep(self, bucket: str, key: str, document: Mapping[str, Any], deadline: Deadline) -> StoredObject:
        with tempfile.TemporaryDirectory(prefix="runbook-backup-") as folder:
            file = Path(folder, "document")
            file.write_bytes(self._signing.sign(document, deadline))
            return self.objects.put(bucket, key, file, {}, deadline=deadline)

    # --- Dumps --------------------------------------------------------------------------------------------------------

    @contextmanager
    def encrypted(self, pieces: Iterator[bytes]) -> Iterator[Encrypted]:
        """A stream in a file, encrypted before it touches the disk."""
        with tempfile.TemporaryDirectory(prefix="runbook-backup-") as folder:
            file = Path(folder, "dump.age")
            self.encryption.encrypt(pieces, file)
            with file.open("rb") as source:
                digest = hashlib.file_digest(source, "sha256").hexdigest()
            yield Encrypted(file, file.stat().st_size, digest)

    @contextmanager
    def fetched(self, bucket: str, manifest: Manifest, deadline: Deadline) -> Iterator[Path]:
        """A dump from the bucket, still encrypted, and the very bytes its manifest names. PermanentError."""
        with tempfile.TemporaryDirectory(prefix="runbook-backup-") as folder:
            file = Path(folder, "dump.age")
            self.objects.get(bucket, manifest.dump, file, deadline=deadline)
            with file.open("rb") as source:
                found = hashlib.file_digest(source, "sha256").hexdigest()
            if found != manifest.sha256:
                raise PermanentError(
                    f"{bucket}/{manifest.dump} is not what its manifest says: SHA-256 {found}, not {manifest.sha256}"
                )
            yield file

    def plain(self, file: Path, manifest: Manifest) -> Iterator[bytes]:
        """A fetched dump, decrypted piece by piece. PermanentError at the end when it is not what was dumped."""
        digest = hashlib.sha256()
        for piece in pulled(lambda sink: self.encryption.decrypt(file, sink)):
            digest.update(piece)
            yield piece
        if digest.hexdigest() != manifest.plain_sha256:
            raise PermanentError(f"{manifest.dump} decrypts to something else than was dumped")


def pulled(push: Callable[[Callable[[bytes], object]], object]) -> Iterator[bytes]:
    """What `push` gives to its sink, as an iterator with little held in memory. Its error is raised here."""
    pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def put(piece: bytes | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return pieces.put(piece, timeout=0.1)
            except queue.Full:
                continue
        raise InterruptedError  # nobody takes them any more

    def work() -> None:
        last: BaseException | None = None
        try:
            push(put)
        except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
            last = error
        if not stop.is_set():
            put(last)

    thread = threading.Thread(target=work, name="decrypting", daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        stop.set()
        thread.join()
