"""Make an age key, once: make_key.py IDENTITY RECIPIENT. An identity that is there is kept; its public half follows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyrage


def main() -> None:
    """Make what is missing."""
    identity, recipient = Path(sys.argv[1]), Path(sys.argv[2])
    if not identity.exists():
        write(identity, f"{pyrage.x25519.Identity.generate()}\n", 0o600)
        print(identity)
    secret = next(line for line in identity.read_text().splitlines() if line.startswith("AGE-SECRET-KEY-"))
    public = f"{pyrage.x25519.Identity.from_str(secret).to_public()}\n"
    if not recipient.exists() or recipient.read_text() != public:
        write(recipient, public, 0o644)
        print(recipient)


def write(path: Path, text: str, mode: int) -> None:
    """Whole or not at all."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


if __name__ == "__main__":
    main()
