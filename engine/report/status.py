"""What the journal says: environments, runs, one run's steps, and why a step did what it did. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.core.history import RunStatus, RunView, StepStatus, StepView
from engine.report import tally
from engine.report.drill import last_line, measured_lines
from engine.report.frame import step_sign
from engine.report.summary import evidence_path, header, next_commands, phase_table
from engine.report.text import ago, between, clean, clean_lines, clip, columns, duration

_SIGNS = {
    RunStatus.RUNNING: "▸",
    RunStatus.ROLLING_BACK: "▸",
    RunStatus.SUCCEEDED: "✓",
    RunStatus.STOPPED: "!",
    RunStatus.ABANDONED: "!",
}


@dataclass(frozen=True, slots=True)
class EnvironmentStatus:
    """One environment: its newest run, and whether a living process holds it."""

    name: str
    run: RunView | None
    held: bool
    drill: RunView | None = None
    """Its newest drill, which is `run` too while the platform is not back from it."""

    @property
    def word(self) -> str:
        """What the status line says: the run's status, or that its process died."""
        if self.run is None:
            return "no run yet"
        return "interrupted" if tally.interrupted(self.run, self.held) else self.run.status.value

    @property
    def sign(self) -> str:
        if self.run is None:
            return "·"
        return "✗" if self.word == "interrupted" else _SIGNS.get(self.run.status, "✗")

    @property
    def next(self) -> list[tuple[str, str]]:
        if self.run is None:
            return [("begin", f"runbook deploy {self.name}")]
        return next_commands(self.run, held=self.held)


def environments(views: Iterable[RunView], names: Iterable[str], held: Iterable[str]) -> list[EnvironmentStatus]:
    """The newest run of every environment that has one or is named: a deploy, or a drill that is not over."""
    known = [v for v in views if v.environment]
    drills = {v.environment: v for v in known if v.kind == "drill"}
    newest = {
        v.environment: v
        for v in known
        if v.kind == "deploy" or (v.kind == "drill" and (v.status.open or v.broken) and v is drills[v.environment])
    }
    busy = set(held)
    return [EnvironmentStatus(n, newest.get(n), n in busy, drills.get(n)) for n in sorted({*newest, *names})]


def status_lines(statuses: Sequence[EnvironmentStatus], now: datetime, *, width: int = 0) -> list[str]:
    """One line per environment; of what is unfinished also what is going on and what to do."""
    heads = columns([_status_row(s, now) for s in statuses], gap="   ")
    lines: list[str] = []
    for status, head in zip(statuses, heads, strict=True):
        lines.append(clip(head, width))
        if status.run is not None and status.run.status is not RunStatus.SUCCEEDED:
            lines += [clip(line, width) for line in _trouble(status)]
        if status.drill is not None and status.drill is not status.run and status.drill.broken:
            lines.append(clip(f"    {last_line(status.drill, now)}", width))
            lines.append(clip(f"    recover   runbook resume {status.name}", width))
    return lines or ["· no environment here: a project has inventories/NAME and runbooks/NAME"]


def environment_lines(status: EnvironmentStatus, now: datetime, *, width: int = 0) -> list[str]:
    """One environment in full: its newest run's phases, and what to do next."""
    lines = status_lines([status], now, width=width)
    if status.run is None:
        return [*lines, *columns(status.next, indent="  ", gap="   ")]
    at = status.run.finished or now.isoformat()
    lines += ["", clip(header(status.run), width), *phase_table(status.run, width, at), *_where(status.run, width)]
    if status.run.status is RunStatus.SUCCEEDED:
        lines.append(f"  steps   runbook show {status.run.id}")
    if status.drill is not None and status.drill is not status.run and not status.drill.broken:
        lines.append(clip(f"  {last_line(status.drill, now)}", width))
    return lines


def history_lines(views: Sequence[RunView], held: Iterable[str], *, width: int = 0) -> list[str]:
    """Every run, newest first."""
    if not views:
        return ["· no run yet"]
    busy = set(held)
    rows = [["", "run", "kind", "environment", "runbook", "status", "started", "took", "changed", "by"]]
    latest = {v.environment: v.id for v in views if v.kind in ("deploy", "drill")}
    for view in reversed(views):
        current = EnvironmentStatus(
            view.environment, view, view.environment in busy and latest.get(view.environment) == view.id
        )
        took = duration(tally.seconds(view)) if not tally.working(view) else ""
        started = f"{view.started[:16].replace('T', ' ')}Z"
        cells = [
            view.id,
            view.kind,
            view.environment,
            view.runbook,
            current.word,
            started,
            took,
            str(tally.changed(view)),
        ]
        rows.append([current.sign, *cells, view.holder])
    return [clip(line, width) for line in columns(rows, right=(7, 8))]


