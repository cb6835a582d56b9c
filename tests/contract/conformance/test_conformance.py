"""What holds for every action, whatever it works on. A new action is a file in `subjects` and a line here."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from engine.core.action import Kind
from engine.core.change import Change, Preimage, Verb
from engine.core.convergence import Decision, converge, undo_verdict
from engine.core.redaction import forms
from engine.errors import CancelledError, InDoubtError, RunbookError, TemporaryError
from tests.contract.conformance.deadlines import Looked
from tests.contract.conformance.subject import Subject
from tests.contract.conformance.subjects import (
    approval,
    backup,
    bucket,
    check,
    command,
    manifest,
    migration,
    playbook,
    record,
    release,
    secret,
)

CLUSTER = pytest.mark.cluster
STATES = [
    pytest.param((bucket.make, {}), id="bucket"),
    pytest.param((bucket.make, {"existing": True}), id="bucket-existing"),
    pytest.param((bucket.make, {"locked": True}), id="bucket-locked"),
    pytest.param((bucket.make_container, {}), id="bucket-container"),
    pytest.param((check.make, {}), id="check"),
    pytest.param((manifest.make, {}), id="manifest", marks=CLUSTER),
    pytest.param((migration.make, {}), id="migration"),
    pytest.param((migration.make, {"undo": True}), id="migration-undo"),
    pytest.param((playbook.make, {}), id="playbook"),
    pytest.param((release.make, {}), id="release", marks=CLUSTER),
    pytest.param((secret.make, {}), id="secret"),
    pytest.param((secret.make_keyvault, {}), id="secret-keyvault"),
]
EVENTS = [
    pytest.param((approval.make, {}), id="approval"),
    pytest.param((backup.make, {}), id="backup", marks=CLUSTER),
    pytest.param((command.make, {}), id="command"),
    pytest.param((command.make, {"creates": True}), id="command-creates"),
    pytest.param((command.make, {"repeatable": True}), id="command-repeatable"),
    pytest.param((record.make, {}), id="record"),
    pytest.param((backup.make, {"restore": True}), id="restore", marks=CLUSTER),
]
KEY, OTHER = "aaaa/phase/step", "bbbb/phase/step"

states = pytest.mark.parametrize("subject", STATES, indirect=True)
events = pytest.mark.parametrize("subject", EVENTS, indirect=True)
every = pytest.mark.parametrize("subject", [*STATES, *EVENTS], indirect=True)


@pytest.fixture
def subject(request, tmp_path):
    make, options = request.param
    with make(request, tmp_path, **options) as made:
        yield made


def stored_and_read(change: Change) -> Change:
    """As it comes back from the journal."""
    back = Change.from_json(json.loads(json.dumps(change.to_json())))
    assert back == change
    return back


def apply(subject: Subject, change: Change, **given) -> None:
    subject.action.apply(subject.params, change, subject.context(**given))


def happen(subject: Subject, key: str, *, killed: bool = False):
    """As the executor carries out an event; `killed` before its outcome is written."""
    ctx, change = subject.context(key=key), subject.plan()
    verdict = converge(change, subject.action.read(subject.params, ctx).state, resuming=False)
    if verdict.decision is Decision.ALREADY:
        return change, None
    assert verdict.decision is Decision.APPLY
    subject.ledger.intent(key)
    outcome = subject.action.apply(subject.params, change, ctx)
    if not killed:
        subject.ledger.outcome(key, outcome)
    return change, outcome


def test_every_registered_action_is_here():
    from engine.registry import ACTION_TYPES

    assert {p.id.partition("-")[0] for p in [*STATES, *EVENTS]} == set(ACTION_TYPES)


# --- Every action -----------------------------------------------------------------------------------------------


@every
def test_reading_and_planning_twice_is_equal_and_changes_nothing(subject):
    before = subject.world()
    first, second = subject.plan(), subject.plan()
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())
    stored_and_read(first)
    assert subject.world() == before


@every
@pytest.mark.parametrize("cancel", [False, True], ids=["deadline", "cancelled"])
def test_stopped_at_any_look_at_the_deadline_apply_ends_the_same(subject, cancel):
    event = subject.action.kind is Kind.EVENT
    change, now = subject.plan(), subject.action.read(subject.params, subject.context())
    subject.action.capture(subject.params, change, now, subject.context())
    stopped, kinds = 0, set()
    for looks in subject.cuts:
        deadline = Looked(looks, cancel=cancel)
        try:
            apply(subject, change, deadline=deadline, key=KEY if event else None, resuming=bool(stopped) and not event)
        except (CancelledError, TemporaryError) as error:
            kinds.add(type(error))
            stopped += 1
        else:
            break
    assert stopped or not subject.cuts, "apply never looks at its deadline"
    assert kinds <= {CancelledError if cancel else TemporaryError}
    if event:
        assert subject.world() == {"effects": 0 if stopped == len(subject.cuts) else 1}
        happen(subject, KEY)
        assert subject.world() == {"effects": 1}
        return
    live = subject.action.read(subject.params, subject.context(resuming=True)).state
    assert converge(change, live, resuming=True).decision is not Decision.STALE
    apply(subject, change, resuming=True)
    assert subject.world() == subject.wanted
    assert subject.plan().verb is Verb.NONE


@every
def test_no_secret_leaves_the_action(subject):
    """Plans and preimages as they are; outcomes, errors and progress after the redactor, through which they go."""
    redact, told = subject.redactor, []
    ctx = subject.context()
    now = subject.action.read(subject.params, ctx)
    change = subject.action.plan(subject.params, now, ctx)
    preimage = subject.action.capture(subject.params, change, now, ctx)
    told += [json.dumps(change.to_json()), json.dumps(preimage.to_json()), repr(preimage), repr(subject.action)]
    event = subject.action.kind is Kind.EVENT
    for looks in subject.cuts[:1]:
        with pytest.raises(RunbookError) as stopped:
            apply(subject, change, deadline=Looked(looks, cancel=True), key=KEY if event else None)
        told.append(redact.text(f"{stopped.value!r} {stopped.value}"))
    if event:
        _, outcome = happen(subject, KEY)
    else:
        outcome = subject.action.apply(subject.params, change, subject.context(resuming=True))
        back = subject.action.undo(subject.params, change, preimage, subject.context(resuming=True))
        told.append(json.dumps(redact.data([back.summary, dict(back.outputs), dict(back.evidence)])))
    told += [json.dumps(redact.data([outcome.summary, dict(outcome.outputs), dict(outcome.evidence)])), *subject.lines]
    text, stored = "\n".join(told), subject.stored()
    for canary in subject.canaries():
        found = [form for form in forms(canary) if form in text or form.encode() in stored]
        assert not found


# --- STATE ------------------------------------------------------------------------------------------------------


@states
def test_applied_twice_it_stands_as_after_once_and_the_plan_is_none(subject):
    change = stored_and_read(subject.plan())
    assert (change.verb is Verb.NONE) == (subject.world() == subject.wanted)
    apply(subject, change)
    assert subject.world() == subject.wanted
    apply(subject, change, resuming=True)
    assert subject.world() == subject.wanted
    again = subject.plan()
    assert again.verb is Verb.NONE
    assert all(d.before == d.after and not d.diff for d in again.objects.values())
    live = subject.action.read(subject.params, subject.context()).state
    assert not change.objects or converge(change, live, resuming=False).decision is Decision.ALREADY


@states
def test_undone_it_is_as_before_and_residue_stays(subject):
    before, ctx = subject.world(), subject.context()
    now = subject.action.read(subject.params, ctx)
    change = stored_and_read(subject.action.plan(subject.params, now, ctx))
    captured = subject.action.capture(subject.params, change, now, ctx)
    preimage = Preimage.from_json(json.loads(json.dumps(captured.to_json())))
    assert preimage == captured
    apply(subject, change)
    for turn in ("once", "twice"):
        ctx = subject.context(resuming=True)
        live = subject.action.read_back(subject.params, change, preimage, ctx)
        verdict = undo_verdict(change, live).decision
        assert verdict is (Decision.APPLY if turn == "once" and change.undo_to else Decision.ALREADY)
        subject.action.undo(subject.params, change, preimage, ctx)
        assert undo_verdict(change, subject.action.read_back(subject.params, change, preimage, ctx)).decision is (
            Decision.ALREADY
        )
        after = {k: v for k, v in subject.wanted.items() if k in subject.residue}
        assert subject.world() == {k: v for k, v in before.items() if k not in subject.residue} | after, turn


@states
def test_half_applied_it_is_gone_on_with_and_ends_the_same(subject):
    change = stored_and_read(subject.plan())
    if subject.disturb is None:
        pytest.skip("one indivisible effect")
    subject.disturb(change)
    assert subject.world() != subject.wanted
    live = subject.action.read(subject.params, subject.context(resuming=True)).state
    assert converge(change, live, resuming=True).decision is Decision.APPLY
    apply(subject, change, resuming=True)
    assert subject.world() == subject.wanted
    assert subject.plan().verb is Verb.NONE


@states
def test_half_applied_it_is_undone(subject):
    if subject.disturb is None:
        pytest.skip("one indivisible effect")
    before, ctx = subject.world(), subject.context()
    now = subject.action.read(subject.params, ctx)
    change = subject.action.plan(subject.params, now, ctx)
    preimage = subject.action.capture(subject.params, change, now, ctx)
    subject.disturb(change)
    ctx = subject.context(resuming=True)
    live = subject.action.read_back(subject.params, change, preimage, ctx)
    assert undo_verdict(change, live).decision is not Decision.STALE
    subject.action.undo(subject.params, change, preimage, ctx)
    back = subject.action.read_back(subject.params, change, preimage, ctx)
    assert undo_verdict(change, back).decision is Decision.ALREADY
    kept = {k: v for k, v in before.items() if k not in subject.residue}
    assert {k: v for k, v in subject.world().items() if k not in subject.residue} == kept


# --- EVENT ------------------------------------------------------------------------------------------------------


@events
def test_it_happens_once_per_key(subject):
    assert subject.plan().verb is Verb.RUN
    change, first = happen(subject, KEY)
    assert first.evidence
    assert subject.world() == {"effects": 1}
    assert happen(subject, KEY)[1] is None
    again = subject.action.apply(subject.params, change, subject.context(key=KEY))
    assert again.evidence == first.evidence or (subject.standing and again.evidence)
    assert subject.world() == {"effects": 1}
    if not subject.standing:
        happen(subject, OTHER)
        assert subject.world() == {"effects": 2}


@events
def test_killed_after_its_effect_the_evidence_is_found(subject):
    change, lost = happen(subject, KEY, killed=True)
    before = subject.world()
    ctx = subject.context(key=KEY, resuming=True)
    if subject.after_kill == "doubt":
        with pytest.raises(InDoubtError, match=r"(?s)was started before the crash.*look at what it changes"):
            subject.action.read(subject.params, ctx)
        assert subject.world() == before
        return
    live = subject.action.read(subject.params, ctx).state
    expected = Decision.ALREADY if subject.after_kill == "found" else Decision.APPLY
    assert converge(change, live, resuming=True).decision is expected
    outcome = subject.action.apply(subject.params, change, ctx)
    subject.ledger.outcome(KEY, outcome)
    if subject.after_kill == "found":
        assert subject.world() == before
        assert outcome.evidence == lost.evidence or (subject.standing and outcome.evidence)
    assert converge(
        change, subject.action.read(subject.params, subject.context(key=KEY)).state, resuming=False
    ).decision is (Decision.ALREADY)


@events
def test_fresh_evidence_counts_while_planning_and_old_does_not(subject):
    hour = timedelta(hours=1)
    assert subject.plan(fresh=hour).verb is Verb.RUN
    happen(subject, KEY)
    planned = subject.plan(fresh=hour)
    assert planned.verb is Verb.NONE
    assert planned.reason
    assert json.dumps(planned.to_json()) == json.dumps(subject.plan(fresh=hour).to_json())
    stored_and_read(planned)
    otherwise = Verb.NONE if subject.standing else Verb.RUN
    assert subject.plan(fresh=hour, now=datetime.now(UTC) + 2 * hour).verb is otherwise
    assert subject.plan().verb is otherwise


@events
def test_undo_leaves_what_happened(subject):
    change, _ = happen(subject, KEY)
    before = subject.world()
    subject.action.undo(subject.params, change, Preimage(), subject.context(key=KEY))
    assert change.undo_to == {}
    assert subject.world() == before
