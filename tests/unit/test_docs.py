"""The pages: the reference is what the models say, and every example that is a whole file lints."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from engine import wiring

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"^```yaml\n(.*?)^```", re.M | re.S)
FILES = ("phase: ", "go:\n", "title: ")
"""How a whole file begins, after its comments; anything else is a piece of one."""
SHOP = {
    "runbooks/NAME/runbook.yml": "title: Shop\n",
    "runbooks/NAME/phases/01-shop.yml": """\
phase: shop
steps:
  - id: web
    check: [{http: {url: "http://127.0.0.1:1/", status: 200}}]
  - id: dump
    backup:
      of: {postgresql: {namespace: shop, pod: postgresql-0, database: shop, user: postgres}}
      to: {bucket: shop-backups}
    fresh: 24h
""",
    "runbooks/NAME/readiness.yml": """\
go: [{id: a, text: A, proofs: [{attestation: team-trained}]}]
attestations: {team-trained: {text: Trained}}
""",
    "runbooks/NAME/charts/external-secrets/Chart.yaml": "apiVersion: v2\nname: external-secrets\nversion: 1.0.0\n",
    "inventories/test/hosts.yml": "all: {hosts: {localhost: {ansible_connection: local}}}\n",
    "README.md": "A shop.\n",
}


def examples() -> list[tuple[str, str, str]]:
    """Page and line, the file it would be, its text."""
    found = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text()
        for match in EXAMPLE.finditer(text):
            body = re.sub(r"\A(#[^\n]*\n)+", "", match[1])
            if not body.startswith(FILES):
                continue
            named = re.search(r"\A# (\S+\.yml)\n", match[1])
            name = named[1] if named else "runbooks/NAME/phases/02-example.yml"
            found.append((f"{page.name}:{text.count(chr(10), 0, match.start()) + 1}", name, match[1]))
    return found


def test_the_pages_have_examples():
    assert {place.partition(":")[0] for place, *_ in examples()} >= {"format.md", "readiness.md"}


@pytest.mark.parametrize(("place", "name", "text"), examples(), ids=[place for place, *_ in examples()])
def test_an_example_that_is_a_whole_file_lints(place, name, text, tmp_path):
    for path, content in {**SHOP, name: text}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    errors = [d for d in wiring.lint(tmp_path, "NAME", "test") if d.severity == "error"]
    assert not errors, "\n".join(f"docs/{place}: {d.render()}" for d in errors)


def test_the_reference_is_fresh():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/reference.md").read_text() == module.reference(), "run: python tools/reference.py"


def test_the_reference_tells_of_every_key():
    """A key without a description tells its reader nothing."""
    rows = [line for line in (ROOT / "docs/reference.md").read_text().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []
