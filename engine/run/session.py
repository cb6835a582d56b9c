"""One environment opened for work: its runbook as kept, its parts, its journal. Made by wiring.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from engine.core.drill import Drill, Fault, SentinelStore
from engine.core.model import Runbook
from engine.core.order import Graph
from engine.core.parts import Parts
from engine.core.processes import Launcher
from engine.run.environment import EnvironmentRecord
from engine.run.journal import Journal


def _no_run_folder(_run: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Session:
    """Everything one command needs. The runbook was loaded from the kept inputs, never from the working tree."""

    environment: str
    runbook: Runbook
    graph: Graph
    planner: Parts
    deployer: Parts
    journal: Journal
    record: EnvironmentRecord
    launcher: Launcher
    state: Path
    """The project's `.runbook` folder."""
    inputs: str
    """Digest of the kept inputs."""
    variables: str
    """Digest of the environment's variables."""
    target: str
    """The cluster's uid, empty while there is none."""
    drill: Drill | None = None
    """The drill it was opened for."""
    drills_allowed: bool = False
    """The inventory says `drills: allowed`."""
    faults: Mapping[str, Fault] = field(default_factory=dict)
    sentinels: Mapping[str, SentinelStore] = field(default_factory=dict)
    bind: Callable[[str], None] = _no_run_folder
    """Told the run's id when it begins, so that files kept later are kept for that run."""
    resources: ExitStack = field(default_factory=ExitStack)
    """Tunnels and connections, closed when the command ends."""

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.resources.close()
