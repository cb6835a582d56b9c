"""Every error a user can meet. One root; adapters translate outside errors into these at the boundary, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RunbookError(Exception):
    """Says what happened, where, and what to do. `exit_code` is the process's answer when nothing handles it."""

    exit_code = 5


class TemporaryError(RunbookError):
    """The outside system may answer differently soon: a timeout, 429, 5xx, a leader election. Retried."""


class PermanentError(RunbookError):
    """Asking again cannot help: a refused request, a missing right, a malformed object. Never retried."""


class NotYetError(RunbookError):
    """What the step speaks to does not exist yet; an earlier step creates it. Makes a plan `deferred`."""


class InDoubtError(RunbookError):
    """An action cannot know whether its effect happened; a person must look. Names what to look at."""

    exit_code = 4


class RefusedError(RunbookError):
    """The engine will not act: stale target, environment held, frozen, not approved. Nothing was changed."""

    exit_code = 4


class CancelledError(RunbookError):
    """The user asked to stop (Ctrl-C, SIGTERM). What was begun is in the journal; `resume` goes on."""

    exit_code = 130


class UsageError(RunbookError):
    """Bad arguments or files. Nothing was touched."""

    exit_code = 64


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where in a file: 1-based line and column, `file` relative to the project's root."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake in a file: where, what, the source line, and how many characters to underline."""

    position: Position
    message: str
    line: str = ""
    width: int = 1
    severity: str = "error"  # or "warning"

    def render(self) -> str:
        """The three-line form of a mistake: message, the line, carets under what is meant."""
        head = f"{self.position}  {self.message}"
        if not self.line:
            return head
        gutter = f"{self.position.line:>5} | "
        under = " " * (len(gutter) + self.position.column - 1) + "^" * max(1, self.width)
        return f"{head}\n{gutter}{self.line}\n{under}"


class FilesError(UsageError):
    """Mistakes in files, all of them at once."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(diagnostics, key=lambda d: d.position))
        count = len(self.diagnostics)
        body = "\n".join(d.render() for d in self.diagnostics)
        super().__init__(f"{body}\n{count} error{'s' if count != 1 else ''}. Nothing was touched.")
