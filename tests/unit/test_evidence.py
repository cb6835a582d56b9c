"""What the journal shows for a criterion: the newest verdict counts, and the age of the proof itself."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from engine.core.attestation import Attestation
from engine.core.change import Verb
from engine.core.drill import LOSS
from engine.core.events import EventType
from engine.core.evidence import Criteria, Criterion, Holdings, Proof, ProofKind, Standing, judge, look
from engine.errors import Position
from tests.fakes.story import START, Story, made

STEP, DUMP = "core/pakit", "base/first-dump"
DAY = 86400


def held(*stories, days: float = 0, **more):
    """The holdings of runs in the order of their journal, looked at so many days after the first began."""
    views = []
    for number, story in enumerate(stories):
        view = story.view
        view.id, view.sequence = f"run{number}", (number + 1) * 1000
        views.append(view)
    now = START + timedelta(days=days)
    return Holdings("local", "belizechain", now, views, frozenset({"backup"}), **more)


def story(days: float = 0, kind: str = "deploy"):
    return Story(kind=kind).after(days * DAY).start([made(STEP, Verb.CREATE), made(DUMP, Verb.RUN)])


def found(proof: Proof, holdings: Holdings):
    result = look(proof, holdings)
    return result.standing, result.saw


def step(within_days: float | None = None, check: str = "") -> Proof:
    within = None if within_days is None else timedelta(days=within_days)
    return Proof(ProofKind.CHECK if check else ProofKind.STEP, STEP, check, within)


def evidence(within_days: float) -> Proof:
    return Proof(ProofKind.EVIDENCE, DUMP, within=timedelta(days=within_days))


def unchanged(told: Story, name: str, **check):
    told.begin(name)
    if check:
        told.check(name, "http url=x", "200", **check)
    return told.tell(EventType.STEP_FINISHED, name, status="unchanged", reason="as declared")


def failed(told: Story, name: str = STEP):
    return told.begin(name).tell(EventType.STEP_FAILED, name, error="no such image\nand more", kind="PermanentError")


def test_nothing_yet():
    result = look(step(), held())
    assert (result.standing, result.command) == (Standing.MISSING, "runbook deploy local")


def test_a_step_that_ended_well():
    result = look(step(7), held(story().done(STEP, 5), days=1))
    assert (result.standing, result.run, result.saw) == (Standing.HOLDS, "run0", "1 check passed")


def test_a_newer_failure_beats_an_older_success():
    holdings = held(story().done(STEP, 5), failed(story(1)), days=1)
    assert found(step(7), holdings) == (Standing.FAILED, "no such image")


def test_a_newer_success_beats_an_older_failure():
    assert found(step(7), held(failed(story()), story(1).done(STEP, 5), days=1))[0] is Standing.HOLDS


def test_a_verify_that_failed_counts_too():
    assert found(step(7), held(story().done(STEP, 5), failed(story(1, "verify")), days=1))[0] is Standing.FAILED


def test_what_was_rolled_back_shows_nothing():
    told = story().done(STEP, 5)
    told.tell(EventType.UNDO_INTENT, STEP, verdict="undo").tell(EventType.UNDONE, STEP, detail="gone")
    assert found(step(7), held(told))[0] is Standing.FAILED


def test_a_step_that_was_left_out_shows_nothing():
    told = story().tell(EventType.STEP_FINISHED, STEP, status="skipped", reason="harden_hosts is false")
    assert found(step(), held(told)) == (Standing.FAILED, "left out: harden_hosts is false")


def test_a_run_of_another_environment_shows_nothing():
    told = Story(environment="staging").start([made(STEP, Verb.CREATE)]).done(STEP, 5)
    assert found(step(), held(told))[0] is Standing.MISSING


def test_an_earlier_proof_keeps_its_age():
    """The second run found the proof of the first fresh enough; it is as old as it was."""
    first = story().done(STEP, 0, checks=0)
    second = unchanged(story(3), STEP, proved_at=START.isoformat()).end("succeeded", 0)
    assert found(step(7), held(first, second, days=3))[0] is Standing.HOLDS
    result = look(step(2), held(first, second, days=3))
    assert (result.standing, result.at) == (Standing.TOO_OLD, START.isoformat())
    assert result.command == "runbook verify local"


def test_a_verify_without_checks_of_the_step_says_nothing_of_it():
    told = unchanged(story(5, "verify"), STEP)
    assert found(step(2), held(story().done(STEP, 5, checks=0), told, days=5))[0] is Standing.TOO_OLD


def test_one_family_of_checks():
    told = story().begin(STEP).check(STEP, "http url=x", "200").check(STEP, "tls address=y", "12 days left")
    told.tell(EventType.STEP_FINISHED, STEP, status="unchanged", reason="")
    assert found(step(check="tls"), held(told)) == (Standing.HOLDS, "12 days left")
    assert found(step(check="sql"), held(told))[0] is Standing.MISSING
    newer = story(1).begin(STEP).tell(EventType.CHECKED, STEP, check="tls address=y", ok=False, saw="expired", state="")
    assert found(step(check="tls"), held(told, newer, days=1)) == (Standing.FAILED, "expired")


@pytest.mark.parametrize(("days", "standing"), [(0.9, Standing.HOLDS), (1.1, Standing.TOO_OLD)])
def test_the_age_of_an_event_is_that_of_its_evidence(days, standing):
    """The second run found yesterday's dump and let it count: it is not newer for that."""
    first = story().done(DUMP, 5, checks=0, key="a.age", taken=START.isoformat())
    second = unchanged(story(days), DUMP)
    result = look(evidence(1), held(first, second, days=days))
    assert (result.standing, result.at, result.run) == (standing, START.isoformat(), "run0")


