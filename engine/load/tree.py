"""Folders as content: which files they hold and a digest over them, the same on every machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UsageError

_LEFT_OUT = frozenset({".git", "__pycache__", ".DS_Store", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
MAX_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file: its content's SHA-256 and whether it is executable."""

    digest: str
    executable: bool

    def to_json(self) -> list[str | bool]:
        return [self.digest, self.executable]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest_of_files(files: Mapping[str, TreeFile]) -> str:
    """SHA-256 over sorted names, modes and contents."""
    total = hashlib.sha256()
    for name, file in sorted(files.items()):
        total.update(f"{name}\0{file.digest}\0{'x' if file.executable else '-'}\n".encode())
    return total.hexdigest()


def contents(folder: Path, within: Path) -> Iterator[tuple[str, bytes, bool]]:
    """Every file under a folder: name relative to it, content, executable. UsageError for what cannot be kept.

    A link is read through when it stays `within`; what leads outside, a linked folder and a device are refused.
    """
    total = 0
    for name, path in _walk(folder, within):
        try:
            status = path.stat()
            total += status.st_size
            if total > MAX_BYTES:
                raise UsageError(f"{folder} holds more than {MAX_BYTES >> 20} MiB: too much to keep with every run")
            yield name, path.read_bytes(), bool(status.st_mode & 0o100)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _walk(folder: Path, within: Path) -> Iterator[tuple[str, Path]]:
    base, edge = str(folder), str(within.resolve())
    for here, folders, files in os.walk(base):
        folders[:] = sorted(f for f in folders if f not in _LEFT_OUT)
        for name in folders:
            if os.path.islink(os.path.join(here, name)):
                raise UsageError(f"{os.path.join(here, name)} is a link to a folder: put the folder itself there")
        for name in sorted(files):
            path = os.path.join(here, name)
            if name in _LEFT_OUT or name.endswith(".pyc"):
                continue
            target = os.path.realpath(path) if os.path.islink(path) else path
            if target != path and not target.startswith(edge + os.sep):
                raise UsageError(f"{path} leads outside {edge}: it cannot be kept with the run")
            if not os.path.isfile(target):
                raise UsageError(f"{path} is no file, or a link that leads nowhere")
            yield os.path.relpath(path, base).replace(os.sep, "/"), Path(path)
