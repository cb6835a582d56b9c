"""age encryption by pyrage: streams to files for backups, small armoured documents for preimages."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import PermanentError, UsageError


class Age:
    """Encrypts to the environment's recipients, decrypts with the identities at hand (port Encryption).

    `recipients` are `age1…` or `ssh-…` lines, or absolute paths of files with such lines (as `age -R` takes them); a
    file is read when something is encrypted, so a step may make it. `identities` gives the texts of age-keygen's
    files, or single `AGE-SECRET-KEY-…` lines; it is asked only when something is decrypted.
    """

    def __init__(self, recipients: Sequence[str], identities: Callable[[], Sequence[str]]) -> None:
        self._recipients = tuple(recipients)
        self._identities = identities

    @property
    def recipients(self) -> Sequence[str]:
        return self._recipients

    def encrypt(self, source: Iterator[bytes], target: Path) -> None:
        """See Encryption. `target` is made with mode 0600 and removed when anything fails, `source` included."""
        import pyrage

        recipients = self._parsed_recipients()
        reader = _Pieces(source)
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.fchmod(handle, 0o600)
            with os.fdopen(handle, "wb") as out, _age_errors(f"encrypt {target.name}"):
                pyrage.encrypt_io(reader, out, recipients)
        except BaseException as error:
            target.unlink(missing_ok=True)
            if reader.failure is not None and reader.failure is not error:
                raise reader.failure from None  # pyrage flattens the source's own error into text
            raise

    def decrypt(self, encrypted: Path, sink: Callable[[bytes], object]) -> None:
        import pyrage

        writer = _Sink(sink)
        try:
            with encrypted.open("rb") as source, _age_errors(f"decrypt {encrypted.name}"):
                pyrage.decrypt_io(source, writer, self._parsed_identities())
        except PermanentError:
            if writer.failure is not None:
                raise writer.failure from None
            raise

    def seal(self, document: bytes) -> str:
        import pyrage

        with _age_errors("seal a document"):
            return bytes(pyrage.encrypt(document, self._parsed_recipients(), armored=True)).decode()

    def open(self, blob: str) -> bytes:
        import pyrage

        with _age_errors("open a sealed document"):
            return bytes(pyrage.decrypt(blob.encode(), self._parsed_identities()))

    def _parsed_recipients(self) -> list[Any]:
        import pyrage

        lines = [line for recipient in self._recipients for line in _recipient_lines(recipient)]
        if not lines:
            raise UsageError("age: this environment has no recipients, so nothing can be encrypted for it; add one")
        parsed = []
        for line in lines:
            kind = pyrage.ssh.Recipient if line.startswith("ssh-") else pyrage.x25519.Recipient
            try:
                parsed.append(kind.from_str(line))
            except pyrage.RecipientError as error:
                raise UsageError(f"age: {line[:12]}… is not a recipient ({error})") from error
        return parsed

    def _parsed_identities(self) -> list[Any]:
        import pyrage

        found = (line.strip() for text in self._identities() for line in text.splitlines())
        lines = [line for line in found if line and not line.startswith("#")]
        if not lines:
            raise PermanentError("age: no identity is at hand, so nothing encrypted can be read or proved here")
        try:
            return [pyrage.x25519.Identity.from_str(line) for line in lines]
        except pyrage.IdentityError as error:
            # Not the line itself: it is a key, or was meant to be one.
            raise UsageError(f"age: one of {len(lines)} identities is malformed ({error})") from None


def _recipient_lines(recipient: str) -> list[str]:
    """The recipient itself, or those of the file it names."""
    if not recipient.startswith("/"):
        return [recipient]
    try:
        text = Path(recipient).read_text()
    except OSError as error:
        raise UsageError(f"age: the recipients' file {recipient} cannot be read ({error.strerror})") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


class _Pieces(io.RawIOBase):
    """An iterator of pieces as the file that pyrage reads; keeps the iterator's own error."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.failure: BaseException | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; empty only at the end."""
        while not self._rest:
            try:
                self._rest = next(self._pieces)
            except StopIteration:
                return b""
            except BaseException as error:
                self.failure = error
                raise
        piece, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return piece


class _Sink(io.RawIOBase):
    """A function as the file that pyrage writes; keeps the function's own error."""

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self.failure: BaseException | None = None

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        try:
            self._sink(bytes(piece))
        except BaseException as error:
            self.failure = error
            raise
        return len(piece)


@contextmanager
def _age_errors(doing: str) -> Iterator[None]:
    import pyrage

    try:
        yield
    except pyrage.DecryptError as error:
        raise PermanentError(f"age: cannot {doing}: {error}; none of the identities at hand fits") from error
    except (pyrage.EncryptError, OSError) as error:
        # A cut or altered file is an OSError of the decrypting stream.
        raise PermanentError(f"age: cannot {doing}: {error}") from error
