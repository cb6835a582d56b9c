"""Joins actions and checks with the adapters they need, and opens an environment for a command."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.events import Event, Observer, digest_of
from engine.core.evidence import Beside
from engine.core.history import RunView
from engine.core.redaction import Redactor
from engine.errors import Diagnostic, FilesError, UsageError
from engine.run.journal import Journal

if TYPE_CHECKING:
    from engine.core.drill import Drill
    from engine.core.offline import OfflinePlan
    from engine.load.lint import Registry
    from engine.load.runbook import LoadedRunbook
    from engine.outside import Outside
    from engine.run.session import Session

STATE = ".runbook"


def find_root(start: Path) -> Path:
    """The project's root: the nearest folder upwards with `inventories/` and `runbooks/`. UsageError."""
    for folder in (start, *start.parents):
        if (folder / "inventories").is_dir() and (folder / "runbooks").is_dir():
            return folder
    raise UsageError(f"{start} is in no runbook project: no folder above it has inventories/ and runbooks/")


def open_journal(root: Path, redactor: Redactor | None = None) -> Journal:
    """The project's journal. Imports no outside client."""
    known = redactor or Redactor()
    return Journal(root / STATE / "journal.db", clock=_utc_now, redact=known.data)


def action_types() -> Mapping[str, type]:
    """YAML key -> model of the action's parameters."""
    from engine.registry import ACTION_TYPES

    return ACTION_TYPES


def check_types() -> Mapping[str, type]:
    """YAML key -> model of the check's parameters."""
    from engine.registry import CHECK_TYPES

    return CHECK_TYPES


def lint(root: Path, runbook: str | None, environment: str | None) -> list[Diagnostic]:
    """Every mistake in the files, without looking at anything live."""
    from engine.load.lint import lint as lint_files

    return lint_files(root, runbook, environment, _registry(), root / STATE / "cache")


def schema(_root: Path) -> dict[str, Any]:
    """JSON Schemas of the files: `runbook`, `phase` and `drill`."""
    from engine.load.schema import drill_schema, phase_schema, runbook_schema

    return {
        "runbook": runbook_schema(),
        "phase": phase_schema(action_types(), check_types()),
        "drill": drill_schema(_registry().drill_keys),
    }


def load(root: Path, runbook: str | None, environment: str | None) -> LoadedRunbook:
    """The runbook as it stands in the working tree, for commands that run nothing. FilesError, UsageError.

    Without an environment: with the variables of the only one, or with none.
    """
    from engine.load.inventory import environments, load_environment
    from engine.load.runbook import load_runbook

    there = environments(root)
    name = environment or (there[0] if len(there) == 1 else None)
    variables = load_environment(root, name, root / STATE / "cache").variables if name else {}
    return load_runbook(root, runbook, action_types(), check_types(), variables)


def drills(root: Path, runbook: str | None, environment: str) -> tuple[list[Drill], bool]:
    """The drills of an environment's runbook as they stand in the working tree, and whether it allows any.

    FilesError with every mistake in their files; UsageError when there is no such environment.
    """
    from engine.load.drill import read_drills
    from engine.outside import read_settings

    loaded = load(root, runbook, environment)
    read = read_drills(root, loaded, _registry().drill_keys)
    problems = [problem for one in read for problem in one.problems]
    if problems:
        raise FilesError(problems)
    allowed = read_settings(loaded.scope).drills == "allowed"
    return [one.drill for one in read if one.drill], allowed


def beside(root: Path, view: RunView, events: Sequence[Event]) -> Beside:
    """What a record of a run tells beside it: whether its environment is ready, and its newest drills."""
    from engine.readiness import beside as found

    return found(root, view, events, datetime.now(UTC))


