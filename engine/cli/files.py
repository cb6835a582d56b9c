"""Commands about a project's files: lint, schema, graph. They speak to no system."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import options as o
from engine.cli.output import Output
from engine.errors import Diagnostic, UsageError


class GraphFormat(StrEnum):
    """How `graph` draws."""

    TEXT = "text"
    DOT = "dot"


SchemaFolder = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="Write runbook.schema.json and phase.schema.json there instead."),
]
Format = Annotated[GraphFormat, typer.Option("--format", help="`dot` is for Graphviz: `| dot -Tsvg`.")]


@o.speaking
def lint(output: Output, environment: o.MaybeEnvironment = "", runbook: o.RunbookName = "") -> int:
    """Find every mistake in the files, with its place. With ENV also what that environment's variables break."""
    from engine import wiring
    from engine.report.documents import diagnostics_document

    found = wiring.lint(wiring.find_root(Path.cwd()), runbook or None, environment or None)
    output.answer(diagnostics_document(found), _found(found))
    return UsageError.exit_code if any(d.severity == "error" for d in found) else 0


@o.speaking
def schema(output: Output, out: SchemaFolder = None) -> int:
    """The JSON Schemas of runbook.yml and of phase files, for an editor's completion. Always JSON."""
    from engine import wiring

    schemas = wiring.schema(wiring.find_root(Path.cwd()))
    if out is None:
        output.document({"schema": 1, **schemas})
        return 0
    files = {out / f"{name}.schema.json": schemas[name] for name in schemas}
    for path, document in files.items():
        try:
            out.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"schema file {path}: {error.strerror}") from error
    output.answer({"schema": 1, "files": [str(p) for p in files]}, [f"✓ {path}" for path in files])
    return 0


@o.speaking
def graph(
    output: Output, environment: o.MaybeEnvironment = "", runbook: o.RunbookName = "", form: Format = GraphFormat.TEXT
) -> int:
    """What waits for what, as text or for Graphviz."""
    from engine import wiring
    from engine.report.graph import graph_document, graph_dot, graph_lines

    loaded = wiring.load(wiring.find_root(Path.cwd()), runbook or None, environment or None).runbook
    if form is GraphFormat.DOT and not output.as_json:
        output.lines([graph_dot(loaded)])
    else:
        output.answer(graph_document(loaded), graph_lines(loaded, width=output.width))
    return 0


def _found(found: list[Diagnostic]) -> list[str]:
    lines = [line for d in sorted(found, key=lambda d: d.position) for line in d.render().splitlines()]
    errors = sum(d.severity == "error" for d in found)
    warnings = len(found) - errors
    if not found:
        return ["✓ no mistakes found"]
    tail = f"{errors} error{'' if errors == 1 else 's'}"
    return [*lines, tail + (f", {warnings} warning{'' if warnings == 1 else 's'}" if warnings else "")]
