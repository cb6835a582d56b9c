"""From a runbook and what is live to a plan: every change, its honesty label, and what a deferred step is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from engine.core.change import Change, Fidelity, Verb
from engine.core.events import digest_of
from engine.core.model import Step, StepId
from engine.errors import NotYetError, RefusedError, RunbookError, TemporaryError

WORKERS = 4
DEFERRED_VERBS = frozenset({Verb.NONE, Verb.CREATE, Verb.UPDATE, Verb.RUN})
"""What a deferred step may turn out to do, unless an approval widens it."""


class PlanError(RefusedError):
    """Steps that cannot be planned, all of them at once. Nothing was touched."""

    def __init__(self, problems: Mapping[StepId, str]) -> None:
        self.problems = dict(problems)
        body = "\n".join(f"{step}: {problem}" for step, problem in problems.items())
        super().__init__(f"{body}\n{len(problems)} of the steps cannot be planned. Nothing was touched.")


@dataclass(frozen=True, slots=True)
class Plan:
    """Every change of a run, in order. `digest` is what a run and an approval are held to."""

    environment: str
    runbook: str
    target: str
    """Which cluster (its uid) and store; empty when there is none yet."""
    inputs: str
    variables: str
    changes: Mapping[StepId, Change]
    reasons: Mapping[StepId, str] = field(default_factory=dict)
    """Why a step is left out: `when` was false, or not selected."""

    @property
    def digest(self) -> str:
        return digest_of(self.to_json())

    @property
    def wanted(self) -> list[Change]:
        """What is not NONE."""
        return [c for c in self.changes.values() if c.verb is not Verb.NONE]

    def count(self, key: Callable[[Change], str]) -> dict[str, int]:
        """How many changes per verb, fidelity, …"""
        totals: dict[str, int] = {}
        for change in self.changes.values():
            totals[key(change)] = totals.get(key(change), 0) + 1
        return totals

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "environment": self.environment,
            "runbook": self.runbook,
            "target": self.target,
            "inputs": self.inputs,
            "variables": self.variables,
            "changes": [c.to_json() for c in self.changes.values()],
            "left_out": dict(self.reasons),
        }


def plan_steps(
    steps: Sequence[Step], plan_one: Callable[[Step], Change | None], *, workers: int = WORKERS
) -> dict[StepId, Change | None]:
    """Plan every step, several at once; the answer is in the order given. None: the step is left out.

    What does not exist yet, or does not answer now (a webhook whose pods an earlier step brings back), makes a step
    deferred; an earlier step must then change something.
    """

    def attempt(step: Step) -> Change | RunbookError | None:
        try:
            return plan_one(step)
        except (NotYetError, TemporaryError) as error:
            return deferred(step, str(error))
        except RunbookError as error:
            return error

    with ThreadPoolExecutor(workers, thread_name_prefix="plan") as pool:
        answers = dict(zip((s.id for s in steps), pool.map(attempt, steps), strict=True))
    problems = {step: str(answer) for step, answer in answers.items() if isinstance(answer, RunbookError)}
    planned = {step: answer for step, answer in answers.items() if not isinstance(answer, RunbookError)}
    problems |= _groundless(steps, planned)
    if problems:
        raise PlanError(problems)
    return planned


def deferred(step: Step, reason: str, envelope: Mapping[str, str] | None = None) -> Change:
    """A change that cannot be known yet; it is planned again in its turn and held to the envelope."""
    return Change(
        step=step.id,
        verb=Verb.CREATE,
        fidelity=Fidelity.DEFERRED,
        irreversible=step.irreversible,
        reason=reason,
        envelope=envelope or {},
    )


def with_author(step: Step, change: Change) -> Change:
    """The change with what its author said of it: a barrier is a barrier whatever the action thinks."""
    if step.irreversible and change.verb is not Verb.NONE:
        return replace(change, irreversible=step.irreversible)
    return change


def outside_envelope(planned: Change, turn: Change) -> list[str]:
    """How a deferred step, planned in its turn, leaves what was sealed. Empty: it may run."""
    broken = [] if turn.verb in DEFERRED_VERBS else [f"it would {turn.verb}, which a deferred step may not"]
    broken += [
        f"{name} was sealed as {digest[:12]} and is now {turn.envelope[name][:12]}"
        for name, digest in planned.envelope.items()
        if name in turn.envelope and turn.envelope[name] != digest
    ]
    return broken


def barrier(changes: Iterable[Change]) -> Change | None:
    """The first change with no way back: rollback stops there."""
    return next((c for c in changes if c.irreversible and c.verb is not Verb.NONE), None)


def _groundless(steps: Sequence[Step], planned: Mapping[StepId, Change | None]) -> dict[StepId, str]:
    """Deferred steps for which nothing earlier changes anything: what they wait for will never come."""
    moving: set[StepId] = set()
    groundless: dict[StepId, str] = {}
    for position, step in enumerate(steps):
        change = planned.get(step.id)
        if change is None:
            continue
        if change.fidelity is Fidelity.DEFERRED and not any(s.id in moving for s in steps[:position]):
            groundless[step.id] = f"{change.reason}, and no earlier step changes that"
        if change.verb is not Verb.NONE:
            moving.add(step.id)
    return groundless