def show_lines(view: RunView, *, held: bool = False, width: int = 0, verbose: bool = False) -> list[str]:
    """Every step of a run: what it was to do, where it stands, how long it took, what proved it."""
    lines = [clip(header(view), width), clip(_when(view), width)]
    lines += [clip(line, width) for line in measured_lines(view)]
    every = [s for p in tally.phases(view) for s in p.steps]
    table = iter(columns([_show_row(s) for s in every], right=(4,), indent="    "))
    for phase in tally.phases(view):
        time = f"   {duration(phase.seconds)}" if phase.begun else ""
        lines.append(
            clip(f"{phase.sign} {phase.number} {clean(phase.title)}   {phase.done}/{len(phase.steps)}{time}", width)
        )
        for step in phase.steps:
            lines.append(clip(next(table), width))
            lines += [clip(line, width) for line in _show_detail(step, verbose)]
    return [*lines, *_where(view, width), *columns(next_commands(view, held=held), indent="  ", gap="   ")]


def _status_row(status: EnvironmentStatus, now: datetime) -> list[str]:
    run = status.run
    if run is None:
        return [f"{status.sign} {status.name}", status.word, "", "", ""]
    if run.status.open and status.held:
        when = f"{run.holder}, pid {run.pid}, since {ago(run.started, now)}"
    elif tally.working(run):
        when = f"begun {ago(run.started, now)} ago by {run.holder}"
    else:
        when = f"{ago(run.finished or run.started, now)} ago, by {run.holder}"
    numbers = f"{tally.done(run)}/{len(run.steps)} steps, {tally.changed(run)} changed"
    return [f"{status.sign} {status.name}", status.word, f"run {run.id}", clean(when), numbers]


def _trouble(status: EnvironmentStatus) -> Iterator[str]:
    run = status.run
    assert run is not None  # noqa: S101 (the caller has looked)
    doubt = [s.id for s in run.steps.values() if s.open_intent]
    running = [s.id for s in run.steps.values() if s.status in {StepStatus.RUNNING, StepStatus.UNDOING}]
    if run.failure:
        yield f"    {run.failed_step}: {clean(run.failure.partition(chr(10))[0])}"
    if status.word == "interrupted":
        yield f"    the process {run.pid} of {run.holder} is gone"
    if doubt and not status.held:
        yield f"    in doubt, looked at before anything is done: {', '.join(doubt)}"
    if status.held and (running or doubt):
        yield f"    now: {', '.join([*running, *doubt])}"
    if not status.held:
        yield from columns(status.next, indent="    ", gap="   ")


def _when(view: RunView) -> str:
    took = f", took {duration(tally.seconds(view))}" if not tally.working(view) else ""
    exit_code = f", exit {view.exit_code}" if view.exit_code is not None else ""
    return f"{view.status.value}   started {view.started[:19]}Z by {view.holder}{took}{exit_code}"


def _show_row(step: StepView) -> list[str]:
    time = duration(between(step.started, step.finished)) if step.finished else ""
    passed = sum(c.ok for c in step.checks.values())
    checks = f"{passed}/{len(step.checks)} checks" if step.checks else ""
    verb = step.verb.value if step.change else ""
    return [f"{step_sign(step)} {tally.local(step)}", step.action, verb, step.status.value, time, checks]


def _show_detail(step: StepView, verbose: bool) -> Iterator[str]:
    for text in (step.error, step.undo_detail):
        yield from (f"          {line}" for line in clean_lines(text) if line)
    if step.summary and (verbose or step.evidence):
        yield f"          {clean(step.summary)}"
    if step.evidence:
        yield "          evidence   " + ", ".join(f"{k}={clean(str(v))}" for k, v in step.evidence.items())
    for check in step.checks.values():
        if verbose or not check.ok:
            yield f"          {_check(check.ok, check.check, check.saw, check.proved_at)}"


def _check(ok: bool, check: str, saw: str, proved_at: str) -> str:
    earlier = f" (proved {proved_at[:19]}Z)" if proved_at else ""
    return f"{'✓' if ok else '✗'} {clean(check)}: {clean(saw)}{earlier}"


def _where(view: RunView, width: int) -> list[str]:
    path = evidence_path(view)
    return [clip(f"  record   {path}", width)] if path else []
