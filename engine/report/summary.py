"""The last word of a run: a table of phases, or the failure with what came back, and always what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from engine.core.history import RunStatus, RunView, StepStatus, StepView
from engine.core.model import StepId
from engine.report import drill as drills
from engine.report import tally
from engine.report.plan import count_verbs
from engine.report.text import ago, between, clean, clean_lines, clip, columns, count, duration, wrap

STOPPING = "! stopping: what runs is being finished. Ctrl-C again: leave at once (resumable)"
_EVIDENCE_PATHS = ("path", "file", "record")


def summary_lines(
    view: RunView,
    now: datetime,
    *,
    width: int = 0,
    read_seconds: float = 0.0,
    coverage: str = "",
    position: str = "",
    earlier: Sequence[RunView] = (),
) -> list[str]:
    """How a run ended. `read_seconds` and `coverage` tell of its planning; `position`: where the failed step is
    written; `earlier`: drills to compare a drill with."""
    if view.kind == "verify":
        return [*_verified(view, width), *_next(view, "")]
    if view.kind == "drill":
        return [*_drilled(view, earlier, width), *_next(view, position)]
    if tally.idle(view):
        return [*wrap(_nothing(view, now, read_seconds, coverage), width, ""), *_pointers(view, width)]
    lines = [*wrap(header(view), width, ""), "", *phase_table(view, width), ""]
    if view.status is RunStatus.SUCCEEDED:
        return [*lines, *wrap(_done(view), width, ""), *_success(view, width)]
    return [*lines, *_failure(view, width), *_ending(view, width), *_next(view, position)]


def header(view: RunView) -> str:
    """`belizechain → local   run 7f3c   plan sha256:9a41…e2   68 steps: 61 create, 7 none`."""
    plan = f"plan sha256:{view.plan_digest[:4]}…{view.plan_digest[-2:]}   " if view.plan_digest else ""
    changes = [s.change for s in view.steps.values() if s.change is not None]
    verbs = f": {count_verbs(changes)}" if changes else ""
    resumed = "   resumed" if view.resumed else ""
    what = f"drill {view.drill.get('id', '')}   " if view.kind == "drill" else plan
    steps = f"{count(len(view.steps), 'step')}{verbs}{resumed}"
    return f"{view.runbook} → {view.environment}   run {view.id}   {what}{steps}"


def phase_table(view: RunView, width: int = 0, now: str = "") -> list[str]:
    """Every phase: steps done, steps changed, seconds."""
    rows = [["", "phase", "", "steps", "changed", "seconds"]]
    for phase in tally.phases(view, now):
        time = f"{phase.seconds:.1f}" if phase.begun else ""
        done = f"{phase.done}/{len(phase.steps)}"
        rows.append([str(phase.number), clean(phase.title), phase.sign, done, str(phase.changed), time])
    return [clip(line, width) for line in columns(rows, right=(0, 3, 4, 5), indent=" ")]


def next_commands(view: RunView, *, held: bool = False) -> list[tuple[str, str]]:
    """What to type now: (why, command)."""
    if view.kind == "verify":
        return _after_verify(view)
    if view.status.open:
        going_on = [("go on", f"runbook resume {view.environment}"), ("look", f"runbook show {view.id}")]
        return [("look", f"runbook status {view.environment}")] if held else going_on
    if view.kind == "drill":
        return _after_drill(view)
    if view.status is RunStatus.SUCCEEDED:
        return [("look", f"runbook status {view.environment}"), ("steps", f"runbook show {view.id}")]
    commands = [("why", f"runbook why {view.id} {view.failed_step}")] if view.failed_step else []
    if view.status is RunStatus.REFUSED:
        return [*commands, ("look", f"runbook plan {view.environment}")]
    if view.status is RunStatus.ROLLBACK_INCOMPLETE:
        commands.append(("undo again", f"runbook rollback {view.environment} {view.id}"))
    return [*commands, ("then", f"runbook deploy {view.environment}")]


def _drilled(view: RunView, earlier: Sequence[RunView], width: int) -> Iterator[str]:
    yield from wrap(header(view), width, "")
    yield from ["", *phase_table(view, width), ""]
    if view.failure and not (view.status is RunStatus.FAILED and view.exit_code == 1):
        yield from _failure(view, width)
    yield from (clip(line, width) for line in drills.measured_lines(view, earlier))
    yield from drills.ending_lines(view, width)


def _after_verify(view: RunView) -> list[tuple[str, str]]:
    again = [] if view.status is RunStatus.SUCCEEDED else [("again", f"runbook verify {view.environment}")]
    why = [("why", f"runbook why {view.id} {view.failed_step}")] if view.failed_step else []
    return [*why, *([("drift", f"runbook plan {view.environment}")] if why else []), *again]


def _after_drill(view: RunView) -> list[tuple[str, str]]:
    why = [("why", f"runbook why {view.id} {view.failed_step}")] if view.failed_step else []
    if view.broken:
        return [*why, ("recover", f"runbook resume {view.environment}"), ("look", f"runbook show {view.id}")]
    again = [("again", f"runbook drill {view.environment} {view.drill.get('id', '')}")]
    return [*why, ("look", f"runbook show {view.id}"), *(again if view.exit_code else [])]


def savepoint(view: RunView) -> str:
    """Where the rollback goes: `savepoint "4 Core services"`, or `the start`."""
    names = list(view.phases)
    if view.rollback_to not in names:
        return view.rollback_to or "the start"
    return f'savepoint "{names.index(view.rollback_to) + 1} {clean(view.phases[view.rollback_to])}"'


def evidence_path(view: RunView) -> str:
    """Where the run's record was written, from the evidence of its `record` step; empty when there is none."""
    for step in view.steps.values():
        if step.action == "record":
            for name in _EVIDENCE_PATHS:
                if step.evidence.get(name):
                    return clean(str(step.evidence[name]))
    return ""


