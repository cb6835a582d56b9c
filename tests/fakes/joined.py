"""What wiring.py does, over the world in memory: lets the commands run without files and systems."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.core.events import Observer
from engine.core.evidence import Beside
from engine.core.history import RunView
from engine.core.model import Runbook
from engine.errors import Diagnostic, Position, UsageError
from engine.run.journal import Journal
from engine.run.session import Session
from tests.fakes import runs
from tests.fakes.world import World


@dataclass(frozen=True)
class Loaded:
    runbook: Runbook


class Joined:
    """Stands where `engine.wiring` does. `inputs` is the digest of the files as they are now."""

    STATE = ".runbook"

    def __init__(self, root: Path, world: World, book: Runbook, cluster: Any = None) -> None:
        self.root, self.world, self.book, self.cluster = root, world, book, cluster
        self.inputs = "inputs"
        self.opened: list[dict[str, Any]] = []
        self.mistakes: list[Diagnostic] = []
        (root / "inventories" / "test").mkdir(parents=True, exist_ok=True)

    def find_root(self, start: Path) -> Path:
        if self.root not in (start, *start.parents):
            raise UsageError(f"no project around {start}")
        return self.root

    def open_journal(self, root: Path) -> Journal:
        return runs.journal(root / ".runbook" / "journal.db")

    def open_session(
        self,
        root: Path,
        environment: str,
        *,
        extra: Sequence[str] = (),
        observer: Observer,
        interactive: bool,
        run: RunView | None = None,
        cancelled: threading.Event,
        runbook: str | None = None,
        drill: str = "",
    ) -> Session:
        self.opened.append({"extra": list(extra), "runbook": runbook, "interactive": interactive, "run": run})
        if environment != "test":
            raise UsageError(f"no environment {environment}: inventories/ has test")
        made = runs.session(self.world, self.book, root / ".runbook", self.open_journal(root), self.cluster)
        parts = replace(made.deployer, observer=observer, cancelled=cancelled)
        made.resources.callback(made.journal.close)
        return replace(made, planner=parts, deployer=parts, inputs=self.inputs)

    def lint(self, root: Path, runbook: str | None, environment: str | None) -> list[Diagnostic]:
        return self.mistakes

    def schema(self, root: Path) -> dict[str, Any]:
        return {"runbook": {"title": "A runbook"}, "phase": {"title": "A phase"}}

    def beside(self, root: Path, view: RunView, events: Any) -> Beside:
        return Beside()

    def load(self, root: Path, runbook: str | None, environment: str | None) -> Loaded:
        return Loaded(self.book)


MISTAKE = Diagnostic(
    Position("runbooks/test/phases/01.yml", 14, 29),
    'unknown key "lenght" in generate (did you mean "length"?)',
    "       password: {generate: {lenght: 40}}",
    6,
)
