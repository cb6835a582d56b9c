"""From a file of `drills/` to a `Drill`: every mistake with its place, as in a phase file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.core.drill import Drill, Stage, Targets
from engine.core.model import Runbook, Step, StepId
from engine.errors import Diagnostic, FilesError, Position, UsageError
from engine.load import yaml
from engine.load.document import Document, Route, guess, listed
from engine.load.drill_format import MEANINGLESS, OF_A_BLOW, REFERENCE, DrillFile, SentinelsFile
from engine.load.format import KEYWORDS
from engine.load.resolve import CHECK_ACTION
from engine.load.runbook import LoadedRunbook
from engine.load.steps import Source, StepReader
from engine.load.validation import diagnostics

FOLDER = "drills"
_INSTEAD: Mapping[str, Any] = {
    "title": "?",
    "targets": {"rpo": "0s", "rto": "0s"},
    "sentinels": {},
    "fault": {},
    "detect": {"steps": ["?"]},
    "recover": [{}],
    "verify": {},
}
"""What stands where a part of a file is missing or wrong, while the other parts are read."""


@dataclass(frozen=True, slots=True)
class DrillKeys:
    """The keys a drill may use: Params models of actions, checks, faults, and ways to write sentinels."""

    actions: Mapping[str, type]
    checks: Mapping[str, type]
    faults: Mapping[str, type] = field(default_factory=dict)
    sentinels: Mapping[str, type] = field(default_factory=dict)

    @property
    def steps(self) -> Mapping[str, type]:
        """All that a step of a drill may be."""
        return {**self.actions, **self.faults, **self.sentinels}


@dataclass(frozen=True, slots=True)
class ReadDrill:
    """One file, read. `drill` is None when too much of it is wrong; `loaded`: the runbook with its steps' places."""

    name: str
    drill: Drill | None
    loaded: LoadedRunbook
    problems: tuple[Diagnostic, ...]
    steps: tuple[Step, ...] = ()
    """Those of its own that can be read, in the order they are carried out."""
    registered: frozenset[str] = frozenset()
    """What the steps of the runbook that it carries out put out."""


