"""Carrying a drill out: sentinels, the fault, and the way back, each stage in the journal and resumable.

Before the fault's intent is on disk nothing is broken: whatever ends the process there, `resume` only clears up. From
then on every end is taken up again at the stage it reached, and leads to the recovery.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, TypeVar

from engine.core.action import CheckSpec, Context, Deadline, Finding
from engine.core.change import Outcome
from engine.core.drill import (
    FAULT,
    GO,
    LOSS,
    NOTICE,
    SENTINELS,
    TITLES,
    Drill,
    SentinelStore,
    Stage,
    Verdict,
    judge,
    loss,
    struck_at,
    times,
)
from engine.core.events import Event, EventType
from engine.core.history import RunStatus, RunView, StepStatus
from engine.core.model import Step, StepId
from engine.core.resolved import Resolved
from engine.errors import CancelledError, InDoubtError, NotYetError, RefusedError, RunbookError, TemporaryError
from engine.run.checking import Proofs, proved_state, run_checks
from engine.run.deploy import ORPHAN_SECONDS, new_run_id, refuse_unfinished
from engine.run.lease import holder, lease
from engine.run.recorder import Recorder
from engine.run.sentinels import SentinelLog, SentinelWriter
from engine.run.session import Session
from engine.run.steps import StepRunner

STANDS = 1
"""Exit code: the drill did not succeed, the platform stands."""
BROKEN = 5
"""Exit code: the platform is not back."""
_LOOK = 0.5  # seconds between two looks whether the fault is noticed
_FIRST_SECONDS = 30.0  # how much longer than planned the first sentinels may take
T = TypeVar("T")
_PATIENCE = timedelta(minutes=1)  # for reading the sentinels back, and for clearing up


def drill(session: Session, plan: Drill, *, go: bool = False) -> RunView:
    """Carry a drill out. `go`: the decision to recover is given already, nobody is asked.

    RefusedError (exit 4), with nothing broken, when the environment does not allow drills, is held or has an
    unfinished run, or when the drill does not find the platform whole and its way back plannable.
    """
    run, since = new_run_id(session), session.deployer.now.isoformat(timespec="seconds")
    with lease(session.state, session.environment, run, since):
        session.journal.verify()
        refuse_unfinished(session)
        rehearse(session, plan)
        session.record.claim(run, since)
        session.bind(run)
        recorder = Recorder(session.journal, RunView(run), session.deployer.observer)
        recorder.record(EventType.RUN_STARTED, data=_started(session, plan, go))
        return DrillRun(session, plan, recorder, go=go).carry()


def resume_drill(session: Session, plan: Drill, view: RunView, *, go: bool = False) -> RunView:
    """Go on with a drill that was stopped, killed, or could not recover. `session` was opened on its kept inputs."""
    with lease(session.state, session.environment, view.id, view.started):
        session.journal.verify()
        session.launcher.wait_for_orphans(Deadline(ORPHAN_SECONDS, session.deployer.cancelled))
        session.record.claim(view.id, view.started)
        recorder = Recorder(session.journal, view, session.deployer.observer)
        recorder.record(EventType.RESUMED, data={"holder": holder(), "pid": os.getpid()})
        return DrillRun(session, plan, recorder, go=go or bool(view.drill.get("go"))).carry()


def resumable(views: Mapping[str, RunView], environment: str, name: str = "") -> RunView | None:
    """The environment's newest drill, when it is open or the platform is not back from it."""
    mine = [v for v in views.values() if v.environment == environment and v.kind in ("deploy", "drill")]
    last = mine[-1] if mine else None
    if last is None or last.kind != "drill" or name not in ("", last.drill.get("id")):
        return None
    return last if last.status.open or last.exit_code == BROKEN else None


