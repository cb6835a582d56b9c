"""A checklist as Markdown: each line beside what shows it."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from engine.core.checklist import Checklist, Line
from engine.core.evidence import Proof, ProofKind

_MARKUP = str.maketrans({"|": "\\|", "<": "&lt;"})


def counts(checklist: Checklist) -> dict[str, int]:
    """`lines`, and how many of them are `shown`, `attested` (a person's word is part of it) and `missing`."""
    missing, attested = sum(bool(x.missing) for x in checklist.lines), sum(x.attested for x in checklist.lines)
    total = len(checklist.lines)
    return {"lines": total, "shown": total - missing - attested, "attested": attested, "missing": missing}


def checklist_document(checklist: Checklist) -> dict[str, Any]:
    """`checklist --json`, described in docs/commands.md."""
    lines = [
        {
            "section": line.section,
            "text": line.text,
            "proofs": [{"kind": p.kind.value, "name": p.name, "check": p.check or None} for p in line.proofs],
            "missing": line.missing or None,
        }
        for line in checklist.lines
    ]
    return {"schema": 1, "title": checklist.title, "counts": counts(checklist), "lines": lines}


def render_checklist(checklist: Checklist) -> str:
    """The whole document. The same checklist gives the same text."""
    lines, total = checklist.lines, counts(checklist)
    parts = [
        f"# {checklist.title}",
        "",
        "Written by `runbook checklist` from the runbook's `checklist.yml`: edit that. A step or check shows",
        "its line in every run that passes it; an attestation is a person's signed word (docs/readiness.md).",
        "",
        "**" + ", ".join(f"{number} {word}" for word, number in total.items()) + ".**",
        "",
    ]
    for section, group in groupby(lines, key=lambda line: line.section):
        parts += [f"## {section}", "", "| line | shown by |", "|---|---|"]
        parts += [f"| {line.text.translate(_MARKUP)} | {_shown(line)} |" for line in group]
        parts.append("")
    missing = [line for line in lines if line.missing]
    if missing:
        parts += ["## What is missing, and why", ""]
        parts += [f"- {line.text.translate(_MARKUP)}: {line.missing.translate(_MARKUP)}" for line in missing]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _shown(line: Line) -> str:
    if line.missing:
        return "**missing**"
    return ", ".join(_proof(p) for p in line.proofs)


def _proof(proof: Proof) -> str:
    if proof.kind is ProofKind.CHECK:
        return f"check `{proof.check}` of `{proof.name}`"
    return f"[{proof.name}](../{proof.name})" if proof.kind is ProofKind.FILE else f"{proof.kind} `{proof.name}`"
