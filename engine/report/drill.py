"""What a drill cost, and whether that is within its targets: for the terminal, the record and `--json`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.core.drill import FAULT, LOSS, Drill
from engine.core.history import RunStatus, RunView
from engine.report import tally
from engine.report.text import ago, clean, clip, columns, duration, wrap

_LAST = 5
_PARTS = ("detect", "decide", "act", "verify")


@dataclass(frozen=True, slots=True)
class Measure:
    """One of the two things a drill measures, beside its target."""

    what: str
    got: str
    target: str
    met: bool

    @property
    def sign(self) -> str:
        return "✓" if self.met else "✗"


def result(view: RunView) -> dict[str, Any] | None:
    """The verdict as the journal holds it (docs/drills.md); None while there is none."""
    step = view.steps.get(LOSS)
    return dict(step.evidence) if step and step.evidence else None


def struck(view: RunView) -> bool:
    """Has the fault begun, or may it have?"""
    step = view.steps.get(FAULT)
    return step is not None and step.intents > 0 and view.status is not RunStatus.ABANDONED


def measures(view: RunView) -> list[Measure]:
    """What was lost and how long it took; empty while nobody has judged."""
    found = result(view)
    if found is None:
        return []
    back, seconds = found["rto_seconds"], found["rpo_seconds"]
    rpo, rto = found["targets"]["rpo"], found["targets"]["rto"]
    lost = f"{found['lost']} of {found['acknowledged']}   ({seconds:.1f} s{_since(found)})"
    took = "not back" if back is None else f"{back:.1f} s"
    return [
        Measure("loss of acknowledged writes", lost, duration(rpo), seconds <= rpo),
        Measure("time to recover", took, duration(rto), back is not None and back <= rto),
    ]


def parts(view: RunView) -> list[tuple[str, float]]:
    """The recovery time's parts, in seconds, as far as it came."""
    found = result(view) or {}
    return [(part, found[f"{part}_seconds"]) for part in _PARTS if found.get(f"{part}_seconds") is not None]


def measured_lines(view: RunView, earlier: Sequence[RunView] = ()) -> list[str]:
    """The two measures, the parts of the second, and the last times of the same drill."""
    rows = [[m.what, m.got, f"target {m.target}", m.sign] for m in measures(view)]
    lines = columns(rows, indent="  ", gap="   ")
    if parts(view):
        lines.append("    " + "   ".join(f"{part} {seconds:.1f}" for part, seconds in parts(view)))
    same = [v for v in earlier if v.id != view.id and v.drill.get("id") == view.drill.get("id")]
    times = [found["rto_seconds"] for v in (*same, view) if (found := result(v)) and found["rto_seconds"] is not None]
    if len(times) > 1:
        lines.append("  last times to recover   " + "  ".join(f"{seconds:.1f}" for seconds in times[-_LAST:]))
    return lines


def ending_lines(view: RunView, width: int = 0) -> list[str]:
    """How it ended, in a sentence, and whether the platform stands."""
    return wrap(_ending(view), width, "")


def last_line(view: RunView, now: datetime) -> str:
    """The newest drill of an environment, in one line."""
    head, end = f"drill {view.drill.get('id', '?')}", f"run {view.id}"
    when = f"{ago(view.finished or view.started, now)} ago"
    if view.broken:
        return f"✗ {head}: the platform did not come back from it   {when}   {end}"
    found = result(view)
    if found is None or not found["recovered"]:
        return f"· {head}: {view.status.value}   {when}   {end}"
    sign = "!" if found["misses"] else "✓"
    lost = f"{found['lost']} of {found['acknowledged']} writes lost ({found['rpo_seconds']:.1f} s)"
    return f"{sign} {head}: {lost}, back in {found['rto_seconds']:.1f} s   {when}   {end}"


def drill_document(view: RunView) -> dict[str, Any]:
    """What `--json` says of a drill beside what it says of any run."""
    return {**view.drill, "struck": struck(view), "recovered": not view.broken, "result": result(view)}


def list_lines(drills: Iterable[Drill], last: Mapping[str, RunView], now: datetime, *, width: int = 0) -> list[str]:
    """Every drill there is: its disaster, its targets, its last run."""
    lines: list[str] = []
    for one in drills:
        targets = f"lose at most {duration(one.targets.rpo.total_seconds())}, back in {_seconds(one)}"
        lines += [clip(line, width) for line in (f"{one.id}   {clean(one.title)}", f"    {targets}")]
        if one.id in last:
            lines.append(clip(f"    {last_line(last[one.id], now)}", width))
    return lines or ["· no drill here: write drills/NAME.yml beside runbook.yml"]


def list_document(drills: Iterable[Drill], last: Mapping[str, RunView], *, allowed: bool) -> dict[str, Any]:
    return {
        "schema": 1,
        "allowed": allowed,
        "drills": [
            {
                "id": one.id,
                "title": one.title,
                "targets": one.targets.to_json(),
                "last": {"run": last[one.id].id, **drill_document(last[one.id])} if one.id in last else None,
            }
            for one in drills
        ],
    }


def _seconds(one: Drill) -> str:
    return duration(one.targets.rto.total_seconds())


def _since(found: dict[str, Any]) -> str:
    if found["measured_by"] == "sentinels":
        return ""
    return " back to the backup" if found["measured_by"] == "backup" else " and more: no sentinel and no backup is left"


def _ending(view: RunView) -> str:
    took = duration(tally.seconds(view))
    found = result(view)
    if view.status is RunStatus.ABANDONED:
        reason = clean(view.steps[LOSS].reason)
        return f"! over after {took}: {reason}. Nothing was broken."
    if view.status is RunStatus.STOPPED:
        return f"! stopped after {took}: the platform is as the fault left it, or half way back."
    if view.broken:
        return f"✗ the platform is not back after {took}. The drill stays to be taken up."
    if view.status is RunStatus.SUCCEEDED:
        return f"✓ drilled in {took}: all targets met."
    if found and found["recovered"]:
        return f"✗ drilled in {took}: {clean('; '.join(found['misses']))}. The platform stands."
    return f"▸ run {view.id} is {view.status.value}."


def last_runs(views: Iterable[RunView], environment: str) -> dict[str, RunView]:
    """The newest run of each drill of an environment."""
    return {str(v.drill.get("id")): v for v in views if v.kind == "drill" and v.environment == environment}