def rehearse(session: Session, plan: Drill) -> None:
    """Look, before anything is broken, whether the drill can be carried out. RefusedError says what stands in the way.

    The checks that must notice the fault pass now; the fault finds its target; each step of the way back can be
    planned.
    """
    if not session.drills_allowed:
        raise RefusedError(
            f"drills break things on purpose, and {session.environment} does not allow them: its inventory would have "
            "to say `drills: allowed`. Nothing was changed."
        )
    parts = session.deployer
    for step in (plan.sentinels, plan.fault):
        resolved = parts.resolver.resolve(step, {})
        if step is plan.fault:
            session.faults[step.action].target(resolved.params, parts.context(step, resolved))
    for step_id in (*plan.detect, *plan.verify):
        parts.resolver.resolve(session.runbook.step(step_id), {})
    failing = _first_failing(session, plan)
    if failing:
        raise RefusedError(
            f"{session.environment} is not whole: {failing[0]}: {failing[1]}. A drill begins on a platform that "
            "stands; nothing was changed."
        )
    for step in plan.recover:
        try:
            resolved = parts.resolver.resolve(step, {})
            ctx, action = parts.context(step, resolved), parts.actions[step.action]
            action.plan(resolved.params, action.read(resolved.params, ctx), ctx)
        except NotYetError:
            continue  # what `prepare` makes
        except CancelledError:
            raise
        except RunbookError as error:
            raise RefusedError(
                f"the way back cannot be planned, so nothing was broken: {step.id}: {parts.failure(step, error)}"
            ) from error


def _started(session: Session, plan: Drill, go: bool) -> dict[str, object]:
    steps = [
        (SENTINELS, Stage.WRITE, "Sentinels", plan.sentinels.action),
        *((s.id, Stage.WRITE, s.name, s.action) for s in plan.prepare),
        (FAULT, Stage.BREAK, plan.fault.name, plan.fault.action),
        (NOTICE, Stage.DETECT, "The checks notice", "check"),
        (GO, Stage.DECIDE, "The word to recover", "approval"),
        *((s.id, Stage.ACT, s.name, s.action) for s in plan.recover),
        *((_proving(s), Stage.VERIFY, session.runbook.step(s).name, "check") for s in plan.verify),
        (LOSS, Stage.JUDGE, "What was lost, how long it took", "judge"),
    ]
    return {
        "kind": "drill",
        "drill": {"id": plan.id, "title": plan.title, "targets": plan.targets.to_json(), "go": go, "by": holder()},
        "environment": session.environment,
        "runbook": session.runbook.name,
        "title": session.runbook.title,
        "holder": holder(),
        "pid": os.getpid(),
        "now": session.deployer.now.isoformat(),
        "inputs": session.inputs,
        "variables": session.variables,
        "target": session.target,
        "left_out": {},
        "plan": "",
        "changes": [],
        "phases": [[stage.value, title] for stage, title in TITLES.items()],
        "steps": [{"id": i, "phase": p.value, "name": n, "action": a, "needs": []} for i, p, n, a in steps],
    }


