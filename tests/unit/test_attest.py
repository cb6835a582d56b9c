"""`runbook attest` and `runbook readiness` over a project of files, with the real ssh-keygen and the real journal."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from engine import wiring
from engine.cli.app import main
from engine.core.events import EventType
from tests.fakes.required import missing

READINESS = """\
go:
  - id: files
    text: Described
    proofs: [{file: README.md}]
  - id: team
    text: Trained
    proofs: [{attestation: trained, within: 30d}]
no_go:
  - id: audit
    text: Failed audit
    proofs: [{attestation: audited}]
attestations:
  trained: {text: Everyone was trained, valid_for: 90d}
  audited: {text: An audit was passed}
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    if shutil.which("ssh-keygen") is None:
        missing("ssh-keygen", "no ssh-keygen on PATH")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    files = {
        "runbooks/shop/runbook.yml": "title: Shop\n",
        "runbooks/shop/phases/01.yml": "phase: one\nsteps:\n  - id: look\n    check: [{tcp: {address: 127.0.0.1:1}}]\n",
        "runbooks/shop/readiness.yml": READINESS,
        "inventories/test/hosts.yml": "all: {hosts: {localhost: {ansible_connection: local}}}\n",
        "README.md": "A shop.\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    key(tmp_path, "alice")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def key(project: Path, name: str, *, allowed: bool = True) -> Path:
    path = project / f"{name}.key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    if allowed:
        public = path.with_suffix(".key.pub").read_text().strip()
        with (project / "inventories/test/allowed_signers").open("a") as file:
            file.write(f'{name} namespaces="runbook-attestation" {public}\n')
    return path


@pytest.fixture
def say(capsys):
    def said(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return said


@pytest.fixture
def attest(say):
    def attested(what: str, *more: str, who: str = "alice") -> tuple[int, str, str]:
        return say("attest", "test", what, "--statement", "All six, in June", "--key", f"{who}.key", *more)

    return attested


def journaled(project: Path) -> list:
    journal = wiring.open_journal(project)
    try:
        return [e for e in journal.events() if e.type is EventType.ATTESTED]
    finally:
        journal.close()


def standings(say) -> dict[str, str]:
    """Attestation -> where it stands."""
    document = json.loads(say("readiness", "test", "--json")[1])
    proofs = [p for c in (*document["go"], *document["no_go"]) for p in c["proofs"]]
    return {p["name"]: p["standing"] for p in proofs if p["kind"] == "attestation"}


def test_no_go_until_everything_is_stated(project, say, attest):
    code, out, _ = say("readiness", "test")
    assert code == 1
    assert "✓ file README.md" in out
    assert (
        '· attestation trained   missing: nobody has stated it   → runbook attest test trained --statement "…"' in out
    )
    assert "✗ NO-GO   1 of 2 go criteria not met, 1 of 1 no-go criteria not ruled out" in out
    assert attest("trained")[0] == 0
    assert attest("audit")[0] == 0  # by the criterion it shows
    code, out, _ = say("readiness", "test")
    assert code == 0
    assert "✓ GO" in out
    assert "alice: All six, in June" in out
    said = journaled(project)[0]
    assert (said.run, said.data["by"], said.data["subject"]) == ("", "alice", "trained")


def test_evidence_is_kept_by_its_hash(project, say, attest):
    (project / "training.txt").write_text("who was there")
    assert attest("trained", "--file", "training.txt")[0] == 0
    assert standings(say)["trained"] == "holds"
    (project / "training.txt").write_text("who was not there")
    assert standings(say)["trained"] == "failed"
    assert "its evidence training.txt was altered" in say("readiness", "test")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nothing",), 64, 'nothing "nothing" can be stated (there is: audited, trained)'),
        (("files",), 64, '"files" cannot be stated: the journal must show it (file README.md)'),
        (("trained", "--valid-for", "91d"), 64, "a statement on trained counts at most 90 days"),
        (("trained", "--valid-for", "soon"), 64, "should be a duration"),
        (("trained", "--file", "/etc/hostname"), 64, "evidence must be inside the project"),
        (("trained", "--file", "gone.txt"), 64, "No such file"),
        (("trained", "--by", "bob"), 4, "allowed_signers has no line that gives bob the key"),
    ],
)
def test_what_cannot_be_stated(project, attest, arguments, code, words):
    ended, _, err = attest(*arguments)
    assert (ended, words in err) == (code, True), err
    assert journaled(project) == []


