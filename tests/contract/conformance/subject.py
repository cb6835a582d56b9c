"""What the conformance suite needs to know of one action: how it is built, and how its effects are seen without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from engine.core.action import Action, Context, Deadline
from engine.core.change import Change, Outcome
from engine.core.events import EventType
from engine.core.model import StepId
from engine.core.redaction import Redactor
from engine.run.evidence import JournalEvidence
from engine.run.journal import Journal
from tests.fakes.contexts import PlainInputs

STEP = StepId("phase/step")
ENVIRONMENT = "conformance"
World = Mapping[str, Any]
"""Effects by name, as somebody sees them who does not know the engine."""


class Ledger:
    """The journal of runs in which the subject is the one step: what the executor writes around an action."""

    def __init__(self, folder: Any, redactor: Redactor) -> None:
        self.journal = Journal(folder / "journal.db", clock=_clock, redact=redactor.data)
        self.evidence = JournalEvidence(self.journal, ENVIRONMENT)
        self._begun: set[str] = set()

    def intent(self, key: str) -> None:
        run = self._begin(key)
        self.journal.append(EventType.INTENT, run, STEP, {"preimage": {"references": {}, "blob": ""}})

    def outcome(self, key: str, outcome: Outcome) -> None:
        run = self._begin(key)
        data = {"summary": outcome.summary, "outputs": dict(outcome.outputs), "evidence": dict(outcome.evidence)}
        self.journal.append(EventType.OUTCOME, run, STEP, data)
        self.journal.append(EventType.STEP_FINISHED, run, STEP, {"status": "changed"})

    def _begin(self, key: str) -> str:
        run = key.partition("/")[0]
        if run not in self._begun:
            self._begun.add(run)
            started = {
                "kind": "deploy", "environment": ENVIRONMENT, "runbook": "conformance", "title": "Conformance",
                "holder": "somebody@here", "pid": 1, "now": _clock(), "inputs": "", "plan": "digest",
                "phases": [["phase", "Phase"]], "changes": [],
                "steps": [{"id": STEP, "phase": "phase", "name": "Step", "action": "subject"}],
            }  # fmt: skip
            self.journal.append(EventType.RUN_STARTED, run, data=started)
        return run


@dataclass
class Subject:
    """One action on its real part. Every test gets a new one, whose world is as before any run."""

    action: Action
    params: Any
    world: Callable[[], World]
    """An independent reading of the effects."""
    wanted: World | None = None
    """STATE: what `world` shows once the step is done."""
    residue: frozenset[str] = frozenset()
    """Names in `world` that undo leaves as they are."""
    disturb: Callable[[Change], None] | None = None
    """Leaves what a process killed in the middle of `apply` leaves. None: apply is one indivisible effect."""
    ledger: Ledger | None = None
    """EVENT: where its evidence is written."""
    after_kill: str = "found"
    """EVENT, killed between its effect and the journal's outcome: `found`, `doubt` (a person must look), or `again`
    (repeated, harmlessly)."""
    standing: bool = False
    """EVENT: its evidence is a thing that stays, whose age does not count."""
    canaries: Callable[[], Sequence[str]] = tuple
    """The secrets that the step handles; in no text that leaves the action. None: it handles none."""
    stored: Callable[[], bytes] = bytes
    """Everything the action wrote outside a secret store: there no canary may be either."""
    redactor: Redactor = field(default_factory=Redactor)
    given: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the Context: inputs, undo_params, variables."""
    lines: list[str] = field(default_factory=list)
    """Progress, redacted as Parts.context does it."""
    cuts: Sequence[int] = range(4)
    """After how many looks at the deadline apply is stopped, one after the other; none: it has nothing to stop."""

    def context(self, **given: Any) -> Context:
        fields: dict[str, Any] = {
            "step": STEP,
            "inputs": PlainInputs(),
            "now": datetime.now(UTC),
            "deadline": Deadline(120),
            "progress": lambda line: self.lines.append(self.redactor.text(line)),
            **self.given,
            **given,
        }
        return Context(**fields)

    def plan(self, **given: Any) -> Change:
        ctx = self.context(**given)
        return self.action.plan(self.params, self.action.read(self.params, ctx), ctx)


def _clock() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
