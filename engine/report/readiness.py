"""GO or NO-GO for a person and for a program, and what an attestation says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from engine.core.attestation import Attestation
from engine.core.drill import LOSS
from engine.core.evidence import Found, Judged, Readiness, Standing
from engine.core.history import RunView
from engine.report.text import ago, clean, wrap

_SIGNS = {Standing.HOLDS: "✓", Standing.FAILED: "✗", Standing.TOO_OLD: "!", Standing.MISSING: "·"}


def readiness_lines(found: Readiness, now: datetime, *, width: int = 0) -> list[str]:
    """Every criterion, with its proofs or with what is missing and what would bring it."""
    lines = [f"{found.runbook} → {found.environment}   readiness at {found.at}", ""]
    for title, group in (("GO: all must be met", found.go), ("NO-GO: each must be ruled out", found.no_go)):
        lines.append(title)
        for judged in group:
            lines += _criterion(judged, now, width)
        lines.append("")
    return [*lines, *wrap(verdict(found), width, ""), *_next(found)]


def verdict(found: Readiness) -> str:
    """`✗ NO-GO   3 of 10 go criteria are not met, 1 of 7 no-go criteria is not ruled out`."""
    if found.ready:
        return f"✓ GO   all {len(found.go)} go criteria are met, all {len(found.no_go)} no-go criteria ruled out"
    unmet, standing = (sum(not j.holds for j in group) for group in (found.go, found.no_go))
    go, no_go = len(found.go), len(found.no_go)
    return f"✗ NO-GO   {unmet} of {go} go criteria not met, {standing} of {no_go} no-go criteria not ruled out"


def commands(found: Readiness) -> list[str]:
    """What would bring what is missing, each once."""
    wanted = (f.command for j in (*found.go, *found.no_go) for f in j.found if not f.holds and f.command)
    return list(dict.fromkeys(wanted))


def readiness_document(found: Readiness) -> dict[str, Any]:
    """`readiness --json`, described in docs/commands.md."""
    return {
        "schema": 1,
        "environment": found.environment,
        "runbook": found.runbook,
        "at": found.at,
        "ready": found.ready,
        "go": [_document(j) for j in found.go],
        "no_go": [_document(j) for j in found.no_go],
        "next": commands(found),
    }


def attested_lines(said: Attestation) -> list[str]:
    """What was journaled."""
    with_file = f"   with {said.file} (sha256:{said.sha256[:12]}…)" if said.file else ""
    return [
        f"✓ {said.subject} of {said.environment}: stated by {clean(said.by)}, counts until {said.until}{with_file}",
        f"  see   runbook readiness {said.environment}",
    ]


def drill_row(view: RunView) -> tuple[str, str, str, str, str]:
    """Name, when, loss, recovery, verdict of one drill that came to a result."""
    result = view.steps[LOSS].evidence
    targets = result.get("targets", {})
    rto = result.get("rto_seconds")
    took = "not recovered" if rto is None else f"{rto:.1f} s (target {targets.get('rto', 0):.0f} s)"
    lost = (
        f"{result.get('lost', 0)} of {result.get('acknowledged', 0)} writes, {result.get('rpo_seconds', 0):.1f} s "
        f"(target {targets.get('rpo', 0):.0f} s)"
    )
    misses = "; ".join(map(str, result.get("misses", [])))
    return str(view.drill.get("id", view.id)), view.finished or view.started, lost, took, misses or "all targets met"


def where(found: Found) -> str:
    """`run 7f3c, 2026-11-24T14:02:00+00:00`; empty when there is neither."""
    return ", ".join(part for part in (f"run {found.run}" if found.run else "", found.at) if part)


def _criterion(judged: Judged, now: datetime, width: int) -> Iterator[str]:
    sign = "✓" if judged.holds else "✗"
    yield from wrap(f"{sign} {clean(judged.criterion.text)}   ({judged.criterion.id})", width, "  ")
    for found in judged.found:
        age = f" {ago(found.at, now)} ago" if found.at else ""
        run = f"   run {found.run}{age}" if found.run else f"  {age}" if age else ""
        if found.holds:
            yield from wrap(f"✓ {found.proof}{run}   {clean(found.saw)}", width, "      ")
        else:
            bring = f"   → {found.command}" if found.command else ""
            yield from wrap(f"{_SIGNS[found.standing]} {found.proof}{run}   {_lacks(found)}{bring}", width, "      ")


def _lacks(found: Found) -> str:
    word = {Standing.TOO_OLD: f"older than {_term(found)}", Standing.FAILED: "failed", Standing.MISSING: "missing"}
    return f"{word[found.standing]}: {clean(found.saw)}"


def _term(found: Found) -> str:
    seconds = found.proof.within.total_seconds() if found.proof.within else 0
    return f"{seconds / 86400:g} days" if seconds >= 2 * 86400 else f"{seconds / 3600:g} hours"


def _next(found: Readiness) -> Iterator[str]:
    for command in commands(found):
        yield f"  next   {command}"


def _document(judged: Judged) -> dict[str, Any]:
    return {
        "id": judged.criterion.id,
        "text": judged.criterion.text,
        "holds": judged.holds,
        "proofs": [_proof(f) for f in judged.found],
    }


def _proof(found: Found) -> dict[str, Any]:
    proof = found.proof
    return {
        "kind": proof.kind.value,
        "name": proof.name,
        "check": proof.check or None,
        "within_seconds": proof.within.total_seconds() if proof.within else None,
        "standing": found.standing.value,
        "saw": found.saw,
        "run": found.run or None,
        "at": found.at or None,
        "next": found.command or None,
    }


def readiness_rows(found: Readiness) -> Sequence[tuple[str, str, str, str]]:
    """For a record: sign, `go` or `no-go`, the criterion, its evidence or what is missing."""
    rows = []
    for word, group in (("go", found.go), ("no-go", found.no_go)):
        for judged in group:
            lacking = [f for f in judged.found if not f.holds]
            shown = lacking or judged.found
            told = "; ".join(_told(f) for f in shown)
            rows.append(("✓" if judged.holds else "✗", word, judged.criterion.text, told))
    return rows


def _told(found: Found) -> str:
    place = f" ({where(found)})" if where(found) else ""
    return f"{found.proof}{place}" if found.holds else f"{found.proof}{place} {_lacks(found)}"
