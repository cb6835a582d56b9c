"""Which proofs the journal holds for a criterion, and what is missing. Pure: a fold over runs, newest verdict first.

The newest verdict counts: a failure beats an older success. The age of a proof is the time at which it was taken, not
that of the run that let it count once more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from engine.core.attestation import Attestation
from engine.core.drill import LOSS
from engine.core.history import CheckView, RunStatus, RunView, StepStatus, StepView
from engine.core.model import StepId
from engine.errors import Position


class ProofKind(StrEnum):
    """What shows a criterion."""

    STEP = "step"
    CHECK = "check"
    EVIDENCE = "evidence"
    DRILL = "drill"
    FILE = "file"
    ATTESTATION = "attestation"
    NOTHING = "nothing"
    """Nothing shows it yet: the criterion cannot hold."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One thing that must be shown."""

    kind: ProofKind
    name: str
    """`phase/step`, a drill, a file of the project, an attestation's id, or why nothing shows it."""
    check: str = ""
    """The family of the step's check, for CHECK."""
    within: timedelta | None = None
    """How old it may be; None: any age."""

    def __str__(self) -> str:
        if self.kind is ProofKind.NOTHING:
            return "nothing shows it"
        return f"check {self.check} of {self.name}" if self.kind is ProofKind.CHECK else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One line of the decision. A no-go criterion is ruled out by its proofs, a go criterion is met by them."""

    id: str
    text: str
    proofs: tuple[Proof, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class Attestable:
    """What a person may state."""

    id: str
    text: str
    valid_for: timedelta
    """The longest that one statement counts."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """A readiness file, read."""

    go: tuple[Criterion, ...]
    no_go: tuple[Criterion, ...]
    attestable: Mapping[str, Attestable]


class Standing(StrEnum):
    """Where a proof stands."""

    HOLDS = "holds"
    FAILED = "failed"
    TOO_OLD = "too old"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Found:
    """A proof as it is found. `at`: when it was taken (UTC, ISO 8601); `command`: what would bring it."""

    proof: Proof
    standing: Standing
    saw: str
    run: str = ""
    at: str = ""
    command: str = ""

    @property
    def holds(self) -> bool:
        return self.standing is Standing.HOLDS


@dataclass(frozen=True, slots=True)
class Judged:
    """A criterion with its proofs as they are found. All must hold."""

    criterion: Criterion
    found: tuple[Found, ...]

    @property
    def holds(self) -> bool:
        return all(f.holds for f in self.found)


@dataclass(frozen=True, slots=True)
class Readiness:
    """The decision for one environment at one time."""

    environment: str
    runbook: str
    at: str
    go: tuple[Judged, ...]
    no_go: tuple[Judged, ...]

    @property
    def ready(self) -> bool:
        """GO: every go criterion is met and every no-go criterion is ruled out."""
        return all(j.holds for j in (*self.go, *self.no_go))


@dataclass(frozen=True, slots=True)
class Beside:
    """What a deployment record tells beside its run: whether the environment is ready, and its newest drills."""

    readiness: Readiness | None = None
    drills: tuple[RunView, ...] = ()


@dataclass(frozen=True, slots=True)
class Holdings:
    """All that proofs are looked for in, of one environment and one runbook."""

    environment: str
    runbook: str
    now: datetime
    runs: Sequence[RunView]
    events: Collection[str]
    """Actions that happen once: where they found earlier evidence, its age is that of the evidence."""
    files: Mapping[str, str] = field(default_factory=dict)
    """File -> what is wrong with it; empty: it is there."""
    attestations: Sequence[Attestation] = ()
    untrue: Mapping[Attestation, str] = field(default_factory=dict)
    """Why one does not hold; not there, or empty: it does."""

    def newest_first(self) -> list[RunView]:
        """By their last event: a rollback of an older run is newer than what came between."""
        mine = [r for r in self.runs if r.environment == self.environment and r.runbook == self.runbook]
        return sorted(mine, key=lambda r: r.sequence, reverse=True)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What one run says of a proof."""

    ok: bool
    saw: str
    run: str
    at: str = ""


