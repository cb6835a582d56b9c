"""How a secret's path is called in Azure Key Vault, whose names are letters, digits and dashes, blind to case.

    belizechain/postgresql      belizechain--postgresql
    team/api-key                team--api-key
    Team/api_key                ---54eam--api---5fkey

`/` is two dashes; a single dash between letters or digits stays; any other character is three dashes and two hex
digits for each of its UTF-8 bytes. Every path has exactly one name, and every name that was made so leads back.
"""

from __future__ import annotations

import re

LONGEST_NAME = 127
"""Characters of a name (About keys, secrets and certificates, "Object identifiers")."""

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")


def secret_name(path: str) -> str:
    """The name of a path."""
    raw = path.encode()
    parts = []
    for place, byte in enumerate(raw):
        between = 0 < place < len(raw) - 1 and raw[place - 1] in _PLAIN and raw[place + 1] in _PLAIN
        if byte in _PLAIN or (byte == ord("-") and between):
            parts.append(chr(byte))
        else:
            parts.append("--" if byte == ord("/") else f"---{byte:02x}")
    return "".join(parts)


def secret_path(name: str) -> str:
    """The path a name was made from. ValueError for one that was not made here."""
    raw = bytearray()
    rest = name
    while rest:
        dashes = len(rest) - len(rest.lstrip("-"))
        escape = re.match(r"---([0-9a-f]{2})", rest[max(0, dashes - 3) :])
        if dashes >= 3 and escape:  # what stands before an escape: nothing, or a slash
            raw += b"/" * ((dashes - 3) // 2) + bytes.fromhex(escape[1])
            rest = rest[dashes + 2 :]
        else:
            raw += b"/" if dashes == 2 else rest[: max(1, dashes)].encode()
            rest = rest[max(1, dashes) :]
    path = raw.decode(errors="replace")
    if secret_name(path) != name:
        raise ValueError(f"{name} is no name of a path")
    return path