def open_session(
    root: Path,
    environment: str,
    *,
    extra: Sequence[str] = (),
    observer: Observer,
    interactive: bool,
    run: RunView | None = None,
    cancelled: threading.Event,
    runbook: str | None = None,
    drill: str = "",
    make_outside: Callable[..., Outside] | None = None,
) -> Session:
    """Open an environment. With `run`: on that run's kept inputs and frozen time, never the working tree.
    With `drill`: for that drill. `make_outside` makes what stands in for its real outside.

    FilesError with every mistake in the files; UsageError when there is no such environment.
    """
    from engine.core.order import Graph
    from engine.load.drill import load_drill
    from engine.load.inputs import KeptInputs
    from engine.load.resolve import Resolver
    from engine.load.runbook import load_runbook
    from engine.outside import Outside, read_settings
    from engine.outside_drills import faults, sentinel_stores
    from engine.run.session import Session

    state = root / STATE
    if run is None:
        inputs = _keep(root, state, environment, extra, runbook)
        now = datetime.now(UTC).replace(microsecond=0)
    else:
        inputs = KeptInputs.open(state, run.inputs, run_folder=state / "runs" / run.id)
        now = datetime.fromisoformat(run.now)
    name = run.runbook if run else runbook
    loaded = load_runbook(inputs.tree, name, action_types(), check_types(), inputs.variables)
    if run is None:
        _refuse_mistakes(inputs.tree, runbook, inputs.variables, environment)
    keys, chosen = _registry().drill_keys, None
    if drill:
        chosen, loaded = load_drill(inputs.tree, loaded, drill, keys)
    redactor, resources = Redactor(), ExitStack()
    journal = open_journal(root, redactor)
    resources.callback(journal.close)
    settings = read_settings(loaded.scope)
    outside = (make_outside or Outside)(
        settings=settings,
        environment=environment,
        runbook=loaded.runbook.name,
        root=root,
        state=state,
        journal=journal,
        redactor=redactor,
        resources=resources,
        interactive=interactive,
        pending=loaded.scope.pending,
    )
    resolver = Resolver(loaded, keys.steps if chosen else keys.actions, keys.checks, _registry().undo)
    planner, deployer = outside.parts(resolver, inputs, now, cancelled, observer)
    return Session(
        environment=environment,
        runbook=loaded.runbook,
        graph=Graph(loaded.runbook),
        planner=planner,
        deployer=deployer,
        journal=journal,
        record=outside.record(),
        launcher=outside.launcher,
        state=state,
        inputs=inputs.digest,
        variables=digest_of(inputs.variables),
        target=outside.target(),
        drill=chosen,
        drills_allowed=settings.drills == "allowed",
        faults=faults(outside) if chosen else {},
        sentinels=sentinel_stores(outside) if chosen else {},
        bind=lambda run_id: inputs.bind(state / "runs" / run_id),
        resources=resources,
    )


def plan_offline(
    root: Path,
    environment: str,
    *,
    extra: Sequence[str] = (),
    observer: Observer,
    cancelled: threading.Event | None = None,
    runbook: str | None = None,
) -> OfflinePlan:
    """The plan of a first deploy, made without any system: nothing is connected to, no secret is read.

    FilesError, ObjectsError for objects a server would refuse, UsageError for what cannot be planned at all.
    """
    from engine.adapters.offline import nothing_connects
    from engine.adapters.offline_cluster import OfflineCluster
    from engine.offline import OfflineOutside
    from engine.run.offline import make_offline_plan

    made: list[OfflineOutside] = []

    def make(**given: Any) -> OfflineOutside:
        made.append(OfflineOutside(**given, cluster=OfflineCluster(given["settings"].kubernetes_version)))
        return made[0]

    with (
        nothing_connects(),
        open_session(
            root,
            environment,
            extra=extra,
            observer=observer,
            interactive=False,
            cancelled=cancelled or threading.Event(),
            runbook=runbook,
            make_outside=make,
        ) as session,
    ):
        return make_offline_plan(session, made[0].cluster, lambda: made[0].helm.installs_differently)


def _keep(root: Path, state: Path, environment: str, extra: Sequence[str], runbook: str | None) -> Any:
    """The working tree's files and variables, kept under their digest."""
    from engine.core.action import EXTRA_VARIABLES
    from engine.load.inputs import KeptInputs
    from engine.load.inventory import extra_variables, load_environment
    from engine.load.runbook import choose

    given = extra_variables(extra, Path.cwd())
    passed = {EXTRA_VARIABLES: given} if given else {}
    found = load_environment(root, environment, state / "cache", {**given, **passed})
    name = choose(root, runbook, found.variables)
    return KeptInputs.snapshot(
        state, root, f"runbooks/{name}", ["playbooks", "ansible.cfg", f"inventories/{environment}"], found.variables
    )


def _refuse_mistakes(tree: Path, runbook: str | None, variables: Mapping[str, Any], environment: str) -> None:
    """What lint calls an error stops a run before anything is looked at."""
    from engine.load.lint import check

    errors = [d for d in check(tree, runbook, variables, _registry(), environment) if d.severity == "error"]
    if errors:
        raise FilesError(errors)


def _registry() -> Registry:
    from engine.load.lint import Registry
    from engine.registry import ACTION_TYPES, CHECK_TYPES, EVENTS, FAULT_TYPES, SENTINEL_TYPES, UNDO_TYPES
    from engine.settings import Settings

    return Registry(ACTION_TYPES, CHECK_TYPES, EVENTS, UNDO_TYPES, FAULT_TYPES, SENTINEL_TYPES, Settings)


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