def judge(criteria: Criteria, holdings: Holdings) -> Readiness:
    """Every criterion beside what is found for it."""

    def judged(group: Sequence[Criterion]) -> tuple[Judged, ...]:
        return tuple(Judged(c, tuple(look(p, holdings) for p in c.proofs)) for c in group)

    at = holdings.now.astimezone(UTC).isoformat(timespec="seconds")
    return Readiness(holdings.environment, holdings.runbook, at, judged(criteria.go), judged(criteria.no_go))


def newest_drills(views: Sequence[RunView], environment: str) -> tuple[RunView, ...]:
    """The newest run of each drill that came to a result, by its name."""
    drills = [v for v in views if v.kind == "drill" and v.environment == environment]
    judged = [v for v in drills if LOSS in v.steps and v.steps[LOSS].evidence]
    newest = {str(v.drill.get("id", v.id)): v for v in judged}
    return tuple(newest[name] for name in sorted(newest))


def look(proof: Proof, holdings: Holdings) -> Found:
    """What is found for one proof."""
    if proof.kind in (ProofKind.NOTHING, ProofKind.FILE):
        return _without_runs(proof, holdings)
    verdict = next(_verdicts(proof, holdings), None)
    bring = _command(proof, holdings, verdict)
    if verdict is None:
        return Found(proof, Standing.MISSING, _NEVER[proof.kind], command=bring)
    if not verdict.ok:
        return Found(proof, Standing.FAILED, verdict.saw, verdict.run, verdict.at, bring)
    if not verdict.at:
        return Found(proof, Standing.MISSING, "it happened before this journal began", verdict.run, "", bring)
    if proof.within is not None and holdings.now - datetime.fromisoformat(verdict.at) > proof.within:
        return Found(proof, Standing.TOO_OLD, verdict.saw, verdict.run, verdict.at, bring)
    return Found(proof, Standing.HOLDS, verdict.saw, verdict.run, verdict.at)


def _without_runs(proof: Proof, holdings: Holdings) -> Found:
    if proof.kind is ProofKind.NOTHING:
        return Found(proof, Standing.MISSING, proof.name)
    wrong = holdings.files.get(proof.name, "is not there")
    bring = f"write {proof.name}" if wrong else ""
    return Found(proof, Standing.MISSING if wrong else Standing.HOLDS, wrong or "is there", command=bring)


_NEVER = {
    ProofKind.STEP: "no run has come to it",
    ProofKind.CHECK: "no run has looked",
    ProofKind.EVIDENCE: "no run has left it",
    ProofKind.DRILL: "never carried out to its end",
    ProofKind.ATTESTATION: "nobody has stated it",
}
_BROKEN = frozenset(
    {StepStatus.FAILED, StepStatus.UNDO_FAILED, StepStatus.UNDONE, StepStatus.UNDOING, StepStatus.IN_DOUBT}
)


def _verdicts(proof: Proof, holdings: Holdings) -> Iterator[_Verdict]:
    """Newest first."""
    if proof.kind is ProofKind.ATTESTATION:
        yield from _stated(proof.name, holdings)
    elif proof.kind is ProofKind.DRILL:
        yield from _drilled(proof.name, holdings)
    else:
        views = [r for r in holdings.newest_first() if r.kind != "drill"]  # a drill breaks things on purpose
        for index, view in enumerate(views):
            step = view.steps.get(StepId(proof.name))
            if step is None:
                continue
            older = [(v, s) for v in views[index + 1 :] if (s := v.steps.get(step.id))]
            found = _of_check(proof, view, step) if proof.check else _of_step(proof, view, step, older, holdings)
            if found is not None:
                yield found


def _of_step(
    proof: Proof, view: RunView, step: StepView, older: Sequence[tuple[RunView, StepView]], holdings: Holdings
) -> _Verdict | None:
    if (broken := _broken(view, step)) is not None:
        return broken
    if step.status not in (StepStatus.CHANGED, StepStatus.UNCHANGED):
        return None
    checks = list(step.checks.values())
    if view.kind == "verify" and (not checks or proof.kind is ProofKind.EVIDENCE):
        return None  # it looked at nothing of it
    happened = step.action in holdings.events or proof.kind is ProofKind.EVIDENCE
    if view.kind != "verify" and happened:
        left = [(v, s) for v, s in ((view, step), *older) if s.evidence and s.status not in _BROKEN]
        taken = _taken(left[0][1]) if left else ""
        if not taken:
            return _Verdict(True, step.reason, view.id)
        source, run = left[0][1], left[0][0].id
        return _Verdict(
            True, source.summary or step.reason, run, min([taken, *map(_when, checks)], key=datetime.fromisoformat)
        )
    at = min(map(_when, checks), key=datetime.fromisoformat) if checks else step.finished
    saw = f"{len(checks)} check{'' if len(checks) == 1 else 's'} passed" if checks else step.status.value
    return _Verdict(True, saw, view.id, at)


