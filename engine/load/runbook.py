"""From the files of a runbook to the model: every mistake of every file at once, with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.core.model import Phase, Runbook, Step, StepId
from engine.core.order import CycleError, Graph
from engine.errors import Diagnostic, FilesError, Position, UsageError
from engine.load import yaml
from engine.load.document import Document, Route, guess, listed
from engine.load.format import PhaseFile, RunbookFile, slug
from engine.load.render import Scope, mistakes
from engine.load.steps import Entry, Source, StepReader
from engine.load.validation import diagnostics

FOLDER = "runbooks"
FILE = "runbook.yml"


@dataclass(frozen=True, slots=True)
class LoadedRunbook:
    """A runbook beside what is needed to tell mistakes in it at their place, and the variables it was loaded with."""

    runbook: Runbook
    folder: Path
    sources: Mapping[StepId, Source]
    scope: Scope
    """The environment's variables over the runbook's own; `pending` names everything that steps register."""


@dataclass(slots=True)
class _Read:
    """A phase file, read as far as it goes without knowing the other phases."""

    document: Document
    file: PhaseFile
    entries: list[Entry]


@dataclass(slots=True)
class _Reader:
    """Collects over all files."""

    root: Path
    folder: Path
    actions: Mapping[str, type]
    checks: Mapping[str, type]
    problems: list[Diagnostic] = field(default_factory=list)
    unread: bool = False
    """A file could not be read: what it holds may be what others seem to miss."""

    def document(self, path: Path) -> Document | None:
        try:
            return yaml.read(self.root, path)
        except FilesError as error:
            self.problems += error.diagnostics
            self.unread = True
            return None


def load_runbook(
    root: Path,
    name: str | None,
    actions: Mapping[str, type],
    checks: Mapping[str, type],
    variables: Mapping[str, Any],
) -> LoadedRunbook:
    """Read `runbooks/NAME`. FilesError with all mistakes; UsageError when there is no such runbook.

    `actions` and `checks` map keys to their Params models. Without a name: the variable `runbook`, or the only one.
    """
    loaded, problems = read_runbook(root, name, actions, checks, variables)
    if problems:
        raise FilesError(problems)
    return loaded


def read_runbook(
    root: Path,
    name: str | None,
    actions: Mapping[str, type],
    checks: Mapping[str, type],
    variables: Mapping[str, Any],
) -> tuple[LoadedRunbook, list[Diagnostic]]:
    """The same without raising: what could be read, beside all mistakes, so that more can be found in what stands."""
    folder = root / FOLDER / choose(root, name, variables)
    reader = _Reader(root, folder, actions, checks)
    document = reader.document(folder / FILE)
    head: RunbookFile | None = _salvaged(reader, document, RunbookFile, "the runbook", {"title": folder.name})
    if document and head:
        reader.problems += _head_problems(document, head, folder)
    documents = [d for path in _phase_files(reader, document, head) if (d := reader.document(path))]
    own = head.vars if head else {}
    scope = Scope({**own, **variables}, pending=_registered(documents))
    read = [phase for d in documents if (phase := _phase_file(reader, d, scope))]
    phases = _phases(reader, read)
    sources = {s.id: e.source for r in read for e in r.entries for s in e.steps}
    runbook = Runbook(folder.name, head.title if head else folder.name, phases, own)
    reader.problems += _circles(runbook, sources, read)
    return LoadedRunbook(runbook, folder, sources, scope), reader.problems


def choose(root: Path, name: str | None, variables: Mapping[str, Any]) -> str:
    """Which runbook is meant. UsageError names those there are."""
    folder = root / FOLDER
    there = sorted(p.name for p in folder.iterdir() if (p / FILE).is_file()) if folder.is_dir() else []
    wanted = name or variables.get("runbook")
    if wanted is None:
        if len(there) == 1:
            return there[0]
        say = "say which with `--runbook NAME`, or set the variable `runbook` in the inventory"
        hint = say if there else f"write {FOLDER}/NAME/{FILE}"
        raise UsageError(f"{FOLDER}/ holds {len(there) or 'no'} runbooks ({listed(there)}): {hint}")
    if wanted not in there:
        raise UsageError(f'no runbook "{wanted}"{guess(str(wanted), there)}; {FOLDER}/ holds: {listed(there)}')
    return str(wanted)


def _salvaged(reader: _Reader, document: Document | None, model: Any, what: str, instead: Mapping[str, Any]) -> Any:
    """The file as its model; with mistakes, without the keys that hold them. None when it is no mapping at all."""
    if document is None:
        return None
    data = document.data
    if not isinstance(data, dict):
        reader.problems.append(document.problem((), f"{what} should be a mapping, and this file is not one"))
        reader.unread = True
        return None
    try:
        return model.model_validate(data)
    except ValidationError as error:
        reader.problems += diagnostics(error, document, (), model, data, what=what)
        wrong = {e["loc"][0] for e in error.errors() if e["loc"]}
        reader.unread = reader.unread or "phase" in wrong
        return model.model_validate({**instead, **{k: v for k, v in data.items() if k not in wrong}})


def _registered(documents: Sequence[Document]) -> frozenset[str]:
    """Every name that a step of these files registers."""
    lists = [d.data.get("steps") for d in documents if isinstance(d.data, dict)]
    steps = [step for steps in lists if isinstance(steps, list) for step in steps if isinstance(step, dict)]
    return frozenset(step["register"] for step in steps if isinstance(step.get("register"), str))


def _head_problems(document: Document, head: RunbookFile, folder: Path) -> list[Diagnostic]:
    found = [document.problem(("vars", *p.route), p.message, needle=p.needle) for p in mistakes(head.vars)]
    if head.name not in (None, folder.name):
        found.append(document.problem(("name",), f'the folder is named "{folder.name}": a runbook has one name'))
    return found


def _phase_files(reader: _Reader, document: Document | None, head: RunbookFile | None) -> Sequence[Path]:
    """The files of the phases, in order."""
    if document is None or head is None or head.phases is None:
        found = sorted((reader.folder / "phases").glob("*.yml"))
        ignored = sorted((reader.folder / "phases").glob("*.yaml"))
        messages = [f"phases/{path.name} is not read: name it {path.stem}.yml" for path in ignored]
        if not found:
            messages.append("no phases: write phases/01-NAME.yml beside this file")
        if document is not None:
            reader.problems += [document.problem((), message) for message in messages]
        return found
    paths = []
    for index, name in enumerate(head.phases):
        path = reader.folder / name
        if not path.resolve().is_relative_to(reader.folder.resolve()):
            reader.problems.append(document.problem(("phases", index), f"{name} leads out of the runbook's folder"))
        elif not path.is_file():
            there = [p.relative_to(reader.folder).as_posix() for p in sorted(reader.folder.glob("**/*.yml"))]
            reader.problems.append(document.problem(("phases", index), f'no file "{name}"{guess(name, there)}'))
            reader.unread = True
        else:
            paths.append(path)
    return paths


def _phase_file(reader: _Reader, document: Document, scope: Scope) -> _Read | None:
    instead = {"phase": slug(Path(document.file).stem) or "phase", "steps": []}
    file: PhaseFile | None = _salvaged(reader, document, PhaseFile, "the phase", instead)
    return _Read(document, file, _entries(reader, document, file.phase, scope)) if file else None


def _entries(reader: _Reader, document: Document, phase: str, scope: Scope) -> list[Entry]:
    written = document.data.get("steps")
    steps = StepReader(document, phase, reader.actions, reader.checks, scope)
    entries: list[Entry] = []
    first: dict[str, int] = {}
    if written == []:
        reader.problems.append(document.problem(("steps",), "a phase has at least one step"))
    for index, entry in enumerate(written if isinstance(written, list) else []):
        read = steps.read(entry, ("steps", index)) if isinstance(entry, dict) else None
        if read is None:
            reader.unread = True
            continue
        if read.id in first:
            line = document.mark(("steps", first[read.id])).position.line
            place: Route = ("steps", index, "id") if "id" in entry else ("steps", index, "name")
            steps.problems.append(document.problem(place, f'a second step "{read.id}" (first in line {line})'))
            continue
        first[read.id] = index
        entries.append(read)
    reader.problems += steps.problems
    reader.unread = reader.unread or steps.unnamed
    return entries


def _phases(reader: _Reader, read: list[_Read]) -> tuple[Phase, ...]:
    known: dict[str, _Read] = {}
    for phase in read:
        if phase.file.phase in known:
            other = known[phase.file.phase].document.file
            message = f'a second phase "{phase.file.phase}" (first in {other})'
            reader.problems.append(phase.document.problem(("phase",), message))
        known.setdefault(phase.file.phase, phase)
    phases: list[Phase] = []
    registered: dict[str, Position] = {}
    for phase in known.values():
        file = phase.file
        above = (phases[-1].id,) if phases else ()
        steps = _needs(reader, phase, known)
        _registered_once(reader, phase, registered)
        phases.append(
            Phase(
                id=file.phase,
                title=file.title or file.phase.replace("-", " ").capitalize(),
                steps=steps,
                position=phase.document.mark(("phase",), key=True).position,
                needs=above if file.needs is None else tuple(_phase_needs(reader, phase, known)),
                savepoint=file.savepoint,
                on_failure=file.on_failure,
            )
        )
    return tuple(phases)


def _registered_once(reader: _Reader, phase: _Read, registered: dict[str, Position]) -> None:
    for entry in phase.entries:
        for step in entry.steps[:1]:
            if step.register is None:
                continue
            place = phase.document.mark((*entry.source.route, "register")).position
            if step.register in registered:
                message = f'"{step.register}" is registered already (at {registered[step.register]})'
                reader.problems.append(phase.document.problem((*entry.source.route, "register"), message))
            registered.setdefault(step.register, place)


def _phase_needs(reader: _Reader, phase: _Read, known: Mapping[str, _Read]) -> list[str]:
    needs = []
    for index, need in enumerate(phase.file.needs or ()):
        if need in known:
            needs.append(need)
        elif not reader.unread:
            message = f'needs: no phase "{need}"{guess(need, known)} (phases: {listed(known)})'
            reader.problems.append(phase.document.problem(("needs", index), message))
    return needs


def _needs(reader: _Reader, phase: _Read, known: Mapping[str, _Read]) -> tuple[Step, ...]:
    """The phase's steps with their needs as ids: those written, else every step above. The name of a looped step
    stands for all its turns; turns of one loop do not wait for each other."""
    steps: list[Step] = []
    for entry in phase.entries:
        if entry.needs is None:
            needs = tuple(s.id for s in steps)
        else:
            found: dict[StepId, None] = {}
            for index, need in enumerate(entry.needs):
                route: Route = (*entry.source.route, "needs", index)
                found |= dict.fromkeys(_resolved(reader, phase, known, need, route))
            needs = tuple(found)
        steps += [replace(step, needs=needs) for step in entry.steps]
    return tuple(steps)


def _resolved(reader: _Reader, phase: _Read, known: Mapping[str, _Read], need: str, route: Route) -> list[StepId]:
    here = phase.file.phase
    owner, _, local = need.rpartition("/") if "/" in need.partition("[")[0] else (here, "", need)
    if owner not in known:
        if not reader.unread:
            message = f'needs: no phase "{owner}"{guess(owner, known)} (phases: {listed(known)})'
            reader.problems.append(phase.document.problem(route, message))
        return []
    entries = known[owner].entries
    found = [s.id for e in entries for s in e.steps if local in (e.id, s.local_id)]
    if found or any(e.id == local for e in entries):  # a loop may have no turns
        return found
    if not reader.unread:
        names = [e.id for e in entries]
        message = f'needs: no step "{local}" in phase {owner}{guess(local, names)} (steps: {listed(names)})'
        reader.problems.append(phase.document.problem(route, message))
    return []


def _circles(runbook: Runbook, sources: Mapping[StepId, Source], read: Sequence[_Read]) -> list[Diagnostic]:
    try:
        Graph(runbook)
    except CycleError as error:
        if not error.steps:
            return [_phase_circle(error, read)]
        source = sources[error.steps[0]]
        return [source.document.problem((*source.route, "needs"), str(error))]
    return []


def _phase_circle(error: CycleError, read: Sequence[_Read]) -> Diagnostic:
    """At the first `needs` that is written and leads on in the circle."""
    circle = [member.removeprefix("phase ") for member in error.members]
    files = {phase.file.phase: phase for phase in reversed(read)}
    for phase, following in zip(circle, [*circle[1:], circle[0]], strict=True):
        needs = files[phase].file.needs or ()
        if following in needs:
            return files[phase].document.problem(("needs", list(needs).index(following)), str(error))
    return files[circle[0]].document.problem(("phase",), str(error), key=True)
