"""The filters and tests a template may use: Jinja's that are deterministic and bounded, and those Ansible users expect.

None reads a file, the clock, the environment or a random number, so equal variables give an equal plan.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import posixpath
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import yaml
from jinja2 import Undefined
from jinja2.exceptions import FilterArgumentError

from engine.core.keyvault import secret_name

MAX_REGEX_INPUT = 1 << 16
MAX_PATTERN = 1000
REGEX_SECONDS = 0.1
"""Of this process: only a pattern that tries the same text again and again needs them."""

KEPT_FILTERS = frozenset((
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "filesizeformat", "first", "float", "groupby",
    "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace",
    "reverse", "round", "select", "selectattr", "sort", "string", "sum", "title", "trim", "truncate", "unique",
    "upper", "urlencode", "wordcount",
))  # fmt: skip
"""Jinja's own that stay."""


def to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def to_nice_json(value: Any, indent: int = 4) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=min(int(indent), 16))


def to_yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, allow_unicode=True, default_flow_style=None))


def to_nice_yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, allow_unicode=True, default_flow_style=False))


def from_json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise FilterArgumentError(f"from_json: not JSON ({error})") from error


def b64encode(value: str) -> str:
    return base64.b64encode(str(value).encode()).decode()


def b64decode(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise FilterArgumentError("b64decode: not base64 of text") from error


def to_bool(value: Any) -> bool:
    """As Ansible has it for the usual spellings; anything else is an error, not false."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"yes", "on", "1", "true", "y", "t"}:
        return True
    if text in {"no", "off", "0", "false", "n", "f", "", "none"}:
        return False
    raise FilterArgumentError("bool: neither true nor false")


def regex_replace(value: Any, pattern: str, replacement: str = "", ignorecase: bool = False) -> str:
    with _in_time():
        return str(_regex(pattern, ignorecase).sub(replacement, _bounded(value), timeout=REGEX_SECONDS))


def regex_search(value: Any, pattern: str, ignorecase: bool = False) -> str | None:
    with _in_time():
        found = _regex(pattern, ignorecase).search(_bounded(value), timeout=REGEX_SECONDS)
    return found[0] if found else None


def regex_findall(value: Any, pattern: str, ignorecase: bool = False) -> list[Any]:
    with _in_time():
        return list(_regex(pattern, ignorecase).findall(_bounded(value), timeout=REGEX_SECONDS))


def regex_escape(value: Any) -> str:
    return re.escape(str(value))


def text_hash(value: Any, algorithm: str = "sha256") -> str:
    if algorithm not in {"sha1", "sha256", "sha512"}:
        raise FilterArgumentError("hash: one of sha1, sha256, sha512")
    return hashlib.new(algorithm, str(value).encode(), usedforsecurity=False).hexdigest()


def combine(value: Mapping[str, Any], *others: Mapping[str, Any], recursive: bool = False) -> dict[str, Any]:
    """Mappings over each other, the last having the say."""
    result = dict(value)
    for other in others:
        for key, new in other.items():
            old = result.get(key)
            both = recursive and isinstance(old, Mapping) and isinstance(new, Mapping)
            result[key] = combine(old, new, recursive=True) if both and isinstance(old, Mapping) else new
    return result


def dict2items(value: Mapping[str, Any], key_name: str = "key", value_name: str = "value") -> list[dict[str, Any]]:
    return [{key_name: k, value_name: v} for k, v in value.items()]


def items2dict(value: Iterable[Mapping[str, Any]], key_name: str = "key", value_name: str = "value") -> dict[str, Any]:
    return {item[key_name]: item[value_name] for item in value}


def flatten(value: Iterable[Any]) -> list[Any]:
    return [leaf for item in value for leaf in (flatten(item) if isinstance(item, list | tuple) else [item])]


def mandatory(value: Any, message: str = "a value is needed") -> Any:
    if isinstance(value, Undefined):
        raise FilterArgumentError(message)
    return value


def ternary(value: Any, yes: Any, no: Any) -> Any:
    return yes if value else no


def union(value: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    return [*value, *(item for item in other if item not in value)]


def difference(value: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    return [item for item in value if item not in other]


def intersect(value: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    return [item for item in value if item in other]


def urlsplit(value: str, part: str) -> Any:
    """One part of a URL: scheme, hostname, port, path, query, netloc."""
    if part not in {"scheme", "hostname", "port", "path", "query", "netloc"}:
        raise FilterArgumentError("urlsplit: one of scheme, hostname, port, path, query, netloc")
    return getattr(urllib.parse.urlsplit(value), part)


def secret_key(path: str, store: str) -> str:
    """How a secret's path is called in that store, for what reads it there: External Secrets, a CSI driver."""
    if store not in {"vault", "keyvault"}:
        raise FilterArgumentError("secret_key: one of vault, keyvault")
    return secret_name(path) if store == "keyvault" else path


OWN_FILTERS: Mapping[str, Callable[..., Any]] = {
    "b64decode": b64decode,
    "b64encode": b64encode,
    "basename": posixpath.basename,
    "bool": to_bool,
    "combine": combine,
    "dict2items": dict2items,
    "difference": difference,
    "dirname": posixpath.dirname,
    "flatten": flatten,
    "from_json": from_json,
    "hash": text_hash,
    "intersect": intersect,
    "items2dict": items2dict,
    "mandatory": mandatory,
    "regex_escape": regex_escape,
    "regex_findall": regex_findall,
    "regex_replace": regex_replace,
    "regex_search": regex_search,
    "secret_key": secret_key,
    "ternary": ternary,
    "to_json": to_json,
    "to_nice_json": to_nice_json,
    "to_nice_yaml": to_nice_yaml,
    "to_yaml": to_yaml,
    "union": union,
    "urlsplit": urlsplit,
}

OWN_TESTS: Mapping[str, Callable[..., bool]] = {
    "match": lambda value, pattern: regex_search(value, f"\\A(?:{pattern})") is not None,
    "search": lambda value, pattern: regex_search(value, pattern) is not None,
}


@contextmanager
def _in_time() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        message = "the regular expression takes too long on this text: write it with less choice"
        raise FilterArgumentError(message) from error


def _regex(pattern: str, ignorecase: bool) -> Any:
    import regex

    if len(pattern) > MAX_PATTERN:
        raise FilterArgumentError(f"a regular expression of more than {MAX_PATTERN} characters")
    try:
        return regex.compile(pattern, regex.VERSION0 | (regex.IGNORECASE if ignorecase else 0))
    except regex.error as error:
        raise FilterArgumentError(f"not a regular expression: {error}") from error


def _bounded(value: Any) -> str:
    text = str(value)
    if len(text) > MAX_REGEX_INPUT:
        raise FilterArgumentError(f"longer than {MAX_REGEX_INPUT} characters")
    return text