class DrillRun:
    """One drill, whether it has just begun or is taken up after a crash."""

    def __init__(self, session: Session, plan: Drill, recorder: Recorder, *, go: bool) -> None:
        self._session, self._plan, self._recorder, self._go = session, plan, recorder, go
        self._parts = session.deployer
        self._runner = StepRunner(self._parts, recorder, session.record, Proofs())
        self._log = SentinelLog.of(session.state, self.view.id)
        self._taken_up = bool(self.view.resumed)

    @property
    def view(self) -> RunView:
        return self._recorder.view

    def carry(self) -> RunView:
        """Go on from wherever the journal says the drill is. The run's last event is written here."""
        try:
            if not self._over(Stage.BREAK) and not self._break():
                return self.view
            self._close_sentinels()
            stages: Sequence[tuple[Stage, Callable[[], None]]] = (
                (Stage.DETECT, self._detect),
                (Stage.DECIDE, self._decide),
                (Stage.ACT, self._act),
                (Stage.VERIFY, self._verify),
            )
            for stage, work in stages:
                if not self._over(stage):
                    work()
            return self._judge()
        except CancelledError:
            return self._finish(RunStatus.STOPPED, 130)
        except InDoubtError:
            raise
        except RunbookError as error:
            step = next((s.id for s in self.view.steps.values() if s.status is StepStatus.RUNNING), LOSS)
            self._fail(step, error)
            return self._finish(RunStatus.FAILED, BROKEN)

    # --- Before and at the fault --------------------------------------------------------------------------------------

    def _break(self) -> bool:
        """Sentinels, then the fault. False: it ended before anything was broken."""
        fault, step = self._session.faults[self._plan.fault.action], self.view.steps[FAULT]
        resolved, ctx = self._ready(self._plan.fault)
        if step.open_intent and step.preimage is not None:
            target = step.preimage.references
            if not fault.begun(resolved.params, target, ctx):
                return self._abandon("killed before the fault had begun", STANDS)
            self._strike(resolved, target, ctx)
        elif step.status is StepStatus.APPLIED:
            self._end(FAULT, StepStatus.CHANGED)
        elif self._taken_up:
            return self._abandon("killed before the fault", STANDS)
        elif not self._write_and_strike(resolved, ctx):
            return False
        self._close(Stage.BREAK)
        return True

    def _write_and_strike(self, resolved: Resolved, ctx: Context) -> bool:
        store, params, writing = self._store()
        writer = SentinelWriter(store, params, self.view.id, writing, self._log, rate=self._plan.rate, clock=_now)
        self._begin(SENTINELS)
        try:
            store.prepare(params, self.view.id, writing)
            writer.start()
            self._some(writer)
            for step in self._plan.prepare:
                self._runner.run(step, self._registered(), moved=True)
            if self._plan.prepare:
                self._some(writer)
            self._begin(FAULT)
            target = self._session.faults[self._plan.fault.action].target(resolved.params, ctx)
            self._intend(target)
        except CancelledError:
            writer.stop()
            return self._abandon("stopped before the fault", 130)
        except RunbookError as error:
            writer.stop()
            running = [s.id for s in self.view.steps.values() if s.status in (StepStatus.RUNNING, StepStatus.IN_DOUBT)]
            self._fail(running[-1], error)
            return self._abandon("failed before the fault", 4 if isinstance(error, RefusedError) else STANDS)
        try:
            self._strike(resolved, target, ctx)
        finally:
            writer.stop()
        return True

    def _some(self, writer: SentinelWriter) -> None:
        """Wait until as many more were acknowledged as fit into `before`."""
        seconds = self._plan.before.total_seconds()
        more = max(1, ceil(seconds * self._plan.rate))
        if not writer.wait_for(writer.acknowledged + more, 2 * seconds + _FIRST_SECONDS):
            if self._parts.cancelled.is_set():
                raise CancelledError("stopped while sentinels were written")
            raise RunbookError(
                f"only {writer.acknowledged} sentinels were acknowledged: {writer.trouble or 'the application is slow'}"
            )

    def _intend(self, target: Mapping[str, Any]) -> None:
        """From here on the platform may be broken."""
        preimage = {"references": dict(target), "blob": ""}
        key = f"{self.view.id}/{FAULT}"
        data = {"verdict": "apply", "preimage": preimage, "key": key, "resuming": False}
        self._recorder.record(EventType.INTENT, FAULT, data)
        self._runner.fence(replace(self._plan.fault, id=FAULT))

    def _strike(self, resolved: Resolved, target: Mapping[str, Any], ctx: Context) -> None:
        """The blow. One that only half succeeds needs the way back all the same."""
        fault = self._session.faults[self._plan.fault.action]
        ctx = replace(ctx, deadline=Deadline(self._plan.fault.timeout.total_seconds()))
        try:
            outcome = fault.strike(resolved.params, target, ctx)
        except RunbookError as error:
            told = self._parts.failure(self._plan.fault, error)
            outcome = Outcome(f"begun, but not as written: {told}", evidence={"incomplete": told})
        self._outcome(FAULT, outcome)
        self._end(FAULT, StepStatus.CHANGED)

    def _abandon(self, why: str, code: int) -> bool:
        """Nothing is broken: take the sentinels away and end."""
        self._clear()
        self._recorder.record(EventType.STEP_FINISHED, LOSS, {"status": StepStatus.SKIPPED.value, "reason": why})
        self._finish(RunStatus.ABANDONED, code)
        return False

    def _close_sentinels(self) -> None:
        """What was acknowledged is final: the log's digest goes into the journal."""
        step = self.view.steps[SENTINELS]
        if not step.status.done:
            evidence = self._log.evidence()
            if step.status is not StepStatus.APPLIED:
                count = evidence["acknowledged"]
                self._outcome(
                    SENTINELS, Outcome(f"{count} acknowledged, {self._plan.rate:g} a second", evidence=evidence)
                )
            self._end(SENTINELS, StepStatus.CHANGED)
        if not self._over(Stage.WRITE):
            self._close(Stage.WRITE)

    # --- The way back -------------------------------------------------------------------------------------------------

    def _detect(self) -> None:
        """Look until one of the checks that must notice does; go on unnoticed when `within` is over."""
        if self.view.steps[NOTICE].status is not StepStatus.APPLIED:
            self._begin(NOTICE)
            deadline = self._parts.deadline(self._plan.within)
            failing = _first_failing(self._session, self._plan)
            while not failing and deadline.remaining() and not deadline.cancelled:
                deadline.wait(_LOOK)
                failing = _first_failing(self._session, self._plan)
            if not failing and deadline.cancelled:
                raise CancelledError("stopped while waiting for the fault to be noticed")
            check, saw = failing or ("", f"no check noticed within {self._plan.within.total_seconds():.0f} s")
            evidence = {"noticed": bool(failing), "check": check, "saw": self._parts.redact(saw)}
            self._outcome(NOTICE, Outcome(f"{check}: {evidence['saw']}" if check else saw, evidence=evidence))
        self._end(NOTICE, StepStatus.CHANGED)
        self._close(Stage.DETECT)

    def _decide(self) -> None:
        """A person's word. Without it the platform stays as it is, and the drill open."""
        if self.view.steps[GO].status is not StepStatus.APPLIED:
            self._begin(GO)
            question = f"{self._plan.title}: {self._session.environment} is down. Begin the recovery?"
            if not self._go:
                self._parts.observer.progress(GO, question)
                if not self._parts.ask(question):
                    raise CancelledError("nobody gave the word to recover")
            by = "given beforehand" if self._go else "asked"
            self._outcome(GO, Outcome(f"{holder()}, {by}", evidence={"by": holder(), "given": by}))
        self._end(GO, StepStatus.CHANGED)
        self._close(Stage.DECIDE)

    def _act(self) -> None:
        """The steps of the way back, one after the other."""
        for step in self._plan.recover:
            if self._parts.cancelled.is_set():
                raise CancelledError("stopped during the recovery")
            if not self.view.steps[step.id].status.done:
                self._runner.run(step, self._registered(), moved=True)
        self._close(Stage.ACT)

    def _verify(self) -> None:
        """Every check of every step that must prove it; all are looked at, whatever the one before said."""
        for step_id in self._plan.verify:
            if self._parts.cancelled.is_set():
                raise CancelledError("stopped while verifying")
            step = replace(self._session.runbook.step(step_id), id=_proving(step_id))
            if not self.view.steps[step.id].status.done:
                self._prove(self._session.runbook.step(step_id), step)
        if not self._unproved():
            self._close(Stage.VERIFY)

    def _prove(self, original: Step, step: Step) -> None:
        self._begin(step.id)
        parts = self._parts
        try:
            resolved = parts.resolver.resolve(original, self._registered())
            if resolved.skip:
                self._end(step.id, StepStatus.SKIPPED, resolved.reason)
                return
            ctx = parts.context(step, resolved, deadline=parts.deadline(self._plan.patience))
            run_checks(
                _specs(self._session, original, resolved), ctx, parts, self._recorder, Proofs(), proved_state(None)
            )
        except CancelledError:
            raise
        except RunbookError as error:
            self._fail(step.id, error)
        else:
            self._end(step.id, StepStatus.UNCHANGED)

    def _unproved(self) -> list[str]:
        return [s for s in self._plan.verify if not self.view.steps[_proving(s)].status.done]

    # --- The judgement ------------------------------------------------------------------------------------------------

    def _judge(self) -> RunView:
        step = self.view.steps[LOSS]
        if step.status is not StepStatus.APPLIED:
            self._begin(LOSS)
            verdict = self._verdict()
            summary = "; ".join(verdict.misses) or "all targets met"
            self._outcome(LOSS, Outcome(summary, evidence=verdict.to_json()))
        evidence = self.view.steps[LOSS].evidence
        self._end(LOSS, StepStatus.CHANGED, self._clear())
        self._close(Stage.JUDGE)
        if not evidence["recovered"]:
            return self._finish(RunStatus.FAILED, BROKEN)
        return self._finish(*((RunStatus.FAILED, STANDS) if evidence["misses"] else (RunStatus.SUCCEEDED, 0)))

    def _verdict(self) -> Verdict:
        acknowledged = self._log.sealed(self.view.steps[SENTINELS].evidence)
        store, params, ctx = self._store(self._parts.deadline(_PATIENCE))
        found = _patiently(lambda: store.read(params, self.view.id, ctx), ctx)
        events = self._events()
        lost = loss(acknowledged, found, struck_at(events), self._backup_taken())
        noticed = bool(self.view.steps[NOTICE].evidence["noticed"])
        verdict = judge(lost, times(events), self._plan.targets, noticed=noticed, unproved=self._unproved())
        incomplete = self.view.steps[FAULT].evidence.get("incomplete")
        return replace(verdict, misses=(*verdict.misses, f"the fault: {incomplete}")) if incomplete else verdict

    def _backup_taken(self) -> str | None:
        """When the backup was made that the way back restored: its evidence says it as `taken`."""
        told = [self.view.steps[s.id].evidence.get("taken") for s in self._plan.recover]
        return next((str(taken) for taken in told if taken), None)

    def _clear(self) -> str:
        """Take the sentinels away; what stands in the way of that is told, and no failure of the drill."""
        store, params, ctx = self._store(self._parts.deadline(_PATIENCE))
        try:
            _patiently(lambda: store.clear(params, self.view.id, ctx), ctx)
        except RunbookError as error:
            return f"the sentinels could not be taken away: {self._parts.redact(str(error))}"
        return ""

    # --- Journal ------------------------------------------------------------------------------------------------------

    def _store(self, deadline: Deadline | None = None) -> tuple[SentinelStore, Any, Context]:
        resolved = self._parts.resolver.resolve(self._plan.sentinels, {})
        ctx = self._parts.context(self._plan.sentinels, resolved, deadline=deadline)
        return self._session.sentinels[self._plan.sentinels.action], resolved.params, ctx

    def _ready(self, step: Step) -> tuple[Resolved, Context]:
        resolved = self._parts.resolver.resolve(step, {})
        return resolved, self._parts.context(step, resolved)

    def _registered(self) -> Mapping[str, Any]:
        steps = (*self._plan.prepare, *self._plan.recover)
        return self.view.registered({s.id: s.register for s in steps if s.register})

    def _events(self) -> list[Event]:
        return self._session.journal.events(self.view.id)

    def _over(self, stage: Stage) -> bool:
        return stage in self.view.finished_phases

    def _close(self, stage: Stage) -> None:
        self._recorder.record(EventType.PHASE_FINISHED, data={"phase": stage.value, "savepoint": False})

    def _begin(self, step: StepId) -> None:
        self._recorder.record(EventType.STEP_STARTED, step)

    def _outcome(self, step: StepId, outcome: Outcome) -> None:
        data = {
            "summary": outcome.summary,
            "outputs": {},
            "evidence": dict(outcome.evidence),
            "change": None,
            "after": {},
        }
        self._recorder.record(EventType.OUTCOME, step, data)

    def _end(self, step: StepId, status: StepStatus, reason: str = "") -> None:
        self._recorder.record(EventType.STEP_FINISHED, step, {"status": status.value, "reason": reason})

    def _fail(self, step: StepId, error: RunbookError) -> None:
        told = {"error": self._parts.redact(str(error)), "kind": type(error).__name__}
        self._recorder.record(EventType.STEP_FAILED, step, told)

    def _finish(self, status: RunStatus, code: int) -> RunView:
        """The run's last event. One that is only stopped keeps the environment."""
        self._recorder.record(EventType.RUN_FINISHED, data={"status": status.value, "exit": code})
        if not status.open:
            self._session.record.release()
        return self.view


