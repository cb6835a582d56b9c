"""What the families of checks share: how they get to a service, what counts as a finding, what a value must be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from engine.core.action import Finding
from engine.core.names import namespace, namespace_or_none, service
from engine.core.ports import Cluster
from engine.core.services import NoAnswerError
from engine.errors import NotYetError, PermanentError, TemporaryError

Service = Annotated[str, AfterValidator(service)]
Namespace = Annotated[str, AfterValidator(namespace)]
MaybeNamespace = Annotated[str, AfterValidator(namespace_or_none)]
_FIRM = {"refused", "reset", "timeout", "protocol"}  # a mistyped name or a wrong CA proves nothing


class CheckModel(BaseModel):
    """Base of every family's parameters: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid")


class Reached(CheckModel):
    """Something behind a Kubernetes service or at an address; exactly one of them."""

    service: Service = Field(
        default="", description="`namespace/name:port`, reached by a tunnel to one of its ready pods."
    )
    address: str = Field(default="", description="`host:port`, reached from where the engine runs.")

    @model_validator(mode="after")
    def _one_way(self) -> Reached:
        if bool(self.service) == bool(self.address):
            raise ValueError("wants exactly one of `service` and `address`")
        if self.address:
            split_address(self.address)
        return self


class Served(CheckModel):
    """Something that answers HTTP at a URL or behind a Kubernetes service; exactly one of them."""

    url: str = Field(default="", pattern=r"^(https?://.*)?$", description="Where the server is: its base URL.")
    service: Service = Field(default="", description="`namespace/name:port` instead, reached by a tunnel.")

    @model_validator(mode="after")
    def _one_url(self) -> Served:
        if bool(self.url) == bool(self.service):
            raise ValueError("wants exactly one of `url` and `service`")
        return self

    @property
    def base(self) -> str:
        """The URL without a slash at its end. Of a service it only fills the Host header: a tunnel leads there."""
        return self.url.rstrip("/") or f"http://{self.service.partition('/')[2]}"

    def place(self, cluster: Cluster) -> AbstractContextManager[tuple[str, int] | None]:
        """Where to connect to instead of the URL's host; None for the URL itself."""
        return cluster.tunnel(self.service) if self.service else nullcontext()


class Expected(CheckModel):
    """What a value must be; nothing said means that there is one."""

    equals: Any = Field(default=None, description="The value as it must be; compared as text when the types differ.")
    at_least: float | None = Field(default=None, description="The smallest number it may be.")

    def judge(self, value: Any) -> Finding:
        """Is this value as expected? The finding says the value."""
        if self.equals is not None:
            ok = _same(value, self.equals)
            return Finding(ok, f"{value}" if ok else f"{value}, wanted {self.equals}")
        if self.at_least is not None:
            number = as_number(value)
            if number is None:
                return Finding(False, f"{value}, which is no number")
            ok = number >= self.at_least
            return Finding(ok, f"{number:g}" if ok else f"{number:g}, wanted at least {self.at_least:g}")
        return Finding(value is not None, f"{value}")


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        return as_number(value) == wanted
    return bool(value == wanted) or str(value) == str(wanted)


def as_number(value: Any) -> float | None:
    """A number, also from text and from the hexadecimal text that JSON-RPC servers use; None when it is none."""
    if isinstance(value, str) and value.lower().startswith("0x"):
        try:
            return float(int(value, 16))
        except ValueError:
            return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises ValueError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"'{address}' is not host:port")
    return host.strip("[]"), int(port)


@contextmanager
def reach(cluster: Cluster, service: str, address: str) -> Iterator[tuple[str, int]]:
    """Host and port to connect to, through a tunnel when it is a service."""
    if service:
        with cluster.tunnel(service) as place:
            yield place
    else:
        yield split_address(address)


def finding_of(look: Callable[[], Finding]) -> Finding:
    """One look. No answer is a finding, a refusal that will stay one is a final finding; a wrong request raises."""
    try:
        return look()
    except (TemporaryError, NotYetError) as error:
        return Finding(False, str(error))
    except PermanentError as error:
        return Finding(False, str(error), final=True)


def refusal_of(connect: Callable[[], str]) -> Finding:
    """One look where being refused is right. `connect` returns what it saw when it was let in."""
    try:
        saw = connect()
    except NoAnswerError as error:
        return Finding(error.cause in _FIRM, str(error))
    except (TemporaryError, NotYetError) as error:
        return Finding(False, str(error))
    except PermanentError as error:
        return Finding(False, str(error), final=True)
    return Finding(False, f"{saw}; it should be refused")


def elapsed(since: float) -> str:
    """`12 ms` since a time of `time.monotonic`."""
    return f"{(time.monotonic() - since) * 1000:.0f} ms"


def shorten(text: str, length: int = 120) -> str:
    """One line of at most that many characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
