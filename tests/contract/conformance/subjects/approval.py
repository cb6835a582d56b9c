"""`approval` with the real terminal asker, whose input always says yes."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from engine.actions.approval import ApprovalAction, ApprovalParams
from engine.adapters.terminal import TerminalAsker
from engine.core.redaction import Redactor
from tests.contract.conformance.subject import STEP, Ledger, Subject


@contextmanager
def make(request, tmp_path) -> Iterator[Subject]:
    redactor = Redactor()
    ledger = Ledger(tmp_path, redactor)
    request.getfixturevalue("monkeypatch").setattr(sys, "stdin", io.StringIO("yes\n" * 20))

    def approvals() -> int:
        kept = [e for e in ledger.journal.events() if e.type == "outcome" and e.step == STEP]
        return len({e.run for e in kept if e.data["evidence"]["plan"] == "digest"})

    yield Subject(
        action=ApprovalAction(TerminalAsker(interactive=True), ledger.evidence, lambda _ctx: "digest"),
        params=ApprovalParams(question="Go on?", role="owner"),
        world=lambda: {"effects": approvals()},
        ledger=ledger,
        after_kill="again",
        redactor=redactor,
        cuts=(0,),
    )
    ledger.journal.close()
