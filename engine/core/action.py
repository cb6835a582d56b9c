"""What a step is made of: the contract of an action and of a check. See docs/architecture.md, "Contracts"."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, Protocol

from engine.core.change import Change, Outcome, Preimage, Reading, State
from engine.core.model import StepId
from engine.errors import CancelledError, TemporaryError

EXTRA_VARIABLES = "runbook_extra_vars"
"""The variable that holds what `-e` gave, for those to whom it must be passed on as such (Ansible)."""


class Kind(StrEnum):
    """STATE converges and is undone. EVENT happens once per key and is compensated, never undone."""

    STATE = "state"
    EVENT = "event"


class Inputs(Protocol):
    """The run's kept files: runbook, charts, playbooks, values, inventory. Actions read files only through this."""

    @property
    def digest(self) -> str:
        """Of the whole kept tree."""

    def path(self, name: str) -> Path:
        """The kept copy of a file or folder, named as the runbook names it.

        A relative name is looked for in the runbook's folder, then in the project's root. An absolute one (a
        chart that an earlier step staged) is kept at its first use, content-addressed. UsageError when a relative
        name is missing or leads outside; NotYetError when an absolute one is missing, since an earlier step may make
        it; PermanentError when the kept copy was changed.
        """

    def digest_of(self, name: str) -> str:
        """SHA-256 over the file, or over the folder's sorted names and contents. Raises as `path` does."""


class Deadline:
    """How long a call may take, and whether the user asked to stop. Seconds, on the monotonic clock."""

    def __init__(self, seconds: float, cancelled: Event | None = None) -> None:
        self._end = time.monotonic() + seconds
        self._cancelled = cancelled or Event()

    @classmethod
    def after(cls, delta: timedelta, cancelled: Event | None = None) -> Deadline:
        return cls(delta.total_seconds(), cancelled)

    def renewed(self, seconds: float) -> Deadline:
        """Another one, of so many seconds, that the user's wish to stop ends too."""
        return Deadline(seconds, self._cancelled)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    def check(self, doing: str) -> None:
        """CancelledError when the user asked to stop, TemporaryError when no time is left; both name what was done."""
        if self._cancelled.is_set():
            raise CancelledError(f"stopped while {doing}")
        if not self.remaining():
            raise TemporaryError(f"{doing}: the deadline passed")

    def wait(self, seconds: float) -> None:
        """Sleep, shorter when the deadline or a cancellation comes first."""
        self._cancelled.wait(min(seconds, self.remaining()))

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()


def silent(_line: str) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True, slots=True)
class Context:
    """What belongs to one call of an action or a check."""

    step: StepId
    inputs: Inputs
    now: datetime
    """The run's frozen wall-clock time (UTC)."""
    deadline: Deadline
    key: str | None = None
    """An EVENT's idempotency key, `run/step`; None while planning."""
    fresh: timedelta | None = None
    """How old an EVENT's evidence may be and still count."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """The environment's variables as the step sees them; for templates an action renders itself."""
    unless: Sequence[Any] = ()
    """Rendered `unless` checks, for an action that may be skipped by looking."""
    undo_params: Any = None
    """Rendered `undo:` of the step, for an action whose way back the author writes."""
    progress: Callable[[str], None] = silent
    """One line for the live display: what is waited for, how far it is."""
    resuming: bool = False
    """An earlier process of this run left an open intent for this step."""


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """One check to run: `family` is its YAML key, `params` the family's validated model."""

    family: str
    params: Any
    fresh: timedelta | None = None

    def describe(self) -> str:
        """As a person would name it: `kubernetes deployment=web namespace=shop available=True`.

        A proof is kept under this name, so it tells every parameter: of a mapping, which may hold what nobody should
        read, and of a list with one in it, a digest.
        """
        dump = getattr(self.params, "model_dump", None)
        shown = dump(exclude_unset=True, mode="json") if dump else self.params
        pairs = shown.items() if isinstance(shown, Mapping) else [("value", shown)]
        return " ".join([self.family, *(f"{k}={_named(v)}" for k, v in pairs)])


def _named(value: Any) -> Any:
    nested = isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and any(isinstance(v, Mapping | list | tuple) for v in value)
    )
    if not nested:
        return value
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return "#" + hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw, not only that it passed. `final`: looking again cannot help."""

    ok: bool
    saw: str
    final: bool = False


class Action(Protocol):
    """Brings one thing into its wanted state, proves it, and can take it back.

    Built in outside.py with the ports it needs. Every method may raise TemporaryError (tried again in the step's turn;
    while planning it defers the step), PermanentError (final), RefusedError (nothing was changed) and CancelledError;
    `read` and `plan` also NotYetError, and InDoubtError when only a person can tell what a crash left.
    """

    key: ClassVar[str]
    kind: ClassVar[Kind]
    Params: ClassVar[type]
    """A pydantic model; core sees only a type. Gives the JSON Schema and the docs page."""

    def read(self, params: Any, ctx: Context) -> Reading:
        """Live fingerprints of what the step declares. Changes nothing.

        An EVENT answers whether its evidence exists: under `ctx.key` while running, within `ctx.fresh` while planning.
        """

    def plan(self, params: Any, now: Reading, ctx: Context) -> Change:
        """What would be done. May ask systems for a dry run; changes nothing. Equal input, equal plan."""

    def capture(self, params: Any, change: Change, now: Reading, ctx: Context) -> Preimage:
        """What `undo` will need, read before `apply`; journaled with the intent."""

    def apply(self, params: Any, change: Change, ctx: Context) -> Outcome:
        """Do it. Repeatable from any half-done state of its own; uses the system's own compare-and-swap."""

    def read_back(self, params: Any, change: Change, preimage: Preimage, ctx: Context) -> State:
        """Live fingerprints for undo: an object's `undo_to` where that holds in the fields of the old state,
        else what `read` says of it."""

    def undo(self, params: Any, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        """Back to `change.undo_to`. Repeatable."""

    def checks(self, params: Any) -> Sequence[CheckSpec]:
        """What always proves it; the step's `verify:` adds more."""


class Check(Protocol):
    """One family of checks: `http`, `kubernetes`, … Looks once; the executor repeats until it passes or time is up."""

    key: ClassVar[str]
    Params: ClassVar[type]

    def run(self, params: Any, ctx: Context) -> Finding:
        """Look once. An outside error that may pass is a Finding that is not ok; a wrong request raises."""