def _nothing(view: RunView, now: datetime, read_seconds: float, coverage: str) -> str:
    took = f" in {duration(read_seconds)}" if read_seconds else ""
    labels = f" ({coverage})" if coverage else ""
    read, out = len(view.steps) - tally.left_out(view), tally.left_out(view)
    left_out = f"   ({count(out, 'step')} left out)" if out else ""
    return f"✓ nothing to change   {count(read, 'step')} read{took}{labels}{_checked(view, now)}{left_out}"


def _verified(view: RunView, width: int) -> Iterator[str]:
    """What `verify` found: one line when all is well, else every step that does not pass."""
    took, passed = duration(tally.seconds(view)), count(sum(c.ok for c in tally.checks(view)), "check")
    broken = [s for s in view.steps.values() if s.error]
    if view.status is RunStatus.STOPPED:
        yield f"! stopped after {took}: {passed} passed so far. Nothing was changed."
    elif not broken:
        yield from wrap(f"✓ verified in {took}   {count(len(view.steps), 'step')}, {passed} passed", width, "")
    else:
        for step in broken:
            yield f"✗ {step.id}   {clean(step.name)}"
            for line in clean_lines(step.error):
                yield from wrap(line, width, "    ")
        total = count(len(view.steps), "step")
        yield f"✗ {len(broken)} of {total} do not pass; {passed} passed. Nothing was changed."


def _checked(view: RunView, now: datetime | None) -> str:
    proved = [c for c in tally.checks(view) if c.ok and c.proved_at]
    looked = [c for c in tally.checks(view) if c.ok and not c.proved_at]
    text = f"   {count(len(looked), 'check')} passed"
    if proved and now:
        text += f", {len(proved)} proved earlier (oldest {ago(min(c.proved_at for c in proved), now)})"
    return text


def _done(view: RunView) -> str:
    passed = count(sum(c.ok for c in tally.checks(view)), "check")
    took = duration(tally.seconds(view))
    return f"✓ done in {took}   {tally.changed(view)} changed, {tally.unchanged(view)} unchanged, {passed} passed"


def _pointers(view: RunView, width: int) -> list[str]:
    path = evidence_path(view)
    return [clip(f"  record   {path}", width)] if path else []


