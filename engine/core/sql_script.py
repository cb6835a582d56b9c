"""What a file of SQL holds that cannot be part of one transaction. Found by its tokens alone; no server is asked.

Only enough of PostgreSQL's lexical rules is known here to tell statements from strings, comments and bodies of
functions ("Lexical Structure" in its manual). The server itself is the guard at run time; this tells sooner, and where.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<line_comment> --[^\n]* )
    | (?P<comment> /\* )
    | (?P<escaped> [eE]'(?:[^'\\]|\\.|'')*(?P<escaped_end>')? )
    | (?P<string> '(?:[^']|'')*(?P<string_end>')? )
    | (?P<name> "(?:[^"]|"")*(?P<name_end>")? )
    | (?P<dollar> \$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$ )
    | (?P<word> [A-Za-z_\x80-\U0010ffff][\w$]* )
    | (?P<mark> [;()\\] )
    """,
    re.VERBOSE | re.DOTALL,
)
_ENDS = {"COMMIT", "END", "ROLLBACK", "ABORT", "BEGIN", "START TRANSACTION", "SAVEPOINT", "RELEASE"}
_ENDS |= {"PREPARE TRANSACTION"}
_OUTSIDE = {"VACUUM", "CREATE DATABASE", "DROP DATABASE", "CREATE TABLESPACE", "DROP TABLESPACE", "ALTER SYSTEM"}
_CONCURRENT = {"CREATE", "DROP", "REINDEX"}  # a materialised view may be refreshed concurrently in a transaction


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong, at a 1-based line and column; `width` characters are meant."""

    line: int
    column: int
    message: str
    width: int = 1


@dataclass(frozen=True, slots=True)
class _Token:
    at: int
    text: str
    """A word in upper case, a mark as it is."""


def mistakes(text: str) -> list[Mistake]:
    """Statements that end or begin a transaction, that cannot run inside one, or that only psql understands."""
    found: list[tuple[int, int, str]] = []
    statements = 0
    for statement in _statements(_tokens(text, found)):
        statements += 1
        if problem := _problem(statement):
            found.append((statement[0].at, len(statement[0].text), problem))
    if not statements and not found:
        found.append((0, 1, "holds no statement"))
    return [_placed(text, *each) for each in sorted(found)]


def _problem(statement: list[_Token]) -> str:
    words = [token.text for token in statement]
    first, two = words[0], " ".join(words[:2])
    if first == "\\":
        return "a command of psql (\\) is not understood here: write it as SQL"
    for ending in (first, two):
        if ending in _ENDS:
            return f"{ending} is not allowed: the file is one transaction, together with the row that records it"
    concurrently = first in _CONCURRENT and "CONCURRENTLY" in words[:7]
    outside = next((name for name in (first, two) if name in _OUTSIDE), "")
    if concurrently or outside:
        name = outside or f"{first} … CONCURRENTLY"
        return f"{name} cannot run in a transaction, which a migration is: do it in a `command` step"
    if first == "COPY" and ("STDIN" in words or "STDOUT" in words):
        return "COPY from or to the client is not possible here: write INSERT"
    return ""


def _statements(tokens: Iterator[_Token]) -> Iterator[list[_Token]]:
    """Split at semicolons, but not within parentheses or in the body of a function (BEGIN ATOMIC … END)."""
    statement: list[_Token] = []
    parentheses = bodies = 0
    for token in tokens:
        if token.text == ";" and parentheses <= 0 and not bodies:
            if statement:
                yield statement
            statement, parentheses = [], 0
            continue
        parentheses += {"(": 1, ")": -1}.get(token.text, 0)
        if bodies:
            bodies += {"CASE": 1, "END": -1}.get(token.text, 0)
        elif token.text == "ATOMIC" and statement and statement[-1].text == "BEGIN" and statement[0].text == "CREATE":
            bodies = 1
        statement.append(token)
    if statement:
        yield statement


def _tokens(text: str, found: list[tuple[int, int, str]]) -> Iterator[_Token]:
    """Words and marks outside of strings and comments. What never ends is added to `found`."""
    at = 0
    while match := _TOKEN.search(text, at):
        kind, at = str(match.lastgroup), match.end()
        start, end = match.start(), match.end()
        if match["comment"]:
            at = _comment_end(text, end)
            kind = "comment"
        elif match["dollar"]:
            close = text.find(match["dollar"], end)
            at, kind = (close + len(match["dollar"]), "dollar") if close >= 0 else (-1, "dollar-quoted text")
        elif any(match[quoted] and not match[f"{quoted}_end"] for quoted in ("escaped", "string", "name")):
            at, kind = -1, "quoted text"
        if at < 0:
            found.append(
                (start, end - start if kind != "quoted text" else 1, f"the {kind} that begins here never ends")
            )
            return
        if match["word"] or match["mark"]:
            yield _Token(start, match[0].upper())


def _comment_end(text: str, at: int) -> int:
    """Where a comment that begins before `at` ends; they nest. -1: nowhere."""
    depth = 1
    for match in re.finditer(r"/\*|\*/", text[at:]):
        depth += 1 if match[0] == "/*" else -1
        if not depth:
            return at + match.end()
    return -1


def _placed(text: str, at: int, width: int, message: str) -> Mistake:
    line = text.count("\n", 0, at) + 1
    return Mistake(line, at - (text.rfind("\n", 0, at) + 1) + 1, message, width)
