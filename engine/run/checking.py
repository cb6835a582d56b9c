"""Running checks: once on a step that was not changed, until they pass or time is up on one that was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from engine.core.action import CheckSpec, Context, Finding
from engine.core.change import ABSENT, Change, state_to_json
from engine.core.events import Event, EventType, digest_of
from engine.core.model import StepId
from engine.core.parts import Parts
from engine.errors import CancelledError, RunbookError, TemporaryError
from engine.run.recorder import Recorder

_PAUSE = 0.5  # seconds between two looks
_LOOK = 10.0  # seconds for the one look of a check when those before it took the step's whole time


class CheckFailedError(RunbookError):
    """A check did not pass in time; the message says what it saw last."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Proof:
    """When a check last passed, on which state of its step, and what it saw."""

    at: str
    state: str
    saw: str


class Proofs:
    """The newest proof of each check, from the journal's events."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._proofs: dict[tuple[StepId, str], Proof] = {}
        for event in events:
            if event.type is EventType.CHECKED and event.data["ok"] and not event.data.get("proved_at"):
                key = (event.step, event.data["check"])
                self._proofs[key] = Proof(event.at, event.data.get("state", ""), event.data["saw"])

    def find(self, step: StepId, check: str, state: str, fresh: timedelta | None, now: datetime) -> Proof | None:
        """A proof for the same state that is not older than `fresh`."""
        proof = self._proofs.get((step, check))
        if proof is None or fresh is None or proof.state != state:
            return None
        return proof if now - datetime.fromisoformat(proof.at) <= fresh else None


def proved_state(change: Change | None) -> str:
    """Digest of the state that a step's checks prove: an earlier proof counts for the same one only."""
    after = {o: d.after or ABSENT for o, d in change.objects.items()} if change else {}
    return digest_of(state_to_json(after))


def run_checks(
    specs: Sequence[CheckSpec], ctx: Context, parts: Parts, recorder: Recorder, proofs: Proofs, state: str
) -> None:
    """Run each check and record what it saw. CheckFailedError names those that do not pass in time."""
    failed: list[str] = []
    for spec in specs:
        name = spec.describe()
        proof = proofs.find(ctx.step, name, state, spec.fresh, ctx.now)
        if proof:
            data = {"check": name, "ok": True, "saw": proof.saw, "state": state, "proved_at": proof.at}
            recorder.record(EventType.CHECKED, ctx.step, data)
            continue
        finding = await_finding(spec, ctx, parts)
        data = {"check": name, "ok": finding.ok, "saw": finding.saw, "state": state}
        recorder.record(EventType.CHECKED, ctx.step, data)
        if not finding.ok:
            failed.append(f"check {name}: {finding.saw}")
    if failed:
        raise CheckFailedError("\n".join(failed))


def await_finding(spec: CheckSpec, ctx: Context, parts: Parts) -> Finding:
    """Look until the check passes, cannot pass any more, or the step's deadline is over. CancelledError.

    A look that the deadline cuts short says only that: the one before it is the answer. Where the checks before
    took the whole time there is one look all the same.
    """
    check = parts.checks[spec.family]
    once = not ctx.deadline.remaining()
    ctx = replace(ctx, deadline=ctx.deadline.renewed(_LOOK)) if once else ctx
    before: Finding | None = None
    while True:
        try:
            finding = check.run(spec.params, ctx)
        except TemporaryError as error:
            finding = Finding(False, str(error))
        if finding.ok or finding.final:
            return finding
        if ctx.deadline.cancelled:  # neither passed nor failed: `resume` looks again
            raise CancelledError(f"stopped while waiting for check {spec.family}: {finding.saw}")
        if once or not ctx.deadline.remaining():
            return before or finding
        ctx.progress(f"check {spec.family}: {finding.saw}")
        before = finding
        ctx.deadline.wait(_PAUSE)