def _success(view: RunView, width: int) -> Iterator[str]:
    yield from _pointers(view, width)
    for step in view.steps.values():
        if step.action == "backup" and step.summary:
            yield clip(f"  backup   {clean(step.summary)}", width)
    yield f"  look     runbook status {view.environment}   ·   runbook show {view.id}"


def _failure(view: RunView, width: int) -> Iterator[str]:
    step = view.steps.get(StepId(view.failed_step))
    if step is None:
        yield from _taken_back(view, width)
        return
    from_start = between(step.started, step.finished)
    after = f" after {duration(from_start)}" if from_start else ""
    yield clip(f'✗ {tally.phase_label(view, step)}   step "{clean(step.name)}" failed{after}', width)
    for line in clean_lines(view.failure):
        yield from wrap(line, width, "    ")
    for check in step.checks.values():
        if not check.ok and check.saw not in view.failure:
            yield from wrap(f"check {check.check}: {check.saw}", width, "    ")
    yield from _taken_back(view, width)


def _taken_back(view: RunView, width: int) -> Iterator[str]:
    back = {StepStatus.UNDONE, StepStatus.UNDO_FAILED}
    rows = [[_undo_word(s), s.id, clean(s.undo_detail)] for s in view.steps.values() if s.status in back]
    for line in reversed(columns(rows, indent="    ", gap="   ")):
        yield clip(line, width)
    kept = [o for s in view.steps.values() if s.status is StepStatus.UNDONE and s.change for o in s.change.residue]
    if kept:
        yield clip(f"    kept     {count(len(kept), 'object')} (residue): {', '.join(map(clean, kept))}", width)


def _undo_word(step: StepView) -> str:
    if step.status is StepStatus.UNDO_FAILED:
        return "✗ not undone"
    return "✓ undone" if step.change is None or step.change.undo_to else "= kept"


def _ending(view: RunView, width: int) -> list[str]:
    took = duration(tally.seconds(view))
    stands = [p for p in tally.phases(view) if p.id in view.savepoints]
    standing = f" {_numbers([p.number for p in stands])} stand{'s' if len(stands) == 1 else ''};" if stands else ""
    where = savepoint(view)
    total = f"{tally.done(view)} of {count(len(view.steps), 'step')} done"
    endings = {
        RunStatus.ROLLED_BACK: f"✗ failed and rolled back to {where} in {took}.{standing} nothing else was touched.",
        RunStatus.ROLLBACK_INCOMPLETE: f"✗ {'failed; ' if view.failure else ''}rollback to {where} incomplete: "
        f"{count(len(_stuck(view)), 'step')} could not be taken back.",
        RunStatus.FAILED: f"✗ failed after {took} and left as it is. {total}.",
        RunStatus.REFUSED: f"✗ refused after {took}; what this run had changed is back at {where}.",
        RunStatus.STOPPED: f"! stopped after {took}: {total}, nothing is running any more.",
    }
    if view.status is RunStatus.ROLLED_BACK and not view.failure:
        return wrap(f"✓ run {view.id} is taken back; what was there before it stands again.", width, "")
    ending = endings.get(view.status, f"▸ run {view.id} is {view.status.value}: {total}.")
    return wrap(ending.replace(". nothing", ". Nothing"), width, "")


def _next(view: RunView, position: str) -> list[str]:
    rows = [["look at", position]] if position and view.failed_step else []
    return columns([*rows, *([why, command] for why, command in next_commands(view))], indent="  ", gap="   ")


def _stuck(view: RunView) -> list[StepView]:
    return [s for s in view.steps.values() if s.status is StepStatus.UNDO_FAILED]


def _numbers(numbers: list[int]) -> str:
    """`Phase 1`, `Phases 1–4`, `Phases 1, 3`."""
    if len(numbers) == 1:
        return f"Phase {numbers[0]}"
    whole = numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"Phases {numbers[0]}–{numbers[-1]}" if whole else f"Phases {', '.join(map(str, numbers))}"