def _proving(step: StepId) -> StepId:
    return StepId(f"verify/{step}")


def _specs(session: Session, step: Step, resolved: Resolved) -> list[CheckSpec]:
    return [*session.deployer.actions[step.action].checks(resolved.params), *resolved.verify]


def _first_failing(session: Session, plan: Drill) -> tuple[str, str] | None:
    """Look once with every check that must notice: what the first one that does not pass saw."""
    parts = session.deployer
    for step_id in plan.detect:
        step = session.runbook.step(step_id)
        resolved = parts.resolver.resolve(step, {})
        ctx = parts.context(step, resolved, deadline=parts.deadline(step.timeout))
        for spec in _specs(session, step, resolved):
            try:
                finding = parts.checks[spec.family].run(spec.params, ctx)
            except CancelledError:
                raise
            except RunbookError as error:
                finding = Finding(False, str(error))
            if not finding.ok:
                return f"{step_id}: check {spec.describe()}", finding.saw
    return None


def _patiently(look: Callable[[], T], ctx: Context) -> T:
    """Until it answers, or the deadline passes."""
    while True:
        try:
            return look()
        except (TemporaryError, NotYetError):
            if not ctx.deadline.remaining() or ctx.deadline.cancelled:
                raise
            ctx.deadline.wait(_LOOK)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
