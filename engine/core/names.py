"""Names that Kubernetes and the stores allow, judged before anybody is asked. A ValueError says what to write."""

from __future__ import annotations

import re

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DNS = re.compile(r"(?:\w+://)?(?P<name>[a-z0-9-]+)\.(?P<namespace>[a-z0-9-]+)(?:\.svc[a-z.]*)?:(?P<port>\d+)/?")
_OTHER = re.compile(r"(?P<namespace>[a-z0-9-]+)[/:.](?P<name>[a-z0-9-]+)[:/](?P<port>\d+)/?")
_FOLDER = re.compile(r"[A-Za-z0-9!_.*'()=+@ -]+")


def is_label(text: str) -> bool:
    """A DNS label as of RFC 1123, which a namespace must be."""
    return _LABEL.fullmatch(text) is not None


def namespace(text: str) -> str:
    """The name of a Kubernetes namespace."""
    if not is_label(text):
        near = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63]
        hint = f' (did you mean "{near}"?)' if is_label(near) else ""
        raise ValueError(f'should be lower-case letters, digits and "-", at most 63, not "{text}"{hint}')
    return text


def namespace_or_none(text: str) -> str:
    """The same, where none may be said."""
    return namespace(text) if text else text


def service(text: str) -> str:
    """`namespace/name:port`; nothing, where none is said."""
    where, _, port = text.rpartition(":")
    owner, _, name = where.partition("/")
    if not text or (is_label(owner) and is_label(name) and port.isdecimal() and 0 < int(port) < 65536):
        return text
    found = _DNS.fullmatch(text) or _OTHER.fullmatch(text)
    near = f"{found['namespace']}/{found['name']}:{found['port']}" if found else text
    hint = f' (did you mean "{near}"?)' if near != text else ""
    raise ValueError(f'should be namespace/name:port, not "{text}"{hint}')


def folder(text: str) -> str:
    """A folder within a bucket, with one slash at its end; nothing, for none."""
    bare = text.removesuffix("/")
    if not bare:
        return ""
    if not all(_FOLDER.fullmatch(part) and part not in (".", "..") for part in bare.split("/")):
        raise ValueError(f'should be a folder like "team/databases/", not "{text}"')
    return bare + "/"
