"""From a file of `drills/` to a `Drill`: every mistake with its place, as in a phase file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.core.drill import Drill, Stage, Targets
from engine.core.model import Runbook, Step, StepId
from engine.errors import Diagnostic, FilesError, UsageError
from engine.load import yaml
from engine.load.document import Document, Route, guess, listed
from engine.load.format import Duration, Slug
from engine.load.runbook import LoadedRunbook
from engine.load.steps import Source, StepReader
from engine.load.validation import diagnostics

FOLDER = "drills"
_STRICT = ConfigDict(extra="forbid", strict=True)
_REFERENCE = "deploy"


class TargetsFile(BaseModel):
    """What the drill is measured against."""

    model_config = _STRICT

    rpo: Duration = Field(description="The most that may be lost, as time before the fault: 24h.")
    rto: Duration = Field(description="The longest from the fault until all checks pass: 15m.")


class SentinelsFile(BaseModel):
    """How sentinels are written, beside the one key that names the way."""

    model_config = _STRICT

    rate: int | float = Field(5, gt=0, le=100, description="How many a second.")
    before: Duration = Field(timedelta(seconds=5), description="How long before the fault, and again after `prepare`.")


class DetectFile(BaseModel):
    """Who must notice."""

    model_config = _STRICT

    steps: list[str] = Field(min_length=1, description="Steps whose checks are looked at: `phase/step`.")
    within: Duration = Field(timedelta(minutes=2), description="How long the fault may stay unnoticed.")


class VerifyFile(BaseModel):
    """What proves the recovery."""

    model_config = _STRICT

    phases: list[str] = Field(default_factory=list, description="Phases, with every check of every step.")
    steps: list[str] = Field(default_factory=list, description="More steps: `phase/step`.")
    within: Duration = Field(timedelta(minutes=5), description="How long each step's checks may take to pass.")


class DrillFile(BaseModel):
    """A file of `drills/`."""

    model_config = _STRICT

    drill: Slug = Field(description="Its name, which is the file's too.")
    title: str = Field(description="The disaster, for a person.")
    targets: TargetsFile = Field(description="What may be lost, and how long it may take.")
    sentinels: dict[str, Any] = Field(description="Numbered writes: `rate`, `before`, and the way, as `sql`.")
    prepare: list[dict[str, Any]] = Field(
        default_factory=list, description="Steps carried out while sentinels are written, before the fault."
    )
    fault: dict[str, Any] = Field(description="What happens: one fault, and perhaps `timeout`.")
    detect: DetectFile = Field(description="Who must notice.")
    recover: list[dict[str, Any]] = Field(
        min_length=1, description="The way back: steps, or `deploy: phase/step` for one of the runbook."
    )
    verify: VerifyFile = Field(description="What proves the recovery.")


@dataclass(slots=True)
class _Reader:
    """One file, and what collects while it is read."""

    document: Document
    loaded: LoadedRunbook
    actions: Mapping[str, type]
    checks: Mapping[str, type]
    faults: Mapping[str, type]
    ways: Mapping[str, type]
    problems: list[Diagnostic] = field(default_factory=list)
    sources: dict[StepId, Source] = field(default_factory=dict)

    @property
    def runbook(self) -> Runbook:
        return self.loaded.runbook

    def entry(self, data: Mapping[str, Any], route: Route, stage: Stage, known: Mapping[str, type]) -> Step | None:
        """One step as in a phase file; only its own keys are shown as known."""
        reader = StepReader(self.document, stage.value, known, self.checks, self.loaded.scope)
        entry = reader.read(data, route)
        self.problems += reader.problems
        if entry is None:
            return None
        if len(entry.steps) != 1 or "loop" in data:
            self.problems.append(self.document.problem(route, "a loop is not possible in a drill"))
            return None
        step = entry.steps[0]
        if step.id in self.sources or step.id in self.loaded.sources:
            self.problems.append(self.document.problem(route, f'a second step "{step.id}"'))
            return None
        self.sources[step.id] = entry.source
        return step

    def steps(self, entries: list[dict[str, Any]], key: str, stage: Stage) -> tuple[Step, ...]:
        found: list[Step] = []
        for index, data in enumerate(entries):
            route: Route = (key, index)
            if set(data) == {_REFERENCE}:
                step = self.reference(data[_REFERENCE], (*route, _REFERENCE))
            else:
                step = self.entry(data, route, stage, self.actions)
            if step is not None and step.id in {s.id for s in found}:
                self.problems.append(self.document.problem(route, f"{step.id} is there already"))
            elif step is not None:
                found.append(step)
        return tuple(found)

    def reference(self, name: Any, route: Route) -> Step | None:
        """A step of the runbook. None, and a mistake, when there is none."""
        try:
            return self.runbook.step(name)
        except KeyError:
            known = [s.id for s in self.runbook.steps()]
            message = f'no step "{name}" in the runbook, or several{guess(str(name), known)}'
            self.problems.append(self.document.problem(route, message))
            return None

    def references(self, names: list[str], route: Route) -> list[StepId]:
        found = (self.reference(name, (*route, index)) for index, name in enumerate(names))
        return [step.id for step in found if step is not None]


def drill_names(folder: Path) -> list[str]:
    """The drills beside a runbook."""
    return sorted(p.stem for p in (folder / FOLDER).glob("*.yml"))


def read_drills(
    root: Path,
    loaded: LoadedRunbook,
    actions: Mapping[str, type],
    checks: Mapping[str, type],
    faults: Mapping[str, type],
    ways: Mapping[str, type],
) -> tuple[list[Drill], LoadedRunbook, list[Diagnostic]]:
    """Every drill that can be read, the runbook with the places of their steps, and all mistakes."""
    drills: list[Drill] = []
    problems: list[Diagnostic] = []
    for name in drill_names(loaded.folder):
        drill, loaded, found = _read(root, loaded, name, (actions, checks, faults, ways))
        problems += found
        drills += [drill] if drill else []
    return drills, loaded, problems


def load_drill(
    root: Path,
    loaded: LoadedRunbook,
    name: str,
    actions: Mapping[str, type],
    checks: Mapping[str, type],
    faults: Mapping[str, type],
    ways: Mapping[str, type],
) -> tuple[Drill, LoadedRunbook]:
    """One drill. UsageError when there is none of that name, FilesError with every mistake in its file."""
    there = drill_names(loaded.folder)
    if name not in there:
        raise UsageError(
            f'no drill "{name}"{guess(name, there)}; {loaded.folder.name}/{FOLDER}/ holds: {listed(there)}'
        )
    drill, merged, problems = _read(root, loaded, name, (actions, checks, faults, ways))
    if problems or drill is None:
        raise FilesError(problems)
    return drill, merged


def _read(
    root: Path, loaded: LoadedRunbook, name: str, types: tuple[Mapping[str, type], ...]
) -> tuple[Drill | None, LoadedRunbook, list[Diagnostic]]:
    actions, checks, faults, ways = types
    try:
        document = yaml.read(root, loaded.folder / FOLDER / f"{name}.yml")
    except FilesError as error:
        return None, loaded, list(error.diagnostics)
    if not isinstance(document.data, dict):
        return None, loaded, [document.problem((), "a drill should be a mapping, and this file is not one")]
    try:
        file = DrillFile.model_validate(document.data)
    except ValidationError as error:
        return None, loaded, diagnostics(error, document, (), DrillFile, document.data, what="the drill")
    reader = _Reader(document, loaded, actions, checks, faults, ways)
    drill = _drill(reader, file, name)
    merged = replace(
        loaded,
        sources={**loaded.sources, **reader.sources},
        scope=replace(loaded.scope, pending=frozenset(loaded.scope.pending) | _registered(drill)),
    )
    return drill, merged, reader.problems


def _drill(reader: _Reader, file: DrillFile, name: str) -> Drill | None:
    document = reader.document
    if file.drill != name:
        reader.problems.append(document.problem(("drill",), f'the file is named "{name}": a drill has one name'))
    words = _words(reader, file.sentinels)
    way = {key: value for key, value in file.sentinels.items() if key not in SentinelsFile.model_fields}
    sentinels = reader.entry({"id": "sentinels", **way}, ("sentinels",), Stage.WRITE, reader.ways)
    fault = reader.entry({"id": "fault", "name": file.title, **file.fault}, ("fault",), Stage.BREAK, reader.faults)
    if file.fault.get("id", "fault") != "fault":
        reader.problems.append(document.problem(("fault", "id"), "a fault has no id of its own", key=True))
    prepare = reader.steps(file.prepare, "prepare", Stage.WRITE)
    recover = reader.steps(file.recover, "recover", Stage.ACT)
    detect = reader.references(file.detect.steps, ("detect", "steps"))
    verify = _proofs(reader, file.verify)
    if {s.id for s in prepare} & {s.id for s in recover}:
        reader.problems.append(document.problem(("recover",), "a step stands in `prepare` and in `recover`", key=True))
    if sentinels is None or fault is None or words is None:
        return None
    return Drill(
        id=name,
        title=file.title,
        position=document.mark(("drill",), key=True).position,
        targets=Targets(file.targets.rpo, file.targets.rto),
        sentinels=sentinels,
        rate=float(words.rate),
        before=words.before,
        fault=fault,
        within=file.detect.within,
        patience=file.verify.within,
        prepare=prepare,
        detect=tuple(detect),
        recover=recover,
        verify=tuple(verify),
    )


def _words(reader: _Reader, data: Mapping[str, Any]) -> SentinelsFile | None:
    given = {key: value for key, value in data.items() if key in SentinelsFile.model_fields}
    try:
        return SentinelsFile.model_validate(given)
    except ValidationError as error:
        what = "sentinels"
        reader.problems += diagnostics(error, reader.document, ("sentinels",), SentinelsFile, given, what=what)
        return None


def _proofs(reader: _Reader, verify: VerifyFile) -> list[StepId]:
    found: dict[StepId, None] = {}
    for index, name in enumerate(verify.phases):
        try:
            found |= dict.fromkeys(step.id for step in reader.runbook.phase(name).steps)
        except KeyError:
            known = [phase.id for phase in reader.runbook.phases]
            message = f'no phase "{name}"{guess(name, known)} (phases: {listed(known)})'
            reader.problems.append(reader.document.problem(("verify", "phases", index), message))
    found |= dict.fromkeys(reader.references(verify.steps, ("verify", "steps")))
    if not verify.phases and not verify.steps:
        reader.problems.append(reader.document.problem(("verify",), "names no phase and no step: nothing proves it"))
    return list(found)


def _registered(drill: Drill | None) -> frozenset[str]:
    steps = (*drill.prepare, *drill.recover) if drill else ()
    return frozenset(step.register for step in steps if step.register)
