"""`runbook drift` over a world in memory: what moved since the last deploy, and what does not count as moved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import engine
from engine.cli.app import main
from tests.fakes.joined import Joined
from tests.fakes.runs import runbook, step
from tests.fakes.world import World


@pytest.fixture
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Joined:
    book = runbook(("one", [step("a"), step("b"), step("told", action="once")]))
    made = Joined(tmp_path, World(), book)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "wiring", made, raising=False)
    return made


def test_without_a_deploy_there_is_nothing_to_drift_from(joined, capsys):
    assert main(["drift", "test"]) == 4
    assert "no finished deploy of test" in capsys.readouterr().err


def test_nothing_moved(joined, capsys):
    assert main(["deploy", "test"]) == 0
    capsys.readouterr()
    effects = list(joined.world.effects)
    assert main(["drift", "test"]) == 0
    assert "✓ no drift since run" in capsys.readouterr().out
    assert joined.world.effects == effects


def test_what_moved_is_shown_and_an_event_that_is_due_again_is_not(joined, capsys):
    assert main(["deploy", "test"]) == 0
    joined.world.things["a"] = "by hand"
    joined.world.events.clear()
    capsys.readouterr()
    assert main(["drift", "test", "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert [c["step"] for c in said["drifted"]] == ["one/a"]
    assert said["since"]["run"] == joined.opened[-1]["run"].id
    assert main(["drift", "test"]) == 2
    out = capsys.readouterr().out
    assert "~ one/a" in out
    assert "by hand → " in out
    assert "1 of 3 steps drifted since run" in out


def test_it_is_measured_against_what_the_deploy_kept(joined, capsys):
    assert main(["deploy", "test"]) == 0
    kept = joined.opened[-1]
    assert kept["run"] is None
    assert main(["drift", "test"]) == 0
    assert joined.opened[-1]["run"].status.value == "succeeded"


def test_a_deploy_that_was_rolled_back_is_not_what_is_measured_against(joined, capsys):
    from engine.errors import PermanentError

    assert main(["deploy", "test"]) == 0
    joined.world.things["b"] = "by hand"
    joined.world.broken["b"] = PermanentError("no")
    assert main(["deploy", "test"]) == 1
    joined.world.things["a"] = "by hand too"
    capsys.readouterr()
    assert main(["drift", "test", "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert [c["step"] for c in said["drifted"]] == ["one/a", "one/b"]
