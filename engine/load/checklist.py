"""From `checklist.yml` beside a runbook to its lines, each with what shows it or why nothing does."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.core.checklist import Checklist, Line
from engine.core.evidence import ProofKind
from engine.errors import Diagnostic, FilesError, UsageError
from engine.load import yaml
from engine.load.proofs import ProofEntry, ProofReader
from engine.load.runbook import LoadedRunbook
from engine.load.validation import diagnostics

FILE = "checklist.yml"
_STRICT = ConfigDict(extra="forbid", strict=True)


class LineFile(BaseModel):
    """One line, with `proofs` or with the reason why there are none: `missing`."""

    model_config = _STRICT

    text: str = Field(min_length=1, description="The line.")
    proofs: list[ProofEntry] = Field(default_factory=list, description="What shows it.")
    missing: str | None = Field(None, min_length=1, description="Why nothing shows it yet.")

    @model_validator(mode="after")
    def _one(self) -> LineFile:
        if bool(self.proofs) == bool(self.missing):
            raise ValueError("should have proofs, or say why they are missing")
        return self


class SectionFile(BaseModel):
    """Lines under one heading."""

    model_config = _STRICT

    section: str = Field(min_length=1, description="The heading.")
    lines: list[LineFile] = Field(min_length=1, description="In order.")


class ChecklistFile(BaseModel):
    """`checklist.yml`."""

    model_config = _STRICT

    title: str = Field(min_length=1, description="Of the whole list.")
    sections: list[SectionFile] = Field(min_length=1, description="In order.")


def has_checklist(loaded: LoadedRunbook) -> bool:
    """Whether the runbook has one at all."""
    return (loaded.folder / FILE).is_file()


def load_checklist(root: Path, loaded: LoadedRunbook, attestable: Collection[str]) -> Checklist:
    """UsageError when the runbook has none, FilesError with every mistake in the file."""
    if not has_checklist(loaded):
        raise UsageError(f"the runbook {loaded.runbook.name} has no {FILE}")
    checklist, problems = read_checklist(root, loaded, attestable)
    if problems or checklist is None:
        raise FilesError(problems)
    return checklist


def read_checklist(
    root: Path, loaded: LoadedRunbook, attestable: Collection[str]
) -> tuple[Checklist | None, list[Diagnostic]]:
    """The lines as far as they can be read, and all mistakes. `attestable`: ids that may be stated."""
    try:
        document = yaml.read(root, loaded.folder / FILE)
    except FilesError as error:
        return None, list(error.diagnostics)
    try:
        file = ChecklistFile.model_validate(document.data)
    except ValidationError as error:
        return None, diagnostics(error, document, (), ChecklistFile, document.data, what="the checklist")
    reader = ProofReader(document, loaded, root, attestable)
    lines = []
    for place, section in enumerate(file.sections):
        for number, line in enumerate(section.lines):
            route = ("sections", place, "lines", number, "proofs")
            proofs = tuple(reader.proof(p, (*route, index)) for index, p in enumerate(line.proofs))
            missing = line.missing or next((p.name for p in proofs if p.kind is ProofKind.NOTHING), "")
            lines.append(Line(section.section, line.text, proofs, missing))
    return Checklist(file.title, tuple(lines)), reader.problems