@dataclass(slots=True)
class _Reader:
    """What collects while one file is read."""

    document: Document
    loaded: LoadedRunbook
    keys: DrillKeys
    unread: bool
    """The runbook has mistakes of its own: what seems to be missing may only not have been read."""
    problems: list[Diagnostic] = field(default_factory=list)
    sources: dict[StepId, Source] = field(default_factory=dict)
    own: list[Step] = field(default_factory=list)
    carried: list[Step] = field(default_factory=list)
    """Steps of the runbook that are carried out too."""

    @property
    def runbook(self) -> Runbook:
        return self.loaded.runbook

    def problem(self, route: Route, message: str, *, key: bool = False) -> None:
        self.problems.append(self.document.problem(route, message, key=key))

    def blow(
        self, data: Mapping[str, Any], key: str, stage: Stage, known: Mapping[str, type], name: str
    ) -> Step | None:
        """The sentinels or the fault: a step of a fixed name, with next to no keywords."""
        for word in data:
            if word in KEYWORDS and word not in OF_A_BLOW:
                self.problem((key, word), f'"{word}" has no meaning here (known: {listed(OF_A_BLOW)})', key=True)
        kept = {k: v for k, v in data.items() if k in OF_A_BLOW or k not in KEYWORDS}
        return self.step(
            {"id": "sentinels" if stage is Stage.WRITE else "fault", "name": name, **kept}, (key,), stage, known
        )

    def step(self, data: Mapping[str, Any], route: Route, stage: Stage, known: Mapping[str, type]) -> Step | None:
        """One step as in a phase file; only its own keys are shown as known."""
        reader = StepReader(self.document, stage.value, known, self.keys.checks, self.loaded.scope)
        entry = reader.read(data, route)
        self.problems += reader.problems
        if entry is None or not entry.steps:
            return None
        step = entry.steps[0]
        if step.id in self.sources or step.id in self.loaded.sources:
            self.problem(route, f'a second step "{step.id}"')
            return None
        self.sources[step.id] = entry.source
        self.own.append(step)
        return step

    def steps(self, entries: list[dict[str, Any]], key: str, stage: Stage) -> tuple[Step, ...]:
        found: dict[StepId, Step] = {}
        for index, data in enumerate(entries):
            route: Route = (key, index)
            if REFERENCE in data:
                step = self._referring(data, route)
            else:
                for word in (w for w in MEANINGLESS if w in data):
                    message = (
                        f'"{word}" has no meaning in a drill: its steps follow one another, nothing is rolled back'
                    )
                    self.problem((*route, word), message, key=True)
                step = self.step(
                    {k: v for k, v in data.items() if k not in MEANINGLESS}, route, stage, self.keys.actions
                )
            if step is not None and step.id in found:
                self.problem(route, f"{step.id} is there already")
            elif step is not None:
                found[step.id] = step
        return tuple(found.values())

    def _referring(self, data: Mapping[str, Any], route: Route) -> Step | None:
        for word in (w for w in data if w != REFERENCE):
            self.problem((*route, word), f'"{REFERENCE}" stands alone: the runbook says how the step is', key=True)
        step = self.reference(data[REFERENCE], (*route, REFERENCE))
        self.carried += [step] if step else []
        return step

    def reference(self, name: Any, route: Route) -> Step | None:
        """A step of the runbook. None, and a mistake, when there is none."""
        try:
            return self.runbook.step(name)
        except KeyError:
            if not self.unread:
                known = [s.id for s in self.runbook.steps()]
                self.problem(
                    route, f'no step "{name}" in the runbook, or several of that name{guess(str(name), known)}'
                )
            return None

    def noticing(self, names: list[str]) -> tuple[StepId, ...]:
        """The steps that must notice: each looks at something."""
        found: dict[StepId, None] = {}
        for index, name in enumerate(names):
            step = self.reference(name, ("detect", "steps", index))
            if step is not None and not _looks(step):
                self.problem(("detect", "steps", index), f"{step.id} has no checks: it cannot notice anything")
            elif step is not None:
                found[step.id] = None
        return tuple(found)

    def proving(self, phases: list[str], steps: list[str]) -> tuple[StepId, ...]:
        """The steps that must prove the recovery; some may be without checks, not all."""
        found: dict[StepId, Step] = {}
        before = len(self.problems)
        for index, name in enumerate(phases):
            try:
                found |= {step.id: step for step in self.runbook.phase(name).steps}
            except KeyError:
                known = [phase.id for phase in self.runbook.phases]
                if not self.unread:
                    message = f'no phase "{name}"{guess(name, known)} (phases: {listed(known)})'
                    self.problem(("verify", "phases", index), message)
        named = (self.reference(name, ("verify", "steps", index)) for index, name in enumerate(steps))
        found |= {step.id: step for step in named if step is not None}
        if not any(_looks(s) for s in found.values()) and len(self.problems) == before and not self.unread:
            self.problem(("verify",), "names no step with a check: nothing proves the recovery", key=True)
        return tuple(found)


def drill_names(folder: Path) -> list[str]:
    """The drills beside a runbook."""
    return sorted(p.stem for p in (folder / FOLDER).glob("*.yml"))


def read_drills(root: Path, loaded: LoadedRunbook, keys: DrillKeys, *, unread: bool = False) -> list[ReadDrill]:
    """Every file of `drills/`, with its mistakes. `unread`: the runbook itself has some."""
    found = [_read(root, loaded, name, keys, unread=unread) for name in drill_names(loaded.folder)]
    for path in sorted((loaded.folder / FOLDER).glob("*.yaml")):
        place = Position(path.relative_to(root).as_posix(), 1, 1)
        problem = Diagnostic(place, f"is not read: name it {path.stem}.yml")
        found.append(ReadDrill(path.stem, None, loaded, (problem,)))
    return found


def load_drill(root: Path, loaded: LoadedRunbook, name: str, keys: DrillKeys) -> tuple[Drill, LoadedRunbook]:
    """One drill. UsageError when there is none of that name, FilesError with every mistake in its file."""
    there = drill_names(loaded.folder)
    if name not in there:
        wrong = loaded.folder / FOLDER / f"{name}.yaml"
        hint = f"; {FOLDER}/{wrong.name} is not read: name it {name}.yml" if wrong.exists() else guess(name, there)
        raise UsageError(f'no drill "{name}"{hint}; {loaded.folder.name}/{FOLDER}/ holds: {listed(there)}')
    read = _read(root, loaded, name, keys, unread=False)
    if read.problems or read.drill is None:
        raise FilesError(read.problems)
    return read.drill, read.loaded


