"""Runs told as events, with a clock of their own: what the display is tested with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.core.change import ABSENT, Change, Delta, DiffLine, Fidelity, Fingerprint, Verb
from engine.core.events import GENESIS, Event, EventType
from engine.core.history import RunView, fold
from engine.core.model import ObjectId, StepId

START = datetime(2026, 11, 24, 14, 2, tzinfo=UTC)
PHASES = [
    ("infrastructure", "Infrastructure"),
    ("secrets", "Secrets"),
    ("base", "Base services"),
    ("core", "Core services"),
    ("mesh", "Service mesh"),
    ("documentation", "Documentation"),
]
STEPS = [
    ("infrastructure/cluster", "Local cluster", "playbook", Verb.RUN),
    ("infrastructure/namespaces", "Namespaces", "manifest", Verb.CREATE),
    ("infrastructure/bucket", "Bucket for backups", "bucket", Verb.CREATE),
    ("secrets/store", "OpenBao", "release", Verb.CREATE),
    ("secrets/pg-credentials", "PostgreSQL credentials", "secret", Verb.CREATE),
    ("base/postgresql", "PostgreSQL", "release", Verb.CREATE),
    ("base/redis", "Redis", "release", Verb.CREATE),
    ("base/first-dump", "First dump", "backup", Verb.RUN),
    ("core/chain", "Chain node", "release", Verb.CREATE),
    ("core/pakit", "Pakit", "release", Verb.CREATE),
    ("mesh/gateway", "Gateway", "release", Verb.UPDATE),
    ("mesh/authz-pakit", "Who may call Pakit", "manifest", Verb.UPDATE),
    ("documentation/record", "Deployment record", "record", Verb.RUN),
]


def made(step: str, verb: Verb, **options: Any) -> Change:
    """A change of one object, made for that verb."""
    before = ABSENT if verb in {Verb.CREATE, Verb.RUN} else Fingerprint("b" * 64)
    after = {Verb.NONE: before, Verb.DELETE: ABSENT}.get(verb, Fingerprint("a" * 64))
    name = ObjectId(options.pop("object", f"Deployment belizechain/{step.partition('/')[2]}"))
    diff = options.pop("diff", ())
    undo_to = options.pop("undo_to", before)
    fidelity = options.pop("fidelity", Fidelity.EXACT)
    return Change(StepId(step), verb, fidelity, {name: Delta(before, after, tuple(diff), undo_to)}, **options)


def scaled(step: str = "core/pakit") -> Change:
    """Drift: somebody scaled a deployment by hand."""
    line = DiffLine("spec.replicas", "2", "3", "set to 2 by kubectl (scale)")
    return made(step, Verb.UPDATE, diff=[line])


class Story:
    """A run's events, one by one; `after` moves the clock, in seconds."""

    def __init__(self, run: str = "7f3c", environment: str = "local", *, kind: str = "deploy") -> None:
        self.events: list[Event] = []
        self.run, self.environment, self.kind, self.at = run, environment, kind, START

    @property
    def view(self) -> RunView:
        view = RunView(self.run)
        for event in self.events:
            fold(view, event)
        return view

    @property
    def now(self) -> str:
        return self.at.isoformat(timespec="milliseconds")

    def after(self, seconds: float) -> Story:
        self.at += timedelta(seconds=seconds)
        return self

    def tell(self, event: EventType, step: str = "", /, **data: Any) -> Story:
        previous = self.events[-1].hash if self.events else GENESIS
        sealed = Event.sealed(len(self.events) + 1, self.now, event, self.run, step, data, previous)
        self.events.append(sealed)
        return self

    def start(self, changes: Sequence[Change] | None = None) -> Story:
        planned = [made(s, v) for s, _, _, v in STEPS] if changes is None else changes
        return self.tell(
            EventType.RUN_STARTED,
            kind=self.kind,
            environment=self.environment,
            runbook="belizechain",
            title="BelizeChain",
            holder="sre-1@bastion-2",
            pid=4242,
            now=self.now,
            inputs="1" * 64,
            variables="2" * 64,
            target="",
            left_out={},
            plan="9a41" + "0" * 58 + "e2",
            changes=[c.to_json() for c in planned],
            phases=[list(p) for p in PHASES],
            steps=[
                {"id": s, "phase": s.partition("/")[0], "name": name, "action": action} for s, name, action, _ in STEPS
            ],
        )

    def begin(self, step: str) -> Story:
        return self.tell(EventType.STEP_STARTED, step)

    def intend(self, step: str) -> Story:
        preimage = {"references": {"revision": 3}, "blob": ""}
        return self.tell(EventType.INTENT, step, verdict="apply", preimage=preimage, key=None, resuming=False)

    def done(self, step: str, seconds: float, *, summary: str = "", checks: int = 1, **evidence: Any) -> Story:
        """A step that changed something, from its intent to its checks."""
        self.begin(step).intend(step).after(seconds)
        self.tell(EventType.OUTCOME, step, summary=summary, outputs={}, evidence=evidence, change=None, after={})
        for number in range(checks):
            self.check(step, f"kubernetes deployment=d{number} available=True", "2 of 2 replicas are available")
        return self.tell(EventType.STEP_FINISHED, step, status="changed", reason="")

    def same(self, step: str, reason: str = "", *, proved_at: str = "") -> Story:
        """A step that had nothing to do."""
        self.begin(step).check(step, "kubernetes available=True", "1 of 1", proved_at=proved_at)
        return self.tell(EventType.STEP_FINISHED, step, status="unchanged", reason=reason)

    def check(self, step: str, check: str, saw: str, *, ok: bool = True, proved_at: str = "") -> Story:
        proof = {"proved_at": proved_at} if proved_at else {}
        return self.tell(EventType.CHECKED, step, check=check, ok=ok, saw=saw, state="s", **proof)

    def fail(self, step: str, error: str) -> Story:
        return self.tell(EventType.STEP_FAILED, step, error=error, kind="PermanentError")

    def phase(self, phase: str) -> Story:
        return self.tell(EventType.PHASE_FINISHED, phase=phase, savepoint=True)

    def end(self, status: str, code: int) -> Story:
        return self.tell(EventType.RUN_FINISHED, status=status, exit=code)


