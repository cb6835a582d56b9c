"""Secrets: a type that does not print, and a redactor that knows every registered value in the forms it travels in."""

from __future__ import annotations

import base64
import json
import re
import shlex
import threading
import urllib.parse
from typing import Any

MASK = "(sensitive)"
_SHORTEST = 8  # shorter values would mask ordinary words


class Secret:
    """A value that must not be shown. `reveal()` is the one way to it; str, repr, format and JSON give the mask."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __str__(self) -> str:
        return MASK

    __repr__ = __str__

    def __format__(self, _spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is never pickled")


def forms(value: str) -> set[str]:
    """Every written form of a value that a sink might see: raw, each long line, base64 at three alignments, hex,
    URL, JSON and shell quoting."""
    found: set[str] = set()
    lines = [value, *(line for line in value.splitlines() if line != value)]
    for text in lines:
        if len(text) < _SHORTEST:
            continue
        raw = text.encode()
        found |= {text, raw.hex(), raw.hex().upper(), urllib.parse.quote(text), urllib.parse.quote_plus(text)}
        found |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], shlex.quote(text)}
        for shift in range(3):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                found.add(_base64_core(encode(b"\0" * shift + raw).decode(), shift, len(raw)))
    return {form for form in found if len(form) >= _SHORTEST}


def _base64_core(encoded: str, shift: int, length: int) -> str:
    """The characters of a base64 text that depend on nothing but the value, whatever stands before or after."""
    start = -(-shift * 8 // 6)
    end = (shift + length) * 8 // 6
    return encoded[start:end]


class Redactor:
    """Masks every registered secret in text. One per process; every sink goes through it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def register(self, value: str | Secret) -> Secret:
        """Make a value known; returns it wrapped."""
        secret = value if isinstance(value, Secret) else Secret(value)
        new = forms(secret.reveal())
        with self._lock:
            if not new <= self._forms:
                self._forms |= new
                longest_first = sorted(self._forms, key=len, reverse=True)
                self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        return secret

    def text(self, text: str) -> str:
        """The text with every known form masked."""
        pattern = self._pattern
        return pattern.sub(MASK, text) if pattern else text

    def data(self, value: Any) -> Any:
        """The same over JSON-like data; a Secret anywhere becomes the mask."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Secret):
            return MASK
        if isinstance(value, dict):
            return {self.text(str(k)): self.data(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(v) for v in value]
        return value

    def carry(self) -> int:
        """How many trailing characters a chunked sink must hold back so that no form is split unseen."""
        with self._lock:
            return max(map(len, self._forms), default=1) - 1
