"""A plan for a person: what would change and how, how far that can be trusted, and the way back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from engine.core.change import Change, Delta, DiffLine, Fidelity, Verb
from engine.core.model import ObjectId, StepId
from engine.core.planning import Plan, barrier
from engine.report.text import clean, clip, columns, count

SIGNS = {
    Verb.NONE: "=",
    Verb.CREATE: "+",
    Verb.UPDATE: "~",
    Verb.REPLACE: "!",
    Verb.DELETE: "-",
    Verb.RUN: "▸",
}
_LONGEST_VALUE = 48


def plan_lines(
    plan: Plan, actions: Mapping[StepId, str], *, width: int = 0, verbose: bool = False, saved: str = ""
) -> list[str]:
    """The whole plan. `actions`: step -> its action's name. `saved`: the file it was written to, to apply exactly it.

    Verbose shows the steps that stay as they are, and those left out, too.
    """
    shown = [c for c in plan.changes.values() if verbose or c.verb is not Verb.NONE]
    heads = dict(zip((c.step for c in shown), columns([_head(c, actions) for c in shown], gap="   "), strict=True))
    way_back = barrier(plan.changes.values())
    lines: list[str] = []
    for change in shown:
        lines.append(clip(heads[change.step], width))
        lines += [clip(line, width) for line in _body(change)]
        if change is way_back:
            lines.append(clip(f"! no way back after {change.step}: {clean(change.irreversible or '')}", width))
    if verbose:
        lines += [clip(f"· {step}   left out: {clean(why)}", width) for step, why in plan.reasons.items()]
    return [*lines, *([""] if lines else []), *_summary(plan, way_back, saved)]


def coverage(plan: Plan) -> str:
    """How many steps at which fidelity, best first: `66 exact, 2 assumed`."""
    counts = plan.count(lambda c: c.fidelity.value)
    return ", ".join(f"{counts[f.value]} {f.value}" for f in Fidelity if f.value in counts)


def verbs(plan: Plan) -> str:
    """How many steps of each verb: `61 create, 4 run, 3 none`."""
    return count_verbs(plan.changes.values())


def count_verbs(changes: Iterable[Change]) -> str:
    """How many changes of each verb, what changes something first."""
    order = [v for v in Verb if v is not Verb.NONE] + [Verb.NONE]
    found = [c.verb for c in changes]
    return ", ".join(f"{found.count(v)} {v.value}" for v in order if v in found)


def change_lines(change: Change) -> list[str]:
    """One change's objects and their diffs, indented; for `plan` and for `why`."""
    return list(_body(change))


def listed_changes(changes: Sequence[Change], actions: Mapping[StepId, str], *, width: int = 0) -> list[str]:
    """Each change with its head and its diff; `actions`: step -> its action's name. For `drift`."""
    heads = columns([_head(c, actions) for c in changes], gap="   ")
    rows = (line for change, head in zip(changes, heads, strict=True) for line in (head, *_body(change)))
    return [clip(row, width) for row in rows]


def _head(change: Change, actions: Mapping[StepId, str]) -> list[str]:
    sign = "?" if change.fidelity is Fidelity.DEFERRED else SIGNS[change.verb]
    return [f"{sign} {change.step}", actions.get(change.step, ""), change.verb.value, change.fidelity.value]


def _body(change: Change) -> Iterator[str]:
    if change.reason:
        yield f"    {clean(change.reason)}"
    for object_id, delta in change.objects.items():
        if delta.before != delta.after or delta.diff:
            yield f"    {_object_sign(delta)} {clean(object_id)}{_unfinished(delta)}"
            rows = [_diff_row(line) for line in delta.diff]
            yield from columns(rows, indent="        ", gap="   ")
    kept = _stays(change)
    if kept:
        yield f"    stays on rollback: {', '.join(map(clean, kept))}"


def _object_sign(delta: Delta) -> str:
    if delta.after is None:
        return "?"
    if delta.before.absent:
        return "+"
    return "-" if delta.after.absent else "~"


def _unfinished(delta: Delta) -> str:
    return f"   ({delta.before.unfinished})" if delta.before.unfinished else ""


def _diff_row(line: DiffLine) -> list[str]:
    before, after = _value(line.before), _value(line.after)
    arrow = f"{before} → {after}" if line.sign == "~" else after if line.sign == "+" else f"{before} →"
    return [f"{line.sign} {clean(line.path)}", arrow, clean(line.note)]


def _value(value: str | None) -> str:
    return clip(clean(value or ""), _LONGEST_VALUE) or '""'


def _stays(change: Change) -> list[ObjectId]:
    return [] if change.verb is Verb.NONE else sorted(change.residue)


def _summary(plan: Plan, way_back: Change | None, saved: str) -> Iterator[str]:
    total, wanted = len(plan.changes), len(plan.wanted)
    left_out = f"   ({count(len(plan.reasons), 'step')} left out)" if plan.reasons else ""
    if not wanted:
        yield f"✓ nothing to change   {count(total, 'step')} read ({coverage(plan)}){left_out}"
        return
    back = f"no, not after {way_back.step}" if way_back else "yes"
    yield f"{wanted} of {count(total, 'step')} would change: {verbs(plan)}.   Way back: {back}.{left_out}"
    yield f"Coverage: {coverage(plan)}.   Digest sha256:{plan.digest[:12]}…"
    yield f"Apply: runbook deploy {plan.environment}{f' --plan {saved}' if saved else ''}"