def _of_check(proof: Proof, view: RunView, step: StepView) -> _Verdict | None:
    found = [c for c in step.checks.values() if c.check.split(" ", 1)[0] == proof.check]
    if step.status in (StepStatus.UNDONE, StepStatus.SKIPPED) or not found:
        return _broken(view, step)
    if bad := next((c for c in found if not c.ok), None):
        return _Verdict(False, bad.saw, view.id, bad.at)
    oldest = min(found, key=lambda c: datetime.fromisoformat(_when(c)))
    return _Verdict(True, oldest.saw, view.id, _when(oldest))


def _broken(view: RunView, step: StepView) -> _Verdict | None:
    if step.status in _BROKEN:
        return _Verdict(False, step.error.partition("\n")[0] or step.status.value, view.id, step.finished)
    if step.status is StepStatus.SKIPPED:
        return _Verdict(False, f"left out: {step.reason}" if step.reason else "left out", view.id, step.finished)
    return None


def _taken(step: StepView) -> str:
    """When an event's evidence was taken: as it says itself, else when the step ended."""
    said = step.evidence.get("taken")
    try:
        return datetime.fromisoformat(str(said)).astimezone(UTC).isoformat() if said else step.finished
    except ValueError:
        return step.finished


def _when(check: CheckView) -> str:
    return check.proved_at or check.at


def _drilled(name: str, holdings: Holdings) -> Iterator[_Verdict]:
    for view in holdings.newest_first():
        if view.kind != "drill" or view.drill.get("id") != name or view.status is RunStatus.ABANDONED:
            continue
        judged = view.steps.get(LOSS)
        result = judged.evidence if judged else {}
        if not result and view.status.open:
            continue
        misses = [str(m) for m in result.get("misses", [])]
        ok = bool(result) and bool(result.get("recovered")) and not misses and view.status is RunStatus.SUCCEEDED
        if ok:
            saw = f"lost {result['lost']} of {result['acknowledged']}, recovered in {result['rto_seconds']:.1f} s"
        else:
            saw = "; ".join(misses) or view.failure.partition("\n")[0] or f"ended {view.status.value}"
        yield _Verdict(ok, saw, view.id, view.finished or view.started)


def _stated(subject: str, holdings: Holdings) -> Iterator[_Verdict]:
    """A statement whose signature does not hold is nobody's: it stands behind every other."""
    about = reversed([a for a in holdings.attestations if a.subject == subject])
    for said in sorted(about, key=lambda a: bool(holdings.untrue.get(a))):
        saw = f"{said.by}: {said.statement}"
        if wrong := holdings.untrue.get(said, ""):
            yield _Verdict(False, wrong, "", said.at)
        elif holdings.now > datetime.fromisoformat(said.until):
            yield _Verdict(False, f"ran out at {said.until}; {saw}", "", said.at)
        else:
            yield _Verdict(True, saw, "", said.at)


def _command(proof: Proof, holdings: Holdings, verdict: _Verdict | None) -> str:
    env = holdings.environment
    if proof.kind is ProofKind.DRILL:
        return f"runbook drill {env} {proof.name}"
    if proof.kind is ProofKind.ATTESTATION:
        return f'runbook attest {env} {proof.name} --statement "…"'
    newest = next((r for r in holdings.newest_first() if r.kind == "deploy"), None)
    if newest is not None and newest.status.open:
        return f"runbook resume {env}"
    stood = verdict is not None and verdict.ok
    looked = proof.kind is ProofKind.CHECK or (verdict is not None and " passed" in verdict.saw)
    return f"runbook verify {env}" if stood and looked else f"runbook deploy {env}"
