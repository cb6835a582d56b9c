"""What waits for what: as text for a terminal, as DOT for Graphviz, as data for a program."""

from __future__ import annotations

from typing import Any

from engine.core.model import Phase, Runbook, Step
from engine.report.text import clean, clip, columns


def graph_lines(runbook: Runbook, *, width: int = 0) -> list[str]:
    """Phases and their steps in order, each with what it waits for."""
    lines = [f"{runbook.name}   {clean(runbook.title)}".rstrip()]
    for number, phase in enumerate(runbook.phases, 1):
        needs = _phase_needs(runbook, number - 1)
        savepoint = "" if phase.savepoint else "   no savepoint"
        waits = f"   after {', '.join(needs)}" if needs else ""
        lines.append(clip(f"{number:>2} {phase.id}   {clean(phase.title)}{waits}{savepoint}", width))
        rows = [[step.local_id, step.action, _waits(step, phase)] for step in phase.steps]
        lines += [clip(line, width) for line in columns(rows, indent="     ", gap="   ")]
    return lines


def graph_dot(runbook: Runbook) -> str:
    """The graph in Graphviz' DOT: a cluster per phase, an edge per direct need."""
    lines = [f"digraph {_quoted(runbook.name)} {{", "  rankdir=LR;", "  compound=true;", "  node [shape=box];"]
    for phase in runbook.phases:
        lines += [f"  subgraph {_quoted('cluster_' + phase.id)} {{", f"    label={_quoted(phase.title)};"]
        lines += [f"    {_quoted(s.id)} [label={_quoted(f'{s.local_id} ({s.action})')}];" for s in phase.steps]
        lines.append("  }")
    lines += [f"  {_quoted(n)} -> {_quoted(s.id)};" for s in runbook.steps() for n in _fewest(s, runbook)]
    for position, phase in enumerate(runbook.phases):
        for needed in _phase_needs(runbook, position):
            lines += _phase_edge(runbook.phase(needed), phase)
    return "\n".join([*lines, "}"])


def graph_document(runbook: Runbook) -> dict[str, Any]:
    """The graph as JSON (schema 1)."""
    return {
        "schema": 1,
        "runbook": runbook.name,
        "phases": [
            {
                "id": phase.id,
                "title": phase.title,
                "needs": _phase_needs(runbook, position),
                "savepoint": phase.savepoint,
                "steps": [
                    {"id": s.id, "name": s.name, "action": s.action, "needs": list(s.needs)} for s in phase.steps
                ],
            }
            for position, phase in enumerate(runbook.phases)
        ],
    }


def _phase_needs(runbook: Runbook, position: int) -> list[str]:
    return list(runbook.phases[position].needs)


def _waits(step: Step, phase: Phase) -> str:
    above = [s.id for s in phase.steps[: phase.steps.index(step)]]
    if list(step.needs) == above:
        return f"after {above[-1].partition('/')[2]}" if above else ""
    if not step.needs:
        return "at once"
    return "needs " + ", ".join(n.partition("/")[2] if n.startswith(f"{phase.id}/") else n for n in step.needs)


def _fewest(step: Step, runbook: Runbook) -> list[str]:
    """Direct needs without those that another need already waits for: fewer edges, the same order."""
    needs_of = {s.id: set(s.needs) for s in runbook.steps()}
    implied = {n for need in step.needs for n in needs_of.get(need, set())}
    return [n for n in step.needs if n not in implied]


def _phase_edge(needed: Phase, phase: Phase) -> list[str]:
    if not needed.steps or not phase.steps:
        return []
    tail, head = _quoted(needed.steps[-1].id), _quoted(phase.steps[0].id)
    between = f"ltail={_quoted('cluster_' + needed.id)}, lhead={_quoted('cluster_' + phase.id)}"
    return [f"  {tail} -> {head} [{between}];"]


def _quoted(text: str) -> str:
    escaped = clean(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
