"""`record`: the real deployment record, of a journal into which a secret came through the redactor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.actions.record import RecordAction, RecordParams
from engine.core.change import Outcome
from engine.core.history import runs
from engine.core.redaction import Redactor
from engine.report.html import render_html
from engine.report.record import render
from tests.contract.conformance.subject import ENVIRONMENT, Ledger, Subject

CANARY = "canary-7f3a9c51d2"


@contextmanager
def make(request, tmp_path) -> Iterator[Subject]:
    redactor, folder = Redactor(), tmp_path / "project"
    redactor.register(CANARY)
    ledger = Ledger(tmp_path, redactor)
    ledger.outcome("earlier/phase/step", Outcome(f"the token is {CANARY}", evidence={"token": CANARY}))

    def history(ctx) -> dict[str, str]:
        run = ctx.key.partition("/")[0]
        ledger.intent(ctx.key)
        views = runs(ledger.journal.events())
        return {
            "md": render(views[run]) + render(views["earlier"]),
            "html": render_html(views[run]) + render_html(views["earlier"]),
        }

    def files() -> list:
        return [f for f in folder.rglob("*") if f.is_file()]

    yield Subject(
        action=RecordAction(folder, ENVIRONMENT, history, ledger.evidence),
        params=RecordParams(path="records"),
        world=lambda: {"effects": len([f for f in files() if f.suffix == ".md"])},
        ledger=ledger,
        after_kill="again",
        canaries=lambda: [CANARY],
        stored=lambda: b"".join(f.read_bytes() for f in files()),
        redactor=redactor,
        cuts=(0,),
    )
    ledger.journal.close()