def test_a_key_that_is_nobodys_says_how_it_is_allowed(project, attest):
    key(project, "mallory", allowed=False)
    code, _, err = attest("trained", who="mallory")
    assert code == 4
    assert "is nobody's in inventories/test/allowed_signers" in err
    assert 'NAME namespaces="runbook-attestation" ssh-ed25519' in err
    assert journaled(project) == []


def test_without_allowed_signers_it_says_how_to_write_it(project, attest):
    (project / "inventories/test/allowed_signers").unlink()
    code, _, err = attest("trained")
    assert code == 64
    assert "inventories/test/allowed_signers is not there" in err
    assert "ssh-ed25519 AAAA" in err


def test_a_key_that_is_taken_out_counts_no_more(project, say, attest):
    attest("trained")
    (project / "inventories/test/allowed_signers").write_text("")
    key(project, "bob")
    assert standings(say)["trained"] == "failed"
    attest("trained", who="bob")
    assert standings(say)["trained"] == "holds"


def test_a_statement_that_somebody_put_into_the_journal_by_hand(project, say, attest):
    attest("trained", "--valid-for", "1d")
    data = dict(journaled(project)[0].data)
    journal = wiring.open_journal(project)
    journal.append(EventType.ATTESTED, "", "", {**data, "subject": "audited"})
    journal.close()
    assert standings(say) == {"trained": "holds", "audited": "failed"}


def test_a_runbook_without_criteria(project, say):
    (project / "runbooks/shop/readiness.yml").unlink()
    code, _, err = say("readiness", "test")
    assert code == 64
    assert "write runbooks/shop/readiness.yml" in err


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{file: README.md}", "{file: ../secret}", '4:21  "../secret" leads outside the project'),
        ("{file: README.md}", "{file: /etc/passwd}", '4:21  "/etc/passwd" leads outside the project'),
        ("{file: README.md}", "{step: one/lok}", '4:21  no step "one/lok" in the runbook (did you mean "one/look"?)'),
        ("{file: README.md}", "{step: one/look, check: http}", '4:38  one/look has no check "http" (it has: tcp)'),
        ("{file: README.md}", "{drill: fire}", '4:22  no drill "fire" (there: none)'),
        ("{file: README.md}", "{evidence: two/x}", '4:25  no step "two/x"'),
        ("{file: README.md}", "{}", "4:14  go[0].proofs[0] should name one of step"),
        ("{attestation: trained, within: 30d}", "{attestation: traind}", 'did you mean "trained"?'),
        ("within: 30d", "within: monthly", "should be a duration"),
        ("  - id: team", "  - id: files", 'a second criterion "files"'),
        ("text: Trained", "txt: Trained", 'unknown key "txt"'),
    ],
)
def test_mistakes_in_the_file_are_told_by_lint_with_their_place(project, say, old, new, told):
    path = project / "runbooks/shop/readiness.yml"
    path.write_text(READINESS.replace(old, new, 1))
    code, out, _ = say("lint")
    assert code == 64
    assert told in out
    assert "runbooks/shop/readiness.yml:" in out


def test_all_mistakes_at_once(project, say):
    path = project / "runbooks/shop/readiness.yml"
    path.write_text(
        READINESS.replace("{file: README.md}", "{file: ../a}").replace("attestation: audited", "step: gone")
    )
    code, _, err = say("readiness", "test")
    assert code == 64
    assert "2 errors" in err


def test_a_link_out_of_the_project(project, say, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "README.md"
    outside.write_text("elsewhere")
    (project / "README.md").unlink()
    (project / "README.md").symlink_to(outside)
    assert "is a link that leads outside the project" in say("lint")[1]
