"""`report`: a run's deployment record as Markdown, HTML or JSON, from the journal alone."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import options as o
from engine.cli.journal import found_run
from engine.cli.opening import journal_events
from engine.cli.output import Output
from engine.core.evidence import Beside
from engine.core.history import RunView, runs
from engine.errors import UsageError


class ReportFormat(StrEnum):
    """How a record is written."""

    MARKDOWN = "md"
    HTML = "html"
    JSON = "json"


Form = Annotated[ReportFormat, typer.Option("--format", help="`html` is one file that asks for nothing outside it.")]
OutFile = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there instead.")]
LastRun = Annotated[str, typer.Argument(metavar="RUN", help="A run's id; default: the newest deploy.")]


@o.speaking
def report(output: Output, run: LastRun = "", form: Form = ReportFormat.MARKDOWN, out: OutFile = None) -> int:
    """A run's deployment record: what was done, by whom, what proved it, what stays. `--json` is `--format json`."""
    view = found_run(run)[0] if run else _newest()
    told = _beside(view)
    wanted = ReportFormat.JSON if output.as_json and out is None else form
    if out is None:
        if wanted is ReportFormat.JSON:
            output.document(_document(view, told))
        else:
            output.lines([_text(view, wanted, told).rstrip("\n")])
        return 0
    try:
        out.write_text(_text(view, wanted, told), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"record {out}: {error.strerror}") from error
    output.answer({"schema": 1, "file": str(out), "run": view.id}, [f"✓ {out}   run {view.id} of {view.environment}"])
    return 0


def _newest() -> RunView:
    found = [v for v in runs(journal_events()).values() if v.kind == "deploy" and v.environment]
    if not found:
        raise UsageError("no run yet: a record is made of one")
    return found[-1]


def _beside(view: RunView) -> Beside:
    from engine import wiring

    return wiring.beside(wiring.find_root(Path.cwd()), view, journal_events())


def _text(view: RunView, form: ReportFormat, told: Beside) -> str:
    if form is ReportFormat.HTML:
        from engine.report.html import render_html

        return render_html(view, told)
    if form is ReportFormat.JSON:
        import json

        return json.dumps(_document(view, told), indent=2, ensure_ascii=False) + "\n"
    from engine.report.record import render

    return render(view, told)


def _document(view: RunView, told: Beside) -> dict[str, object]:
    from engine.report.documents import record_document

    return record_document(view, told)
