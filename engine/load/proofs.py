"""What may show a criterion or a line of a checklist, as written: read and held against the runbook."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.core.evidence import Proof, ProofKind
from engine.core.model import Step
from engine.errors import Diagnostic
from engine.load.document import Document, Route, guess, listed
from engine.load.drill import drill_names
from engine.load.format import Duration
from engine.load.resolve import CHECK_ACTION
from engine.load.runbook import LoadedRunbook


class ProofEntry(BaseModel):
    """One proof: exactly one of `step`, `evidence`, `drill`, `file`, `attestation`, `missing`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    step: str | None = Field(None, description="`phase/step`: its newest end, and its checks.")
    check: str | None = Field(None, description="Beside `step`: only its checks of this family count.")
    evidence: str | None = Field(None, description="`phase/step`: what it left, as a backup's proof. Its age counts.")
    drill: str | None = Field(None, description="A drill that met its targets.")
    file: str | None = Field(None, description="A file of the project that is there and not empty.")
    attestation: str | None = Field(None, description="An id of `attestations`: a person states and signs it.")
    missing: str | None = Field(None, min_length=1, description="Why nothing shows it yet: it cannot hold.")
    within: Duration | None = Field(None, description="How old the proof may be: 24h, 90d. Default: any age.")

    @model_validator(mode="after")
    def _one(self) -> ProofEntry:
        keys = ("step", "evidence", "drill", "file", "attestation", "missing")
        if sum(getattr(self, key) is not None for key in keys) != 1:
            raise ValueError(f"should name one of {', '.join(keys)}")
        if self.check is not None and self.step is None:
            raise ValueError("has a check without its step")
        if self.within is not None and (self.file or self.missing):
            raise ValueError("has an age for what has none")
        return self

    def proof(self) -> Proof:
        if self.step is not None:
            return Proof(ProofKind.CHECK if self.check else ProofKind.STEP, self.step, self.check or "", self.within)
        for kind in (ProofKind.EVIDENCE, ProofKind.DRILL, ProofKind.FILE):
            if (name := getattr(self, kind.value)) is not None:
                return Proof(kind, str(name), within=self.within)
        if self.missing is not None:
            return Proof(ProofKind.NOTHING, self.missing)
        return Proof(ProofKind.ATTESTATION, str(self.attestation), within=self.within)


@dataclass(slots=True)
class ProofReader:
    """Holds proofs against a runbook and collects what is wrong with them."""

    document: Document
    loaded: LoadedRunbook
    root: Path
    attestable: Collection[str]
    problems: list[Diagnostic] = field(default_factory=list)

    def proof(self, entry: ProofEntry, route: Route) -> Proof:
        """The proof, its step by its full name. A mistake is told and the proof stays as written."""
        found = entry.proof()
        if found.kind in (ProofKind.STEP, ProofKind.CHECK, ProofKind.EVIDENCE):
            return self._of_step(found, route)
        if found.kind is ProofKind.DRILL:
            self._known(found.name, drill_names(self.loaded.folder), "drill", (*route, "drill"))
        elif found.kind is ProofKind.ATTESTATION:
            self._known(found.name, self.attestable, "attestation", (*route, "attestation"))
        elif found.kind is ProofKind.FILE and (wrong := outside(self.root, found.name)):
            self._problem((*route, "file"), f'"{found.name}" {wrong}')
        return found

    def _of_step(self, found: Proof, route: Route) -> Proof:
        key = "evidence" if found.kind is ProofKind.EVIDENCE else "step"
        steps = list(self.loaded.runbook.steps())
        match = [s for s in steps if s.id == found.name]
        if not match:
            near = guess(found.name, [s.id for s in steps])
            turns = [s.id for s in steps if s.id.startswith(f"{found.name}[")]
            hint = f": it is a loop, name one turn ({listed(turns, most=3)})" if turns else near
            self._problem((*route, key), f'no step "{found.name}" in the runbook{hint}')
        elif found.check and found.check not in (there := families(match[0])):
            message = f'{found.name} has no check "{found.check}"{guess(found.check, there)} (it has: {listed(there)})'
            self._problem((*route, "check"), message)
        return found

    def _known(self, name: str, there: Collection[str], what: str, route: Route) -> None:
        if name not in there:
            self._problem(route, f'no {what} "{name}"{guess(name, there)} (there: {listed(there)})')

    def _problem(self, route: Route, message: str) -> None:
        self.problems.append(self.document.problem(route, message))


def families(step: Step) -> list[str]:
    """The families of a step's checks as written: of `verify`, and of the action `check`."""
    written = [*step.verify, *(step.params if step.action == CHECK_ACTION else ())]
    return sorted({key for entry in written if isinstance(entry, dict) for key in entry if key != "fresh"})


def outside(root: Path, name: str) -> str:
    """Why a name is no file inside the project; empty when it may be one. Links are followed."""
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts:
        return "leads outside the project: name a file relative to its root"
    if not (root / name).resolve().is_relative_to(root.resolve()):
        return "is a link that leads outside the project"
    return ""
