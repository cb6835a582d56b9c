"""What actions start on a machine, as protocols: child processes, and Ansible through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.core.action import Deadline
from engine.core.model import StepId


@dataclass(frozen=True, slots=True)
class Finished:
    """How a child process ended."""

    code: int
    stdout: str
    stderr: str


class Launcher(Protocol):
    """Every child process goes through it: own process group and cgroup, an inherited lock that `resume` waits
    for, a deadline."""

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        name: str = "",
    ) -> Finished:
        """Run to the end; at the deadline or on cancellation the whole group is ended and the error raised.

        `name` is what messages call it, by default the program's.
        """

    def wait_for_orphans(self, deadline: Deadline) -> None:
        """Wait for children that a killed engine left running; at the deadline end them."""


@dataclass(frozen=True, slots=True)
class PlayResult:
    """What a playbook run came to; `recap` is host -> {ok, changed, failures, unreachable, skipped}."""

    ok: bool
    recap: Mapping[str, Mapping[str, int]]
    failure: str = ""
    """Task, host and message of the first failure, redacted."""
    changed: int = 0


class Playbooks(Protocol):
    """Ansible, through ansible-runner."""

    def run(
        self,
        playbook: Path,
        inventory: Path,
        variables: Mapping[str, Any],
        *,
        check: bool = False,
        limit: str = "",
        tags: Sequence[str] = (),
        progress: Callable[[str], None],
        deadline: Deadline,
    ) -> PlayResult: ...


class PlaybookRecords(Protocol):
    """What a playbook step last succeeded with. Plain JSON: digests, never values."""

    def read(self, step: StepId) -> Mapping[str, Any] | None: ...

    def write(self, step: StepId, record: Mapping[str, Any]) -> None: ...

    def remove(self, step: StepId) -> None:
        """No record already is fine."""
