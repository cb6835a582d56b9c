"""`command` with a real process that appends to a file: plain, leaving a file behind, and declared repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.actions.command import CommandAction, CommandParams
from engine.adapters.launcher import ProcessLauncher
from engine.core.redaction import Redactor
from tests.contract.conformance.subject import Ledger, Subject

CANARY = "canary-7f3a9c51d2"
_SCRIPT = 'echo once >> "$1"; echo "the token is $TOKEN" | tee /dev/stderr; [ -z "$2" ] || : > "$2"'


@contextmanager
def make(request, tmp_path, *, creates: bool = False, repeatable: bool = False) -> Iterator[Subject]:
    log, mark, redactor = tmp_path / "log", tmp_path / "mark" if creates else "", Redactor()
    ledger = Ledger(tmp_path, redactor)
    redactor.register(CANARY)
    params = CommandParams(
        argv=["sh", "-c", _SCRIPT, "sh", str(log), str(mark)],
        env={"TOKEN": CANARY},
        creates=str(mark),
        repeatable=repeatable,
    )
    yield Subject(
        action=CommandAction(ProcessLauncher(tmp_path / "state", redactor, "conformance"), ledger.evidence),
        params=params,
        world=lambda: {"effects": len(log.read_text().splitlines()) if log.exists() else 0},
        ledger=ledger,
        after_kill="found" if creates else "again" if repeatable else "doubt",
        standing=creates,
        canaries=lambda: [CANARY],
        stored=(tmp_path / "journal.db").read_bytes,
        redactor=redactor,
        cuts=(0,),  # stopped later it has had its effect, and a person must look
    )
    ledger.journal.close()