def _read(root: Path, loaded: LoadedRunbook, name: str, keys: DrillKeys, *, unread: bool) -> ReadDrill:
    try:
        document = yaml.read(root, loaded.folder / FOLDER / f"{name}.yml")
    except FilesError as error:
        return ReadDrill(name, None, loaded, error.diagnostics)
    data = document.data
    if not isinstance(data, dict):
        problem = document.problem((), "a drill should be a mapping, and this file is not one")
        return ReadDrill(name, None, loaded, (problem,))
    wrong: set[str] = set()
    reader = _Reader(document, loaded, keys, unread)
    try:
        file = DrillFile.model_validate(data)
    except ValidationError as error:
        reader.problems += diagnostics(error, document, (), DrillFile, data, what="the drill")
        wrong = {str(e["loc"][0]) for e in error.errors()}
        kept = {k: v for k, v in data.items() if k not in wrong}
        file = DrillFile.model_validate({"drill": name, **_INSTEAD, **kept})
    drill = _drill(reader, file, name, wrong)
    merged = replace(
        loaded,
        sources={**loaded.sources, **reader.sources},
        scope=replace(loaded.scope, pending=frozenset(loaded.scope.pending) | _registered(reader.own)),
    )
    return ReadDrill(name, drill, merged, tuple(reader.problems), tuple(reader.own), _registered(reader.carried))


def _drill(reader: _Reader, file: DrillFile, name: str, wrong: Collection[str]) -> Drill | None:
    """The drill; None when a part of it that others build on could not be read. Parts in `wrong` are told already."""
    if file.drill != name and "drill" not in wrong:
        reader.problem(("drill",), f'the file is named "{name}": a drill has one name')
    words = sentinels = fault = None
    if "sentinels" not in wrong:
        words = _words(reader, file.sentinels)
        way = {key: value for key, value in file.sentinels.items() if key not in SentinelsFile.model_fields}
        sentinels = reader.blow(way, "sentinels", Stage.WRITE, reader.keys.sentinels, "Sentinels")
    prepare = reader.steps([] if "prepare" in wrong else file.prepare, "prepare", Stage.WRITE)
    if "fault" not in wrong:
        fault = reader.blow(file.fault, "fault", Stage.BREAK, reader.keys.faults, file.title)
    recover = reader.steps([] if "recover" in wrong else file.recover, "recover", Stage.ACT)
    detect = () if "detect" in wrong else reader.noticing(file.detect.steps)
    verify = () if "verify" in wrong else reader.proving(file.verify.phases, file.verify.steps)
    twice = {s.id for s in prepare} & {s.id for s in recover}
    if twice:
        reader.problem(("recover",), f"{listed(twice)} stands in `prepare` and in `recover`", key=True)
    if sentinels is None or fault is None or words is None:
        return None
    return Drill(
        id=name,
        title=file.title,
        position=reader.document.mark(("drill",), key=True).position,
        targets=Targets(file.targets.rpo, file.targets.rto),
        sentinels=sentinels,
        rate=float(words.rate),
        before=words.before,
        fault=fault,
        within=file.detect.within,
        patience=file.verify.within,
        prepare=prepare,
        detect=detect,
        recover=recover,
        verify=verify,
    )


def _words(reader: _Reader, data: Mapping[str, Any]) -> SentinelsFile | None:
    given = {key: value for key, value in data.items() if key in SentinelsFile.model_fields}
    try:
        return SentinelsFile.model_validate(given)
    except ValidationError as error:
        what = "sentinels"
        reader.problems += diagnostics(error, reader.document, ("sentinels",), SentinelsFile, given, what=what)
        return None


def _looks(step: Step) -> bool:
    return step.action == CHECK_ACTION or bool(step.verify)


def _registered(steps: Iterable[Step]) -> frozenset[str]:
    return frozenset(step.register for step in steps if step.register)
