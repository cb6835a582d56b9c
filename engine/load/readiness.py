"""From `readiness.yml` beside a runbook to its criteria: every mistake with its place."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.core.evidence import Attestable, Criteria, Criterion
from engine.errors import Diagnostic, FilesError, UsageError
from engine.load import yaml
from engine.load.document import Document
from engine.load.format import Duration, Slug
from engine.load.proofs import ProofEntry, ProofReader
from engine.load.runbook import LoadedRunbook
from engine.load.validation import diagnostics

FILE = "readiness.yml"
_STRICT = ConfigDict(extra="forbid", strict=True)


class CriterionFile(BaseModel):
    """One criterion. All its proofs must hold: then a go criterion is met, a no-go criterion ruled out."""

    model_config = _STRICT

    id: Slug = Field(description="Its name in commands.")
    text: str = Field(min_length=1, description="As it is decided upon.")
    proofs: list[ProofEntry] = Field(min_length=1, description="What must be shown.")


class AttestableFile(BaseModel):
    """What a person may state, where no system can show it."""

    model_config = _STRICT

    text: str = Field(min_length=1, description="What is stated.")
    valid_for: Duration = Field(timedelta(days=365), description="The longest that one statement counts: 365d.")


class ReadinessFile(BaseModel):
    """`readiness.yml`."""

    model_config = _STRICT

    go: list[CriterionFile] = Field(min_length=1, description="All of them must be met.")
    no_go: list[CriterionFile] = Field(default_factory=list, description="Each must be ruled out.")
    attestations: dict[Slug, AttestableFile] = Field(
        default_factory=dict, description="What a person may state and sign: `runbook attest`."
    )


def has_readiness(loaded: LoadedRunbook) -> bool:
    """Whether the runbook has criteria at all."""
    return (loaded.folder / FILE).is_file()


def load_readiness(root: Path, loaded: LoadedRunbook) -> Criteria:
    """The criteria. UsageError when the runbook has none, FilesError with every mistake in the file."""
    if not has_readiness(loaded):
        raise UsageError(f"the runbook {loaded.runbook.name} has no {FILE}: write {_name(root, loaded)}")
    criteria, problems = read_readiness(root, loaded)
    if problems or criteria is None:
        raise FilesError(problems)
    return criteria


def read_readiness(root: Path, loaded: LoadedRunbook) -> tuple[Criteria | None, list[Diagnostic]]:
    """The criteria as far as they can be read, and all mistakes."""
    try:
        document = yaml.read(root, loaded.folder / FILE)
    except FilesError as error:
        return None, list(error.diagnostics)
    if not isinstance(document.data, dict):
        return None, [document.problem((), "should be a mapping with `go`, `no_go` and `attestations`")]
    try:
        file = ReadinessFile.model_validate(document.data)
    except ValidationError as error:
        what = "the readiness file"
        return None, diagnostics(error, document, (), ReadinessFile, document.data, what=what)
    reader = ProofReader(document, loaded, root, file.attestations)
    groups = [_criteria(reader, getattr(file, name), name) for name in ("go", "no_go")]
    attestable = {name: Attestable(name, a.text, a.valid_for) for name, a in file.attestations.items()}
    problems = [*reader.problems, *_repeated(document, file)]
    return Criteria(groups[0], groups[1], attestable), problems


def _criteria(reader: ProofReader, entries: list[CriterionFile], group: str) -> tuple[Criterion, ...]:
    found = []
    for index, entry in enumerate(entries):
        proofs = (reader.proof(p, (group, index, "proofs", number)) for number, p in enumerate(entry.proofs))
        position = reader.document.mark((group, index)).position
        found.append(Criterion(entry.id, entry.text, tuple(proofs), position))
    return tuple(found)


def _repeated(document: Document, file: ReadinessFile) -> list[Diagnostic]:
    seen: set[str] = set()
    found = []
    for group in ("go", "no_go"):
        for index, entry in enumerate(getattr(file, group)):
            if entry.id in seen:
                found.append(document.problem((group, index, "id"), f'a second criterion "{entry.id}"'))
            seen.add(entry.id)
    return found


def _name(root: Path, loaded: LoadedRunbook) -> str:
    return (loaded.folder / FILE).relative_to(root).as_posix()