def half_way() -> Story:
    """A first deploy in its third phase: one step done, one running, one to come."""
    story = Story().start()
    story.done("infrastructure/cluster", 98, checks=3).done("infrastructure/namespaces", 3.2)
    story.done("infrastructure/bucket", 0.8).phase("infrastructure")
    story.done("secrets/store", 24).done("secrets/pg-credentials", 0.4, checks=0).phase("secrets")
    story.done("base/postgresql", 14, checks=3)
    return story.begin("base/redis").intend("base/redis").after(9)


def succeeded() -> Story:
    """A first deploy from begin to end."""
    story = half_way()
    story.tell(EventType.OUTCOME, "base/redis", summary="", outputs={}, evidence={}, change=None, after={})
    story.tell(EventType.STEP_FINISHED, "base/redis", status="changed", reason="")
    story.done("base/first-dump", 6, summary="1,204 rows in backups/2026-11-24.sql.age, 48 KiB").phase("base")
    story.done("core/chain", 31).done("core/pakit", 12).phase("core")
    story.done("mesh/gateway", 8).done("mesh/authz-pakit", 1).phase("mesh")
    story.done("documentation/record", 0.2, checks=0, path="records/local-2026-11-24-7f3c.md")
    return story.phase("documentation").end("succeeded", 0)


GATEWAY_ERROR = """Deployment istio-system/gateway did not become available
pod gateway-6b7f-x2x: container istio-proxy: ErrImageNeverPull "lab/proxyv2:1.99" is not on node lab-0
helm release gateway: revision 4 failed"""


def failed(*, complete: bool = True) -> Story:
    """The gateway's image does not exist: the phase is rolled back, or one step of it cannot be."""
    changes = [made(s, v if s.startswith("mesh") else Verb.NONE) for s, _, _, v in STEPS if s != "mesh/gateway"]
    changes.append(made("mesh/gateway", Verb.UPDATE))
    story = Story("7f41").start(changes)
    for step, *_ in STEPS[:10]:
        story.same(step)
    for phase, _ in PHASES[:4]:
        story.phase(phase)
    story.done("mesh/authz-pakit", 1)
    story.begin("mesh/gateway").intend("mesh/gateway").after(41).fail("mesh/gateway", GATEWAY_ERROR)
    story.tell(EventType.ROLLBACK_STARTED, to="core", whole=False)
    if complete:
        story.tell(EventType.UNDO_INTENT, "mesh/gateway").after(20)
        story.tell(EventType.UNDONE, "mesh/gateway", detail="back to revision 3; as before")
    else:
        story.tell(EventType.UNDO_FAILED, "mesh/gateway", error="helm: another operation is in progress")
    story.tell(EventType.UNDO_INTENT, "mesh/authz-pakit").after(0.5)
    story.tell(EventType.UNDONE, "mesh/authz-pakit", detail="object restored; as before")
    return story.end("rolled back", 1) if complete else story.end("rollback incomplete", 3)


def idle() -> Story:
    """A second deploy: nothing to change; one check counts from earlier."""
    story = Story("81aa").start([made(s, Verb.NONE) for s, *_ in STEPS])
    earlier = (START - timedelta(minutes=5)).isoformat()
    for step, *_ in STEPS:
        story.after(0.1).same(step, proved_at=earlier if step == "base/first-dump" else "")
    for phase, _ in PHASES:
        story.phase(phase)
    return story.end("succeeded", 0)