def test_an_event_without_evidence_in_this_journal():
    assert found(evidence(1), held(unchanged(story(), DUMP)))[1] == "it happened before this journal began"


def test_a_step_of_an_event_has_the_age_of_the_evidence_too():
    first = story().done(DUMP, 5, checks=0, taken=START.isoformat())
    proof = Proof(ProofKind.STEP, DUMP, within=timedelta(days=1))
    assert found(proof, held(first, unchanged(story(2), DUMP), days=2))[0] is Standing.TOO_OLD


def drill(days: float = 0, *, misses=(), recovered=True, status="succeeded"):
    told = Story(kind="drill").after(days * DAY).start([])
    told.tell(EventType.RUN_FINISHED, status=status, exit=0)
    view = told.view
    view.drill = {"id": "volume-lost"}
    from engine.core.history import StepView

    result = {"recovered": recovered, "misses": list(misses), "lost": 0, "acknowledged": 9, "rto_seconds": 4.0}
    view.steps = {LOSS: StepView(LOSS, "judge", "Loss", "loss", evidence=result)} if recovered is not None else {}
    return type("Told", (), {"view": view})()


DRILL = Proof(ProofKind.DRILL, "volume-lost", within=timedelta(days=90))


def test_a_drill_that_met_its_targets():
    assert found(DRILL, held(drill(), days=1)) == (Standing.HOLDS, "lost 0 of 9, recovered in 4.0 s")
    assert found(DRILL, held(drill(), days=91))[0] is Standing.TOO_OLD
    assert look(DRILL, held()).command == "runbook drill local volume-lost"


def test_a_drill_that_did_not():
    assert found(DRILL, held(drill(), drill(1, misses=["lost 9 s"]), days=1)) == (Standing.FAILED, "lost 9 s")
    assert found(DRILL, held(drill(), drill(1, recovered=None, status="failed"), days=1))[0] is Standing.FAILED
    assert found(DRILL, held(drill(), drill(1, recovered=None, status="abandoned"), days=1))[0] is Standing.HOLDS


def test_a_drill_shows_nothing_but_itself():
    told = story(1, "drill").begin(STEP)
    told.tell(EventType.STEP_FAILED, STEP, error="broken on purpose", kind="x")
    assert found(step(7), held(story().done(STEP, 5), told, days=1))[0] is Standing.HOLDS


SAID = Proof(ProofKind.ATTESTATION, "audit", within=timedelta(days=365))


def said(days: float = 0, until: float = 90, signature: str = "s"):
    at, end = (START + timedelta(days=d) for d in (days, until))
    return Attestation(
        "local", "belizechain", "audit", "passed", "alice", at.isoformat(), end.isoformat(), "", "", signature
    )


def test_an_attestation():
    assert found(SAID, held(days=1))[0] is Standing.MISSING
    assert found(SAID, held(days=1, attestations=[said()])) == (Standing.HOLDS, "alice: passed")
    assert found(SAID, held(days=91, attestations=[said()]))[0] is Standing.FAILED


def test_a_statement_whose_signature_does_not_hold_hides_no_other():
    true, false = said(signature="true"), said(1, signature="false")
    holdings = held(days=2, attestations=[true, false], untrue={false: "forged"})
    assert found(SAID, holdings)[0] is Standing.HOLDS
    alone = held(days=2, attestations=[false], untrue={false: "forged"})
    assert found(SAID, alone) == (Standing.FAILED, "forged")


def test_files_and_what_nothing_shows():
    file = Proof(ProofKind.FILE, "docs/a.md")
    assert look(file, held(files={"docs/a.md": ""})).holds
    assert found(file, held(files={"docs/a.md": "is empty"})) == (Standing.MISSING, "is empty")
    assert found(Proof(ProofKind.NOTHING, "no scanner"), held()) == (Standing.MISSING, "no scanner")


def test_go_needs_every_criterion():
    place = Position("readiness.yml", 1, 1)
    good = Criterion("a", "A", (Proof(ProofKind.FILE, "there"),), place)
    bad = Criterion("b", "B", (Proof(ProofKind.FILE, "there"), Proof(ProofKind.FILE, "gone")), place)
    holdings = held(files={"there": "", "gone": "is not there"})
    assert judge(Criteria((good,), (good,), {}), holdings).ready
    assert not judge(Criteria((good, bad), (), {}), holdings).ready
    assert not judge(Criteria((good,), (bad,), {}), holdings).ready


def test_an_unfinished_deploy_is_resumed_first():
    assert look(step(), held(story())).command == "runbook resume local"


def test_ages_are_times():
    result = look(step(), held(story().done(STEP, 5)))
    assert datetime.fromisoformat(result.at) >= START
