"""One step of a run: read, converge, write the intent, act, write the outcome, prove it.

Every way through here is resumable: what an open intent means after a crash is decided by reading, never by guessing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_exponential

from engine.core.action import Action, Context, Deadline, Kind
from engine.core.change import ABSENT, Change, Delta, Fidelity, Outcome, Preimage, State, Verb, state_to_json
from engine.core.convergence import Decision, Verdict, converge
from engine.core.events import EventType
from engine.core.history import StepStatus, StepView
from engine.core.model import Step, StepId
from engine.core.parts import Parts
from engine.core.planning import outside_envelope, with_author
from engine.core.resolved import Resolved
from engine.errors import NotYetError, PermanentError, RefusedError, TemporaryError
from engine.run.checking import Proofs, proved_state, run_checks
from engine.run.environment import EnvironmentRecord
from engine.run.lease import holder
from engine.run.recorder import Recorder

_READ_SECONDS = 30.0
"""How long a step's turn waits for what it reads from to answer."""
_AT_REST = timedelta(seconds=30)
"""How long a failing check is looked at again where nothing was changed: nothing is on its way to pass."""
_STATE_ATTEMPTS = 3  # a STATE's apply is repeatable, so a passing trouble is tried again


class Settlement(StrEnum):
    """A person's word on a step in doubt: its effect happened, or it did not and may be done again."""

    DONE = "done"
    AGAIN = "again"


class StaleError(RefusedError):
    """A step's target moved since the plan. It was not touched."""


