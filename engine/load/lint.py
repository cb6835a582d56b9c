"""What can be known to be wrong before anything is touched, of a runbook in one environment or in all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from engine.core.model import Step
from engine.core.order import CycleError, Graph
from engine.errors import Diagnostic, FilesError, Position
from engine.load.checklist import has_checklist, read_checklist
from engine.load.document import Route
from engine.load.drill import DrillKeys, ReadDrill, read_drills
from engine.load.inventory import environments, load_environment
from engine.load.places import settings_problems
from engine.load.readiness import has_readiness, read_readiness
from engine.load.references import unknown_names
from engine.load.render import condition_names, is_template, undeclared
from engine.load.resolve import Resolver
from engine.load.runbook import LoadedRunbook, choose, read_runbook

FILE_MARK = "runbook-file"
"""A field of a Params model with this in its `json_schema_extra` names a file or folder of the project.

A model that has `mistakes_in(path)` says what is wrong inside of it: file, line, column, message, how many characters.
"""


@dataclass(frozen=True, slots=True)
class Registry:
    """The keys a runbook may use: Params models of actions and checks, and which actions are events; of drills also
    faults and ways to write sentinels."""

    actions: Mapping[str, type]
    checks: Mapping[str, type]
    events: Collection[str] = ()
    undo: Mapping[str, Any] = field(default_factory=dict)
    """Action -> what its `undo:` may be; any other action takes none."""
    faults: Mapping[str, type] = field(default_factory=dict)
    sentinels: Mapping[str, type] = field(default_factory=dict)
    settings: type[BaseModel] | None = None
    """The variables of an environment that the engine itself reads."""

    @property
    def drill_keys(self) -> DrillKeys:
        return DrillKeys(self.actions, self.checks, self.faults, self.sentinels)


def lint(root: Path, runbook: str | None, environment: str | None, registry: Registry, cache: Path) -> list[Diagnostic]:
    """Every mistake and warning, in order of place. Without an environment: in all of them, each told once.

    UsageError when the runbook or the environment does not exist, or Ansible cannot read an inventory.
    """
    names = [environment] if environment else environments(root)
    linted: dict[str, list[str]] = {}
    unread: list[Diagnostic] = []
    found: dict[tuple[str, Any, str], tuple[Diagnostic, list[str]]] = {}
    for name in names or [""]:
        try:
            variables = load_environment(root, name, cache).variables if name else {}
        except FilesError as error:
            unread += error.diagnostics
            continue
        if runbook and not environment and variables.get("runbook", runbook) != runbook:
            continue  # an environment of another runbook
        chosen = choose(root, runbook, variables)
        linted.setdefault(chosen, []).append(name)
        for problem in check(root, chosen, variables, registry, name):
            found.setdefault((chosen, problem.position, problem.message), (problem, []))[1].append(name)
    told = [_told(problem, seen, linted[chosen]) for (chosen, *_rest), (problem, seen) in found.items()]
    return sorted([*unread, *told], key=lambda d: d.position)


def check(
    root: Path, runbook: str | None, variables: Mapping[str, Any], registry: Registry, environment: str = ""
) -> list[Diagnostic]:
    """The same with these variables, which are those of `environment`."""
    loaded, found = read_runbook(root, runbook, registry.actions, registry.checks, variables)
    resolver = Resolver(loaded, registry.actions, registry.checks, registry.undo)
    settings = settings_problems(root, loaded.folder, environment, variables, loaded.scope, registry.settings)
    problems = {(p.position, p.message): p for p in (*found, *settings)}
    try:
        graph = Graph(loaded.runbook)
    except CycleError:
        return list(problems.values())  # told already
    owners: dict[str, Step] = {}
    for step in loaded.runbook.steps():
        if step.register:
            owners.setdefault(step.register, step)
    parts = {step.id: resolver.parts(step) for step in loaded.runbook.steps()}
    for step in loaded.runbook.steps():
        for problem in (
            *resolver.validate(step),
            *_early_names(loaded, step, owners, graph),
            *_missing_files(loaded, step, parts[step.id][step.action], registry.actions, registry.undo, root),
            *_warnings(loaded, step, registry),
        ):
            problems.setdefault((problem.position, problem.message), problem)
    named = [(step, parts[step.id]) for step in loaded.runbook.steps()]
    for problem in unknown_names(loaded, named, registry.actions, registry.checks):
        problems.setdefault((problem.position, problem.message), problem)
    for read in read_drills(root, loaded, registry.drill_keys, unread=bool(found)):
        for problem in (*read.problems, *_of_drill(read, registry.drill_keys, root)):
            problems.setdefault((problem.position, problem.message), problem)
    for problem in () if found else _decisions(root, loaded):
        problems.setdefault((problem.position, problem.message), problem)
    return list(problems.values())


def _of_drill(read: ReadDrill, keys: DrillKeys, root: Path) -> Iterator[Diagnostic]:
    """What can be said of a drill's own steps: those of the runbook are told where they are written."""
    loaded = read.loaded
    resolver = Resolver(loaded, keys.steps, keys.checks)
    registered = set(read.registered)
    for step in read.steps:
        yield from resolver.validate(step)
        yield from _missing_files(loaded, step, resolver.partly(step), keys.steps, {}, root)
        source = loaded.sources[step.id]
        for name, part in sorted(_used(step).items()):
            if name in loaded.scope.pending and name not in registered and name not in step.vars:
                message = f'"{name}" is not known here: no earlier step of this drill registers it'
                yield source.document.problem((*source.route, part), message, key=True, needle=name)
        registered |= {step.register} if step.register else set()


