"""Values that stand where a secret should be and are none: placeholders, and what is guessed at the first try."""

from __future__ import annotations

import re

SHORTEST = 12
"""Characters of a secret that a person chose; a generated one says its own length."""
_FEWEST = 5
"""Different characters."""

_PLACEHOLDER = re.compile(
    r"""
      .*(change|replace|fill)[-_ ]?(me|this|in)\b.* | .*changeit.*
    | your[-_ ].* | .*[-_ ]here | <.*> | \$\{.*\} | \[.*\] | x{3,} | \*{3,} | \.{3,}
    | (my[-_ ]?)?(example|sample|dummy|placeholder|insecure|default)([-_ ].*)? | .*[-_ ](example|placeholder)
    | todo.* | tbd | fixme | none | null | n/a
    | (my[-_ ]?|super[-_ ]?)?(secret|password|passw0rd|passwd|pass|token|key)([-_ ]?(secret|password|token|key))?\d*!?
    | admin\d* | root | test\d* | guest | postgres | redis | letmein | qwerty.* | grafana | hunter2
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_SEQUENCES = ("abcdefghijklmnopqrstuvwxyz", "01234567890123456789", "qwertyuiopasdfghjklzxcvbnm")
SECRET_KEY = re.compile(r"(^|[-_.])(password|passwd|pass|secret|token|credential|apikey|key)s?$", re.IGNORECASE)
"""Names of keys whose value is a secret."""


def is_placeholder(value: str) -> bool:
    """Whether a value only marks the place of one: CHANGE_ME, <your-key>, example."""
    return bool(_PLACEHOLDER.fullmatch(value.strip()))


def weakness(value: str, username: str | None = None) -> str:
    """What is wrong with a secret that a person chose, without showing it; empty: nothing that can be seen."""
    plain = value.strip().lower()
    if is_placeholder(value):
        return "a placeholder"
    if username and plain == username.strip().lower():
        return "the same as the user name"
    if len(value) < SHORTEST:
        return f"only {len(value)} characters"
    if len(set(value)) < _FEWEST:
        return f"made of {len(set(value))} different characters"
    if any(plain in run for run in _SEQUENCES):
        return "a sequence"
    return ""
