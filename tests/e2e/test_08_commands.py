"""Commands that look: each for a person and, with `--json`, for a program. Mistakes come all at once, with places."""

import re

import pytest

pytestmark = pytest.mark.cluster

STEP = "base/postgresql"


@pytest.fixture
def last(platform) -> str:
    """The newest run of `local`."""
    (state,) = platform.runbook("status", "local", "--json").document["environments"]
    return state["run"]["id"]


@pytest.mark.parametrize(
    ("command", "key", "told"),
    [
        ("status", "environments", r"local\s+succeeded"),
        ("status local", "environments", r"succeeded"),
        ("history", "runs", r"local\s+belizechain\s+succeeded"),
        ("history local", "runs", r"LAST"),
        ("show LAST", "run", rf"{STEP.partition('/')[2]}"),
        (f"why LAST {STEP}", "events", r"planned"),
        ("why LAST postgresql", "step", r"✓ check sql"),
        ("lint", "diagnostics", r"no mistakes|✓"),
        ("lint local", "diagnostics", r"no mistakes|✓"),
        ("graph --runbook webshop", "phases", r"foundation"),
        ("graph local", "phases", r"postgresql"),
        ("plan local", "digest", r"none|nothing"),
        ("doctor", "examined", r"✓"),
    ],
)
def test_a_command_answers_a_person_and_a_program(platform, last, command, key, told):
    argv = command.replace("LAST", last).split()
    text = platform.runbook(*argv)
    assert text.exit == 0, text
    assert re.search(told.replace("LAST", last), text.stdout), text.stdout
    program = platform.runbook(*argv, "--json")
    assert program.exit == 0, program
    assert program.document["schema"] == 1
    assert key in program.document


def test_the_schema_is_of_both_files(platform):
    document = platform.runbook("schema", "--json").document
    assert document["schema"] == 1
    assert document["phase"]["properties"]["steps"]
    assert document["runbook"]["properties"]["name"]


def test_the_graph_is_drawn_for_graphviz(platform):
    dot = platform.runbook("graph", "local", "--format", "dot")
    assert dot.exit == 0
    assert dot.stdout.startswith("digraph")
    assert '"core/chain"' in dot.stdout


def test_mistakes_come_all_at_once_with_their_places_and_a_guess(platform, tmp_path):
    broken = platform.copy(tmp_path / "checkout", journal=False)
    phases = "runbooks/belizechain/phases"
    broken.edit(f"{phases}/03-base.yml", "needs: [postgresql]", "needs: [postgresq]")
    broken.edit(f"{phases}/06-monitoring.yml", "  - id: prometheus\n", "  - id: prometheus\n    timout: 5m\n")
    broken.edit(f"{phases}/02-secrets.yml", "needs: [external-secrets-crds]", "needs: [external-secrets-crd]")

    for command in (("lint", "local"), ("deploy", "local", "--no-input"), ("plan", "local")):
        text = broken.runbook(*command)
        assert text.exit == 64, text
        told = text.stdout + text.stderr
        for file, guess in (
            ("03-base", "postgresql"),
            ("06-monitoring", "timeout"),
            ("02-secrets", "external-secrets-crds"),
        ):
            assert re.search(rf'{file}\.yml:\d+:\d+ .*did you mean "{guess}"', told), told
        program = broken.runbook(*command, "--json")
        assert program.exit == 64
        found = program.document.get("diagnostics") or program.document["error"]["diagnostics"]
        assert {d["file"].rpartition("/")[2] for d in found} == {"02-secrets.yml", "03-base.yml", "06-monitoring.yml"}
        assert all(d["line"] > 1 and d["column"] > 1 for d in found)


def test_what_is_not_there_is_said_in_one_sentence(platform):
    for argv in (("show", "ffff"), ("plan", "nowhere"), ("why", "ffff", STEP), ("status", "nowhere")):
        done = platform.runbook(*argv, "--json")
        assert done.exit == 64, done
        assert done.error
        assert "Traceback" not in done.stderr