def _decisions(root: Path, loaded: LoadedRunbook) -> Iterator[Diagnostic]:
    """Mistakes in the readiness file and the checklist, where the runbook has them."""
    criteria = None
    if has_readiness(loaded):
        criteria, found = read_readiness(root, loaded)
        yield from found
    if has_checklist(loaded):
        yield from read_checklist(root, loaded, criteria.attestable if criteria else {})[1]


def _told(problem: Diagnostic, seen: Sequence[str], names: Sequence[str]) -> Diagnostic:
    """With the environments it holds in, when it does not hold in all."""
    if len(seen) == len(names):
        return problem
    return replace(problem, message=f"{problem.message} (in {', '.join(seen)})")


def _early_names(loaded: LoadedRunbook, step: Step, owners: Mapping[str, Step], graph: Graph) -> Iterator[Diagnostic]:
    """Uses of what a step registers that this one does not wait for: it would depend on luck."""
    source = loaded.sources[step.id]
    waits = graph.ancestors(step.id)
    for name, part in sorted(_used(step).items()):
        owner = owners.get(name)
        if owner is None or name in step.vars or owner.id in waits:
            continue
        reason = "this step itself registers it" if owner.id == step.id else f"add {owner.id} to its needs"
        message = f'"{name}" is not known yet when this step starts: {reason}'
        yield source.document.problem((*source.route, part), message, key=True, needle=name)


def _used(step: Step) -> dict[str, str]:
    """Every name a step uses, and in which part."""
    used: dict[str, str] = {}
    for part, tree in ((step.action, step.params), ("verify", step.verify), ("unless", step.unless)):
        used |= dict.fromkeys(undeclared(tree), part)
    used |= dict.fromkeys(undeclared(step.vars), "vars")
    return used | dict.fromkeys(condition_names(step.when or "true"), "when")


def _missing_files(
    loaded: LoadedRunbook, step: Step, params: Any, types: Mapping[str, type], undo: Mapping[str, Any], root: Path
) -> Iterator[Diagnostic]:
    """Names of files that do not exist; one that is absolute, or not known yet, an earlier step may make."""
    source = loaded.sources[step.id]
    named = [(step.action, *found) for found in _file_names(types[step.action], params, ())]
    if step.action in undo:
        named += [("undo", *found) for found in _undo_files(undo[step.action], step.undo)]
    for part, route, name in named:
        if is_template(name) or name.startswith("/"):
            continue
        found = next((base / name for base in (loaded.folder, root) if (base / name).exists()), None)
        if found is None:
            place: Route = (*source.route, part, *route)
            folder = loaded.folder.relative_to(root).as_posix()
            yield source.document.problem(place, f'no file or folder "{name}" in {folder} or the project')
        elif (inside := getattr(types[step.action], "mistakes_in", None)) is not None:
            for path, line, column, message, width in inside(found):
                shown = path.read_text(errors="replace").splitlines()[line - 1 : line] or [""]
                position = Position(path.relative_to(root).as_posix(), line, column)
                yield Diagnostic(position, message, shown[0].replace("\t", " "), width)


def _undo_files(kind: Any, undo: Any) -> Iterator[tuple[Route, str]]:
    """The files of a way back: it is one by itself, or has fields that are."""
    if isinstance(undo, str):
        yield (), undo
    for model in get_args(kind):
        yield from _file_names(model, undo, ())


def _file_names(model: Any, data: Any, route: Route) -> Iterator[tuple[Route, str]]:
    """The values of fields marked as files, also in lists and mappings."""
    if not (isinstance(model, type) and issubclass(model, BaseModel) and isinstance(data, Mapping)):
        return
    for field_name, info in model.model_fields.items():
        key = info.alias or field_name
        extra = info.json_schema_extra
        if key not in data or not isinstance(extra, dict) or not extra.get(FILE_MARK):
            continue
        value = data[key]
        inner = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, Mapping) else None
        for place, name in [(None, value)] if inner is None else inner:
            if isinstance(name, str) and name:
                yield (*route, key, *(() if place is None else (place,))), name


def _warnings(loaded: LoadedRunbook, step: Step, registry: Registry) -> Iterator[Diagnostic]:
    source = loaded.sources[step.id]
    if step.action in registry.events and step.fresh is None:
        message = f'"{step.action}" happens in every run: say `fresh: 24h` if earlier evidence may count'
        yield source.document.problem((*source.route, step.action), message, key=True, severity="warning")
