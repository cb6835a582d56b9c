"""Every side an object can stand on, as a table."""

from __future__ import annotations

import pytest

from engine.core.change import ABSENT, Change, Delta, Fidelity, Fingerprint, Verb
from engine.core.convergence import Decision, converge, undo_verdict
from engine.core.model import ObjectId, StepId

A, B, C = Fingerprint("a"), Fingerprint("b"), Fingerprint("c")
PENDING = Fingerprint("a", "pending-upgrade:6")
X, Y = ObjectId("x"), ObjectId("y")


def change(**deltas: Delta) -> Change:
    return Change(StepId("p/s"), Verb.UPDATE, Fidelity.EXACT, {ObjectId(o): d for o, d in deltas.items()})


@pytest.mark.parametrize(
    ("live", "resuming", "expected"),
    [
        ({X: A}, False, Decision.APPLY),
        ({X: B}, False, Decision.ALREADY),
        ({X: C}, False, Decision.STALE),
        ({}, False, Decision.STALE),
        ({X: PENDING}, False, Decision.STALE),
        ({X: PENDING}, True, Decision.APPLY),
        ({X: C}, True, Decision.STALE),
    ],
)
def test_one_object(live: dict[ObjectId, Fingerprint], resuming: bool, expected: Decision) -> None:
    assert converge(change(x=Delta(A, B)), live, resuming=resuming).decision is expected


@pytest.mark.parametrize(
    ("live", "expected", "stale"),
    [
        ({X: A, Y: A}, Decision.APPLY, ()),
        ({X: B, Y: A}, Decision.APPLY, ()),  # half done
        ({X: B, Y: B}, Decision.ALREADY, ()),
        ({X: B, Y: C}, Decision.STALE, (Y,)),
        ({X: C, Y: C}, Decision.STALE, (X, Y)),
    ],
)
def test_two_objects(live: dict[ObjectId, Fingerprint], expected: Decision, stale: tuple[ObjectId, ...]) -> None:
    verdict = converge(change(x=Delta(A, B), y=Delta(A, B)), live, resuming=False)
    assert (verdict.decision, verdict.stale) == (expected, stale)


def test_unknown_after_is_never_already_and_half_done_only_while_resuming() -> None:
    blind = change(x=Delta(ABSENT, None))
    assert converge(blind, {}, resuming=False).decision is Decision.APPLY
    assert converge(blind, {X: C}, resuming=False).decision is Decision.STALE
    assert converge(blind, {X: C}, resuming=True).decision is Decision.APPLY


def test_a_change_without_objects_is_applied() -> None:
    assert converge(change(), {}, resuming=False).decision is Decision.APPLY


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        ({X: A}, Decision.ALREADY),  # undo_to holds
        ({X: B}, Decision.APPLY),
        ({X: PENDING}, Decision.APPLY),
        ({X: C}, Decision.STALE),
        ({}, Decision.STALE),
    ],
)
def test_undo(live: dict[ObjectId, Fingerprint], expected: Decision) -> None:
    assert undo_verdict(change(x=Delta(A, B, (), A)), live).decision is expected


def test_residue_is_not_looked_at() -> None:
    assert undo_verdict(change(x=Delta(A, B, (), None)), {X: C}).decision is Decision.ALREADY
