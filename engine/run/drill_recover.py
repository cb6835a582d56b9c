"""A drill's second half: the fault is noticed, somebody decides, the way back is taken, and checks prove it."""

from __future__ import annotations

from dataclasses import replace

from engine.core.change import Outcome
from engine.core.drill import GO, NOTICE, Stage
from engine.core.history import StepStatus
from engine.core.model import Step, StepId
from engine.errors import CancelledError, RunbookError
from engine.run.checking import Proofs, proved_state, run_checks
from engine.run.drilling import LOOK_SECONDS, Drilling, proving, specs_of
from engine.run.lease import holder
from engine.run.rehearsal import Look, first_failing


class UndecidedError(RunbookError):
    """Nobody gave the word to recover. The platform is as the fault left it; `resume` asks again."""


def detect(drilling: Drilling) -> None:
    """Look until one of the checks that must notice does; go on unnoticed when `within` is over."""
    if drilling.view.steps[NOTICE].status is not StepStatus.APPLIED:
        drilling.begin(NOTICE)
        look, within = _noticed(drilling), drilling.plan.within.total_seconds()
        if look is None or look.cut_short:
            unknown = f"; the last look was cut short at {look.check}" if look else ""
            check, saw = "", f"no check noticed within {within:.0f} s{unknown}"
        else:
            check, saw = look.check, drilling.parts.redact(look.saw)
        evidence = {"noticed": bool(check), "check": check, "saw": saw}
        drilling.outcome(NOTICE, Outcome(f"{check}: {saw}" if check else saw, evidence=evidence))
    drilling.end(NOTICE, StepStatus.CHANGED)
    drilling.close(Stage.DETECT)


def _noticed(drilling: Drilling) -> Look | None:
    """The look that noticed, else the last one."""
    deadline = drilling.parts.deadline(drilling.plan.within)
    while True:
        look = first_failing(drilling.session, drilling.plan.detect, deadline)
        if look is not None and not look.cut_short:
            return look
        if deadline.cancelled:
            raise CancelledError("stopped while waiting for the fault to be noticed")
        if not deadline.remaining():
            return look
        deadline.wait(LOOK_SECONDS)


def decide(drilling: Drilling) -> None:
    """A person's word. UndecidedError without it: the drill stays open, and the platform as it is."""
    if drilling.view.steps[GO].status is not StepStatus.APPLIED:
        drilling.begin(GO)
        what = f"{drilling.plan.title}: {drilling.session.environment} is down"
        question = f"{what}. Begin the recovery? Type yes or no, then Enter"
        if not drilling.go:
            drilling.parts.observer.progress(GO, question)
            if not drilling.parts.ask(question):
                raise UndecidedError("nobody gave the word to recover")
        given = "beforehand" if drilling.go else "when asked"
        drilling.outcome(GO, Outcome(f"{holder()}, {given}", evidence={"by": holder(), "given": given}))
    drilling.end(GO, StepStatus.CHANGED)
    drilling.close(Stage.DECIDE)


def act(drilling: Drilling) -> None:
    """The steps of the way back, one after the other."""
    for step in drilling.plan.recover:
        if drilling.parts.cancelled.is_set():
            raise CancelledError("stopped during the recovery")
        if not drilling.view.steps[step.id].status.done:
            drilling.runner.run(step, drilling.registered(), moved=True)
    drilling.close(Stage.ACT)


def verify(drilling: Drilling) -> None:
    """Every check of every step that must prove it; all are looked at, whatever the one before said."""
    for step_id in drilling.plan.verify:
        if drilling.parts.cancelled.is_set():
            raise CancelledError("stopped while verifying")
        if not drilling.view.steps[proving(step_id)].status.done:
            _prove(drilling, drilling.session.runbook.step(step_id))
    if not unproved(drilling):
        drilling.close(Stage.VERIFY)


def unproved(drilling: Drilling) -> list[StepId]:
    """The steps of `verify` whose checks did not pass."""
    return [s for s in drilling.plan.verify if not drilling.view.steps[proving(s)].status.done]


def _prove(drilling: Drilling, original: Step) -> None:
    parts, step = drilling.parts, replace(original, id=proving(original.id))
    drilling.begin(step.id)
    try:
        resolved = parts.resolver.resolve(original, drilling.registered())
        if resolved.skip:
            drilling.end(step.id, StepStatus.SKIPPED, resolved.reason)
            return
        ctx = parts.context(step, resolved, deadline=parts.deadline(drilling.plan.patience))
        specs = specs_of(drilling.session, original, resolved)
        run_checks(specs, ctx, parts, drilling.recorder, Proofs(), proved_state(None))
    except CancelledError:
        raise
    except RunbookError as error:
        limit = f"not within the {drilling.plan.patience.total_seconds():.0f} s that `verify` gives it"
        drilling.fail(step.id, f"{parts.failure(original, error)}\n{limit}", type(error).__name__)
    else:
        drilling.end(step.id, StepStatus.UNCHANGED)