@dataclass(frozen=True, slots=True)
class StepRunner:
    """Carries out single steps of one run."""

    parts: Parts
    recorder: Recorder
    record: EnvironmentRecord
    proofs: Proofs
    settled: Mapping[StepId, Settlement] = field(default_factory=dict)
    """What a person says of steps in doubt that cannot tell themselves."""

    def run(self, step: Step, registered: Mapping[str, Any], *, moved: bool) -> StepStatus:
        """Bring one step to its end. `moved`: a step this one needs changed something in this run.

        Raises StaleError, CheckFailedError, or whatever the action raised; the caller records the failure.
        """
        view = self.recorder.view.steps[step.id]
        to_prove = view.status is StepStatus.APPLIED  # a crash came between the outcome and the checks
        self.recorder.record(EventType.STEP_STARTED, step.id)
        resolved = self.parts.resolver.resolve(step, registered)
        if resolved.skip:
            return self._finish(step, StepStatus.SKIPPED, resolved.reason)
        action = self.parts.actions[step.action]
        if to_prove:
            return self._prove(step, action, resolved, view.change, StepStatus.CHANGED)
        planned = view.change
        if planned is not None and self._stands(planned, action, moved=moved, doubt=view.open_intent):
            patience = step.timeout if moved else min(step.timeout, _AT_REST)
            return self._prove(step, action, resolved, planned, StepStatus.UNCHANGED, patience)
        return self._converge(step, action, resolved, view)

    @staticmethod
    def _stands(planned: Change, action: Action, *, moved: bool, doubt: bool) -> bool:
        """A NONE planned moments ago holds, unless a step it needs has changed something since."""
        if planned.verb is not Verb.NONE or planned.fidelity is Fidelity.DEFERRED or doubt:
            return False
        return action.kind is Kind.EVENT or not moved

    def _converge(self, step: Step, action: Action, resolved: Resolved, view: StepView) -> StepStatus:
        settled = self.settled.get(step.id) if view.open_intent else None
        if settled is Settlement.DONE and view.change is not None:
            word = {"settled": settled.value, "by": holder()}
            self._outcome(step, view.change, Outcome(f"settled by {holder()}: it was done", evidence=word), {})
            return self._prove(step, action, resolved, view.change, StepStatus.CHANGED)
        resuming = view.open_intent and settled is None
        key = f"{self.recorder.view.id}/{step.id}" if action.kind is Kind.EVENT else None
        ctx = self.parts.context(step, resolved, key=key, resuming=resuming)
        now = self._patiently(ctx, _READ_SECONDS)(action.read, resolved.params, ctx)
        change = view.change
        if change is None or change.fidelity is Fidelity.DEFERRED:
            turn = with_author(step, action.plan(resolved.params, now, ctx))
            change = self._addendum(step, change, turn)
        verdict = converge(change, now.state, resuming=resuming)
        if verdict.decision is Decision.STALE:
            raise StaleError(_stale(change, now.state, verdict))
        if change.verb is Verb.NONE or (verdict.decision is Decision.ALREADY and not resuming):
            return self._prove(step, action, resolved, change, StepStatus.UNCHANGED)
        if verdict.decision is Decision.ALREADY:
            # An event tells again, by its key, what evidence it left; a state has none to tell.
            again = action.kind is Kind.EVENT
            outcome = action.apply(resolved.params, change, ctx) if again else Outcome("done before the crash")
            self._outcome(step, change, outcome, now.state)
        else:
            preimage = view.preimage or action.capture(resolved.params, change, now, ctx)
            self._apply(step, action, resolved, change, preimage, ctx)
        return self._prove(step, action, resolved, view.change, StepStatus.CHANGED)

    def _addendum(self, step: Step, planned: Change | None, turn: Change) -> Change:
        broken = outside_envelope(planned, turn) if planned else []
        if broken:
            raise RefusedError(f"{step.id} leaves what the plan sealed: {'; '.join(broken)}. It was not touched.")
        if turn.fidelity is Fidelity.DEFERRED and not turn.objects:
            raise PermanentError(f"{step.id}: {turn.reason}, though every step before it is done")
        self.recorder.record(EventType.ADDENDUM, step.id, {"change": turn.to_json()})
        return turn

    def _apply(
        self, step: Step, action: Action, resolved: Resolved, change: Change, preimage: Preimage, ctx: Context
    ) -> None:
        self.recorder.record(
            EventType.INTENT,
            step.id,
            {"verdict": Decision.APPLY.value, "preimage": preimage.to_json(), "key": ctx.key, "resuming": ctx.resuming},
        )
        self.fence(step)
        # What is begun is finished: the user's first wish to stop only keeps the next step from starting.
        ctx = replace(ctx, deadline=Deadline(ctx.deadline.remaining()))
        attempts = step.retries + 1 if action.kind is Kind.EVENT else max(step.retries + 1, _STATE_ATTEMPTS)
        retrying = self._patiently(ctx, ctx.deadline.remaining(), attempts, step.delay.total_seconds())
        outcome = retrying(action.apply, resolved.params, change, ctx)
        live = self._reached(step, action, resolved, change, ctx) if action.kind is Kind.STATE else {}
        self._outcome(step, change, outcome, live)

    @staticmethod
    def _patiently(ctx: Context, seconds: float, attempts: int = 0, delay: float = 0.5) -> Retrying:
        """Try again what may pass. In a step's own turn `not yet` is such: all it waits for is done."""
        within = stop_after_delay(min(seconds, ctx.deadline.remaining()))
        return Retrying(
            retry=retry_if_exception_type((TemporaryError, NotYetError)),
            stop=within | stop_after_attempt(attempts) if attempts else within,
            wait=wait_exponential(multiplier=delay, max=15),
            sleep=ctx.deadline.wait,
            reraise=True,
        )

    def fence(self, step: Step, *, undo: bool = False) -> None:
        """Before an effect: this run still holds the environment. A refusal voids the intent just written."""
        try:
            self.record.advance(self.recorder.view.id, self.recorder.view.started)
        except RefusedError:
            self.recorder.record(EventType.FENCED, step.id, {"undo": undo})
            raise

    def _reached(self, step: Step, action: Action, resolved: Resolved, change: Change, ctx: Context) -> State:
        """The state after apply; PermanentError when it is not what was planned."""
        live = action.read(resolved.params, ctx).state
        missed = [o for o, d in change.objects.items() if d.after is not None and live.get(o, ABSENT) != d.after]
        if missed:
            raise PermanentError(
                f"{step.id}: applied, but {', '.join(missed)} did not reach what was planned: "
                "something else changes it, or the server changed what was sent"
            )
        return live

    def _outcome(self, step: Step, change: Change, outcome: Outcome, live: State) -> None:
        refined = _refined(change, live)
        self.recorder.record(
            EventType.OUTCOME,
            step.id,
            {
                "summary": outcome.summary,
                "outputs": {} if step.sensitive else dict(outcome.outputs),
                "evidence": dict(outcome.evidence),
                "change": refined.to_json() if refined is not change else None,
                "after": state_to_json(live),
            },
        )

    def _prove(
        self,
        step: Step,
        action: Action,
        resolved: Resolved,
        change: Change | None,
        status: StepStatus,
        patience: timedelta | None = None,
    ) -> StepStatus:
        specs = [*action.checks(resolved.params), *resolved.verify]
        ctx = self.parts.context(step, resolved, deadline=self.parts.deadline(patience or step.timeout))
        run_checks(specs, ctx, self.parts, self.recorder, self.proofs, proved_state(change))
        return self._finish(step, status, change.reason if change and status is StepStatus.UNCHANGED else "")

    def _finish(self, step: Step, status: StepStatus, reason: str) -> StepStatus:
        self.recorder.record(EventType.STEP_FINISHED, step.id, {"status": status.value, "reason": reason})
        return status


def _refined(change: Change, live: State) -> Change:
    """What was not known before the step ran is known now. `before` and `undo_to` stay as journaled."""
    if not live or all(d.after is not None for d in change.objects.values()):
        return change
    objects: dict[Any, Delta] = {
        o: d if d.after is not None else replace(d, after=live.get(o, ABSENT)) for o, d in change.objects.items()
    }
    return replace(change, objects=objects)


def _stale(change: Change, live: State, verdict: Verdict) -> str:
    lines = [f"{change.step}: the target moved since the plan, so it was not touched"]
    for object_id in verdict.stale:
        delta, seen = change.objects[object_id], live.get(object_id, ABSENT)
        after = delta.after.digest[:12] if delta.after else "?"
        now = f"{seen.unfinished or ''} {seen.digest[:12] or 'absent'}".strip()
        lines.append(f"  {object_id}: planned {delta.before.digest[:12] or 'absent'} → {after or 'absent'}, now {now}")
    lines.append("  look at it, then plan again")
    return "\n".join(lines)
