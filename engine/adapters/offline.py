"""Nobody to ask: the other ports of a plan that is made without any system, and a guard that holds it to that."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from engine.core.action import Context, Deadline
from engine.core.model import StepId
from engine.core.ports import Helm, ReleaseRecord, SecretVersion, StoredObject
from engine.core.redaction import Secret
from engine.errors import NotYetError, UsageError

_REFUSED = frozenset({"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"})
_guarded = threading.Event()
_installed = threading.Lock()
_hooked: list[bool] = []


@contextmanager
def nothing_connects() -> Iterator[None]:
    """While it holds, this process opens no connection and asks for no name: NotYetError, which defers a step."""
    with _installed:
        if not _hooked:
            sys.addaudithook(_refuse)  # for as long as the process lives; without the flag it does nothing
            _hooked.append(True)
    _guarded.set()
    try:
        yield
    finally:
        _guarded.clear()


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if _guarded.is_set() and event in _REFUSED:
        where = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        shown = ":".join(map(str, where[:2])) if isinstance(where, tuple) else str(where)
        raise NotYetError(f"offline: {shown} is not asked")


class EmptySecrets:
    """Port SecretStore: no secret is there yet, and what a person puts there cannot be known."""

    known = False

    def read(
        self, path: str, version: int | None = None, *, sensitive: Collection[str] | None = None
    ) -> SecretVersion | None:
        return None

    def write(self, path: str, values: Mapping[str, Secret], *, expected: int) -> int:
        _nobody(f"writing secret {path}")

    def health(self) -> Mapping[str, Any]:
        _nobody("the secret store's health")


class EmptyObjects:
    """Port ObjectStore: no bucket is there yet."""

    region = ""
    limits: Mapping[str, str] = {}
    shared: Sequence[str] = ()

    def bucket(self, name: str) -> Mapping[str, Any] | None:
        return None

    def list(self, bucket: str, prefix: str) -> Sequence[StoredObject]:
        return []

    def head(self, bucket: str, key: str) -> StoredObject | None:
        return None

    def create_bucket(self, name: str, *, object_lock: bool = False) -> None:
        _nobody(f"making bucket {name}")

    def set_bucket(self, name: str, setting: str, value: Any) -> None:
        _nobody(f"changing bucket {name}")

    def delete_bucket(self, name: str) -> None:
        _nobody(f"deleting bucket {name}")

    def put(
        self, bucket: str, key: str, source: Path, metadata: Mapping[str, str], *, deadline: Deadline
    ) -> StoredObject:
        _nobody(f"writing {bucket}/{key}")

    def get(self, bucket: str, key: str, target: Path, *, deadline: Deadline) -> None:
        _nobody(f"reading {bucket}/{key}")

    def delete(self, bucket: str, key: str) -> None:
        _nobody(f"deleting {bucket}/{key}")


class NoEvidence:
    """Port Evidence: nothing happened yet."""

    def find(self, ctx: Context) -> Mapping[str, Any] | None:
        return None


class NoRecords:
    """Port PlaybookRecords: no playbook ran yet."""

    def read(self, step: StepId) -> Mapping[str, Any] | None:
        return None

    def write(self, step: StepId, record: Mapping[str, Any]) -> None:
        _nobody(f"recording {step}")

    def remove(self, step: StepId) -> None:
        _nobody(f"forgetting {step}")


class RenderingHelm:
    """Port Helm that only renders: each chart twice, as a first install and as an upgrade, and remembers both.

    A chart that comes out differently is either not the same from one time to the next, which is UsageError, or asks
    whether it is an upgrade; `installs_differently` names the releases of those. `helm` is made when first needed.
    """

    def __init__(self, helm: Callable[[], Helm]) -> None:
        self._helm = helm
        self._rendered: dict[str, str] = {}
        self.installs_differently: dict[str, str] = {}

    def records(self, namespace: str, name: str) -> Sequence[ReleaseRecord]:
        return []

    def render(
        self,
        name: str,
        namespace: str,
        chart: Path,
        values: Mapping[str, Any],
        *,
        upgrade: bool,
        deadline: Deadline,
    ) -> str:
        asked = f"{namespace}/{name}/{chart}/{values!r}"
        if asked in self._rendered:
            return self._rendered[asked]

        def once(*, upgrade: bool) -> str:
            return self._helm().render(name, namespace, chart, values, upgrade=upgrade, deadline=deadline)

        first, second = once(upgrade=False), once(upgrade=True)
        if first != second:
            if first != once(upgrade=False):
                raise UsageError(
                    f"chart {chart.name} renders differently each time ({_first_difference(first, second)}): "
                    "give it the random values it makes up, from the secret store"
                )
            self.installs_differently[f"{namespace}/{name}"] = _first_difference(first, second)
        self._rendered[asked] = first
        return first

    def upgrade(self, name: str, namespace: str, chart: Path, values: Mapping[str, Any], *, deadline: Deadline) -> None:
        _nobody(f"upgrading {namespace}/{name}")

    def rollback(self, name: str, namespace: str, revision: int, *, deadline: Deadline) -> None:
        _nobody(f"rolling back {namespace}/{name}")

    def uninstall(self, name: str, namespace: str, *, deadline: Deadline) -> None:
        _nobody(f"uninstalling {namespace}/{name}")

    def forget(self, name: str, namespace: str, revision: int) -> None:
        _nobody(f"forgetting a revision of {namespace}/{name}")


def _first_difference(one: str, other: str) -> str:
    """The template in which two renderings first differ."""
    source = "its output"
    for mine, theirs in zip(one.splitlines(), other.splitlines(), strict=False):
        if mine != theirs:
            break
        if mine.startswith("# Source: "):
            source = mine.removeprefix("# Source: ")
    return source


def _nobody(what: str) -> NoReturn:
    raise NotYetError(f"offline: nobody is asked for {what}")
