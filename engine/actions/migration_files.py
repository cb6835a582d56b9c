"""A folder of numbered SQL files, and how it compares with what a database says was applied. Pure but for reading."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.core.sql_script import mistakes
from engine.errors import PermanentError, RefusedError

_NAME = re.compile(r"^(\d{4})-[a-z0-9][a-z0-9._-]*\.sql$")
_LARGEST = 4 << 20  # bytes; a file travels whole, and in one statement


@dataclass(frozen=True, slots=True)
class MigrationFile:
    """One file: `0001-accounts.sql`."""

    number: int
    name: str
    text: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text).hexdigest()


@dataclass(frozen=True, slots=True)
class Applied:
    """What the database recorded of one file."""

    number: int
    name: str
    sha256: str
    at: str
    """UTC, ISO 8601."""


def read_folder(folder: Path, named: str, *, whole: bool = True) -> list[MigrationFile]:
    """The folder's `*.sql`, by number. `named` is what the runbook calls it; `whole`: no number may be missing.

    PermanentError tells every file that cannot be one transaction, names that have no number, and missing numbers.
    """
    if not folder.is_dir():
        raise PermanentError(f"{named} is not a folder of migrations (0001-name.sql, 0002-name.sql, …)")
    problems: list[str] = []
    files: list[MigrationFile] = []
    for path in sorted(folder.glob("*.sql")):
        matched = _NAME.match(path.name)
        if matched is None:
            problems.append(f"{path.name}: a migration is named 0001-name.sql, in lower case")
            continue
        problems += [f"{path.name}:{line}:{column}: {message}" for line, column, message, _ in problems_in(path)]
        files.append(MigrationFile(int(matched[1]), path.name, path.read_bytes()))
    problems += _out_of_order(files) if whole else []
    if problems:
        raise PermanentError("\n".join(f"{named.rstrip('/')}/{problem}" for problem in problems))
    return files


def _out_of_order(files: Sequence[MigrationFile]) -> list[str]:
    """The first file that does not have the next number."""
    for expected, file in enumerate(files, 1):
        if file.number == expected - 1 and expected > 1:
            return [f"{file.name}: number {file.number:04} is there twice"]
        if file.number != expected:
            return [f"{file.name}: number {expected:04} is missing before it"]
    return []


def problems_in(path: Path) -> list[tuple[int, int, str, int]]:
    """What keeps one file from being one transaction: line, column, what, how many characters."""
    content = path.read_bytes()
    if len(content) > _LARGEST:
        return [(1, 1, f"{len(content)} bytes; at most {_LARGEST} can be one migration: load data some other way", 1)]
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return [(content.count(b"\n", 0, error.start) + 1, 1, "is not UTF-8", 1)]
    return [(found.line, found.column, found.message, found.width) for found in mistakes(text)]


def pending(files: Sequence[MigrationFile], applied: Sequence[Applied], named: str, source: str) -> list[MigrationFile]:
    """The files still to be applied, in order. RefusedError when what was applied is not what lies in the folder."""
    by_number: Mapping[int, MigrationFile] = {file.number: file for file in files}
    newest = max((row.number for row in applied), default=0)
    problems = [problem for row in applied if (problem := _moved(row, by_number.get(row.number), named))]
    numbers = {row.number for row in applied}
    problems += [
        f"{file.name} was never applied, but {newest:04} was, which comes after it: give it a number above {newest:04}"
        for file in files
        if file.number < newest and file.number not in numbers
    ]
    if problems:
        raise RefusedError("\n".join(f"{source}: {problem}. Nothing was changed." for problem in problems))
    return [file for file in files if file.number > newest]


def _moved(row: Applied, file: MigrationFile | None, named: str) -> str:
    if file is None:
        return (
            f"{row.name} was applied at {row.at} and is not in {named}: bring it back (is an older tree checked out?)"
        )
    if file.name != row.name:
        return f"number {row.number:04} was applied as {row.name} at {row.at} and is now {file.name}: name it as it was"
    if file.sha256 != row.sha256:
        return (
            f"{file.name} was changed after it was applied at {row.at} (sha256 then {row.sha256[:12]}, now "
            f"{file.sha256[:12]}): put its text back, and write the change as a new file"
        )
    return ""
