"""A plan made offline, and two of them side by side, for a person and for a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.core.change import Change, Fidelity
from engine.core.comparison import Comparison, Difference
from engine.core.model import StepId
from engine.core.offline import OfflinePlan
from engine.report.documents import plan_document
from engine.report.plan import SIGNS, coverage, verbs
from engine.report.text import clean, clip, columns, count

_LONGEST_VALUE = 60


def offline_document(offline: OfflinePlan) -> dict[str, Any]:
    """The plan's own document, and under `offline` what it was judged by and could not see."""
    return {
        **plan_document(offline.plan),
        "offline": {
            "kubernetes": offline.kubernetes,
            "objects_judged": offline.judged,
            "objects_not_judged": list(offline.unjudged),
            "not_rendered": dict(offline.not_rendered),
            "no_way_back_after": [{"step": c.step, "why": c.irreversible} for c in offline.barriers],
            "installs_differently": dict(offline.installs_differently),
        },
    }


def offline_lines(
    offline: OfflinePlan, actions: Mapping[StepId, str], *, width: int = 0, verbose: bool = False
) -> list[str]:
    """Every step with its label; then what a rollback could not take back, and what could not be seen from here."""
    plan = offline.plan
    heads = columns([_head(c, actions) for c in plan.changes.values()], gap="   ")
    lines = [
        f"{plan.environment}: {plan.runbook} as a first deploy, on Kubernetes {offline.kubernetes}. Nobody was asked.",
        "",
    ]
    for head, change in zip(heads, plan.changes.values(), strict=True):
        lines.append(clip(head, width))
        if change.reason and (change.fidelity is Fidelity.DEFERRED or verbose):
            lines.append(clip(f"    {clean(change.reason)}", width))
        if verbose:
            lines += [clip(f"    + {clean(name)}", width) for name in change.objects]
        if change.irreversible and change in plan.wanted:
            lines.append(clip(f"! no way back after {change.step}: {clean(change.irreversible)}", width))
    if verbose:
        lines += [clip(f"· {step}   left out: {clean(why)}", width) for step, why in plan.reasons.items()]
    return [*lines, "", *(clip(line, width) for line in _summary(offline))]


def _head(change: Change, actions: Mapping[StepId, str]) -> list[str]:
    sign = "?" if change.fidelity is Fidelity.DEFERRED else SIGNS[change.verb]
    many = count(len(change.objects), "object") if change.objects else clean(change.reason)
    shown = "" if change.fidelity is Fidelity.DEFERRED else many
    return [f"{sign} {change.step}", actions.get(change.step, ""), change.verb.value, change.fidelity.value, shown]


def _summary(offline: OfflinePlan) -> Iterator[str]:
    plan = offline.plan
    stays = sorted({str(o) for c in plan.wanted for o in c.residue if not o.startswith("playbook ")})
    if offline.barriers:
        yield "No way back after:"
        yield from (f"  {c.step}: {clean(c.irreversible or '')}" for c in offline.barriers)
    else:
        yield "No way back after: nothing, every step can be taken back."
    if stays:
        crds = [o for o in stays if o.startswith(("crd/", "CustomResourceDefinition "))]
        others = [clean(o) for o in stays if o not in crds] + ([count(len(crds), "CRD")] if crds else [])
        yield f"Stays on rollback: {', '.join(others)}"
    if offline.not_rendered:
        yield f"Not rendered: {', '.join(offline.not_rendered)}."
    if offline.unjudged:
        yield f"Not judged, for nothing that was rendered brings their kinds: {', '.join(map(clean, offline.unjudged))}"
    for release, template in offline.installs_differently.items():
        yield f"! release {release} asks whether it is an upgrade ({clean(template)}): it is never found unchanged"
    left_out = f", {len(plan.reasons)} left out" if plan.reasons else ""
    yield f"{count(len(plan.changes), 'step')}{left_out}: {verbs(plan)}.   Coverage: {coverage(plan)}."
    judged = count(offline.judged, "object")
    yield f"✓ {judged} as the schemas of Kubernetes {offline.kubernetes} and of the plan's own CRDs say"


# --- Two environments -------------------------------------------------------------------------------------------


def comparison_document(found: Comparison) -> dict[str, Any]:
    """Every difference, as `{path, LEFT, RIGHT}` with the environments' names."""

    def lines(differences: Sequence[Difference]) -> list[dict[str, Any]]:
        return [{"path": d.path, "left": d.left, "right": d.right} for d in differences]

    return {
        "schema": 1,
        "left": found.left,
        "right": found.right,
        "same": found.same,
        "variables": lines(found.variables),
        "only_left": dict(found.only_left),
        "only_right": dict(found.only_right),
        "steps": {step: {o: lines(ds) for o, ds in objects.items()} for step, objects in found.steps.items()},
        "not_compared": dict(found.unknown),
    }


def comparison_lines(found: Comparison, *, width: int = 0) -> list[str]:
    """First the variables, then the steps only one has, then what the others come to."""
    lines: list[str] = [f"{found.left} → {found.right}"]
    if found.variables:
        lines += ["", "Variables", *columns([_row(d) for d in found.variables], indent="  ", gap="   ")]
    for name, only in ((found.left, found.only_left), (found.right, found.only_right)):
        if only:
            sign = "-" if only is found.only_left else "+"
            lines += ["", f"Steps only in {name}"]
            lines += [f"  {sign} {step}{f'   (left out: {clean(why)})' if why else ''}" for step, why in only.items()]
    for step, objects in found.steps.items():
        lines += ["", step]
        for name, differences in objects.items():
            if len(differences) == 1 and not differences[0].path:
                lines.append(f"  {'-' if differences[0].right is None else '+'} {clean(name)}")
                continue
            lines.append(f"  ~ {clean(name)}")
            lines += columns([_row(d) for d in differences], indent="      ", gap="   ")
    if found.unknown:
        lines += ["", "Not compared, for it could not be rendered"]
        lines += [f"  ? {step}: {clean(why)}" for step, why in found.unknown.items()]
    if found.same:
        lines += ["✓ no difference in what could be rendered"]
    return [clip(line, width) for line in lines]


def _row(difference: Difference) -> list[str]:
    left, right = _value(difference.left), _value(difference.right)
    if difference.left is None:
        return [f"+ {clean(difference.path)}", right]
    if difference.right is None:
        return [f"- {clean(difference.path)}", f"{left} →"]
    return [f"~ {clean(difference.path)}", f"{left} → {right}"]


def _value(value: str | None) -> str:
    return clip(clean(value or ""), _LONGEST_VALUE) or '""'
