"""A folder as a run's kept inputs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UsageError


@dataclass
class FolderInputs:
    """Reads the folder as it is now; a real run's inputs do not change under it."""

    root: Path

    @property
    def digest(self) -> str:
        return self.digest_of(".")

    def path(self, name: str) -> Path:
        path = self.root / name
        if not path.exists():
            raise UsageError(f"{name}: no such file")
        return path

    def digest_of(self, name: str) -> str:
        path = self.path(name)
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.relative_to(path.parent)}\0".encode() + file.read_bytes() + b"\0")
        return digest.hexdigest()
