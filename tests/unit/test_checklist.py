"""The reference platform's checklist: every line is mapped, to what exists, and what is missing only becomes less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from engine.core.evidence import ProofKind
from engine.readiness import checklist
from engine.report.checklist import checklist_document, counts, render_checklist

ROOT = Path(__file__).parents[2]
LINES = 201
MISSING = 64
"""To be lowered as steps are added, never raised."""
MAY_BE_STATED = {
    "security-audit": r"[Ss]ecurity audit",
    "penetration-test": r"[Pp]enetration test",
    "team-trained": r"[Tt]rain",
    "on-call": r"[Oo]n-call|incident response",
    "contacts": r"[Cc]ontacts|Escalation",
    "communication-plan": r"Communication plan",
    "gdpr": r"GDPR",
    "aml-kyc": r"AML/KYC",
    "ca-contract": r"commercial CA",
    "ddos-contract": r"DDoS protection",
}
"""The only kinds of lines that a person's word may show."""


@pytest.fixture(scope="module")
def lines():
    return checklist(ROOT, "belizechain").lines


def test_every_line_is_there_and_mapped_to_what_exists(lines):
    """That steps, checks, drills and attestations exist is told by reading it: FilesError."""
    assert len(lines) == LINES
    assert all(bool(line.missing) != bool(line.proofs) for line in lines)


def test_a_file_that_shows_a_line_is_there(lines):
    named = {p.name for line in lines for p in line.proofs if p.kind is ProofKind.FILE}
    assert [name for name in sorted(named) if not (ROOT / name).is_file() or not (ROOT / name).stat().st_size] == []


def test_only_these_lines_are_attested(lines):
    stated = [(p.name, line.text) for line in lines for p in line.proofs if p.kind is ProofKind.ATTESTATION]
    assert {name for name, _ in stated} == MAY_BE_STATED.keys()
    assert [(name, text) for name, text in stated if not re.search(MAY_BE_STATED[name], text)] == []


def test_what_may_be_stated_in_readiness_is_the_same():
    criteria = yaml.safe_load((ROOT / "runbooks/belizechain/readiness.yml").read_text())
    assert criteria["attestations"].keys() == MAY_BE_STATED.keys()
    assert (len(criteria["go"]), len(criteria["no_go"])) == (10, 7)


def test_the_document_is_fresh():
    found = checklist(ROOT, "belizechain")
    assert (ROOT / "docs/checklist.md").read_text() == render_checklist(found), (
        "run: runbook checklist --runbook belizechain --out docs/checklist.md"
    )


def test_what_is_missing_does_not_grow(lines):
    assert sum(bool(line.missing) for line in lines) <= MISSING


def test_the_counts_add_up():
    document = checklist_document(checklist(ROOT, "belizechain"))
    found = document["counts"]
    assert found == counts(checklist(ROOT, "belizechain"))
    assert found["shown"] + found["attested"] + found["missing"] == found["lines"] == len(document["lines"])
