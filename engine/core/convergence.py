"""Just before apply, and just before undo: is the world still where the plan left it? Pure equality of data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from engine.core.change import ABSENT, Change, Delta, Fingerprint, State
from engine.core.model import ObjectId


class Side(Enum):
    """Where one live object stands relative to its planned change."""

    BEFORE = auto()
    AFTER = auto()
    OTHER = auto()


class Decision(Enum):
    """What to do with a step, or with its undo."""

    ALREADY = "already"
    APPLY = "apply"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and, when stale, the objects that stand where nobody planned."""

    decision: Decision
    stale: tuple[ObjectId, ...] = ()


def side(delta: Delta, live: Fingerprint, *, resuming: bool) -> Side:
    """AFTER wins over BEFORE. Something unfinished is ours to go on with only while resuming our own intent."""
    if live == delta.after:
        return Side.AFTER
    if live.unfinished:
        return Side.BEFORE if resuming or live == delta.before else Side.OTHER
    if live == delta.before:
        return Side.BEFORE
    if resuming and delta.after is None:
        return Side.BEFORE  # planned blind, our intent is open: half done by us, apply is repeatable
    return Side.OTHER


def converge(change: Change, live: State, *, resuming: bool) -> Verdict:
    """May this planned change be applied to what is live now?

    ALREADY: every object is where the plan wants it. APPLY: untouched or half done. STALE: something else moved.
    """
    sides = {o: side(d, live.get(o, ABSENT), resuming=resuming) for o, d in change.objects.items()}
    if Side.OTHER in sides.values():
        return _stale(o for o, s in sides.items() if s is Side.OTHER)
    if sides and set(sides.values()) <= {Side.AFTER}:
        return Verdict(Decision.ALREADY)
    return Verdict(Decision.APPLY)


def undo_verdict(change: Change, live: State) -> Verdict:
    """May this change be taken back? ALREADY means undone; STALE that someone moved it since.

    `live` is what the action's `read_back` saw, in the fields of the state to return to.
    """
    moved: list[ObjectId] = []
    undone = True
    for object_id, delta in change.objects.items():
        if delta.undo_to is None:
            continue
        seen = live.get(object_id, ABSENT)
        if seen == delta.undo_to:
            continue
        undone = False
        ours = {delta.before, delta.after, delta.undo_to}
        if seen not in ours and not seen.unfinished and delta.after is not None:
            moved.append(object_id)
    if moved:
        return _stale(moved)
    return Verdict(Decision.ALREADY if undone else Decision.APPLY)


def _stale(objects: Iterable[ObjectId]) -> Verdict:
    return Verdict(Decision.STALE, tuple(sorted(objects)))
