"""A project's folder, the real `runbook` command in it, and what its journal says."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = str(Path(sys.executable).with_name("runbook"))
STATE = ".runbook"
RECORDS = "records"
_SECONDS = 2700.0  # a cluster that is built from nothing
_FILES = ("inventories", "playbooks", "runbooks")


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left: its exit code and everything it printed."""

    exit: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document of `--json`."""
        return json.loads(self.stdout)

    @property
    def run(self) -> dict[str, Any]:
        """The run that `deploy`, `resume`, `verify` or `show` tell of."""
        return self.document["run"]

    @property
    def error(self) -> str:
        """The message of a command that failed before or after its run."""
        return self.document["error"]["message"]

    def __str__(self) -> str:
        return f"exit {self.exit}\n{self.stdout[-6000:]}\n{self.stderr[-6000:]}"


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with `inventories/` and `runbooks/`, as a user has it."""

    root: Path

    def runbook(self, *argv: str, program: tuple[str, ...] = (COMMAND,), **env: str) -> Done:
        """The command, to its end."""
        done = subprocess.run(
            [*program, *argv],
            cwd=self.root,
            env=_environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *argv: str, log: Path) -> subprocess.Popen[bytes]:
        """The command, left running; what it prints goes to `log`."""
        with log.open("wb") as file:
            return subprocess.Popen(
                [COMMAND, *argv],
                cwd=self.root,
                env=_environment({}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def copy(self, to: Path, *, journal: bool) -> Project:
        """The same files in another folder. With `journal` it is the same project to the engine: an edited checkout.

        Without it is somebody else's checkout, with a journal of its own.
        """
        for name in _FILES:
            shutil.copytree(self.root / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        if journal:
            for name in (STATE, RECORDS):
                (self.root / name).mkdir(mode=0o700, exist_ok=True)
                (to / name).symlink_to(self.root / name)
        return Project(to)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text that stands in a file once."""
        file = self.root / path
        text = file.read_text()
        assert text.count(old) == 1, f"{path} has {text.count(old)} times {old!r}"
        file.write_text(text.replace(old, new))

    def plan(self, environment: str = "local") -> list[dict[str, Any]]:
        """The changes that a deploy would make now; none when all is as it should be."""
        done = self.runbook("plan", environment, "--json")
        assert done.exit == 0, done
        return [c for c in done.document["changes"] if c["verb"] != "none"]

    # --- The journal, read without the engine -----------------------------------------------------------------------

    def sequence(self) -> int:
        """Of the newest event; 0 before there is a journal."""
        return self._rows("select coalesce(max(sequence), 0) from events")[0][0] if self._journal.exists() else 0

    def events(self, run: str) -> list[tuple[str, str, dict[str, Any]]]:
        """Type, step and data of each event of a run, in order."""
        rows = self._rows("select type, step, data from events where run = ? order by sequence", run)
        return [(kind, step, json.loads(data)) for kind, step, data in rows]

    def count(self, run: str) -> int:
        """How many events a run has."""
        return self._rows("select count(*) from events where run = ?", run)[0][0]

    def await_run(self, process: subprocess.Popen[bytes], after: int, events: int) -> str:
        """The id of the run that `process` began after that event, once it has as many events or has ended."""
        while process.poll() is None:
            run = self.begun_after(after)
            if run and self.count(run) >= events:
                return run
            time.sleep(0.02)  # between two looks into the journal
        return self.begun_after(after)

    def begun_after(self, sequence: int) -> str:
        """The run that began after an event; empty when there is none."""
        rows = self._rows("select run from events where sequence > ? and type = 'run-started'", sequence)
        return rows[0][0] if rows else ""

    def journal_is_free(self) -> bool:
        """Nobody is in the middle of a write."""
        with closing(sqlite3.connect(self._journal, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("begin immediate")
            except sqlite3.OperationalError:
                return False
            connection.execute("rollback")
            return True

    @property
    def _journal(self) -> Path:
        return self.root / STATE / "journal.db"

    def _rows(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self._journal}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(query, arguments).fetchall()


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "160", **more}
