"""`runbook drill` and what other commands say of a drill: answers, exit codes, going on. Over a database in memory."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.cli.app import main
from engine.core.drill import Drill
from engine.errors import PermanentError, UsageError
from engine.run.journal import Journal
from engine.run.session import Session
from tests.fakes import drills
from tests.fakes.drills import DRILL, Database
from tests.fakes.joined import Joined

NAME = DRILL.id


class JoinedDrills(Joined):
    """With one drill, and a person who answers when there is one."""

    allowed = True
    answers: bool | None = None
    interactive = False

    def open_journal(self, root: Path) -> Journal:
        return drills.journal(root / ".runbook" / "journal.db")

    def drills(self, root: Path, runbook: str | None, environment: str) -> tuple[list[Drill], bool]:
        return [DRILL], self.allowed

    def open_session(self, root: Path, environment: str, **given: Any) -> Session:
        name, cancelled = given["drill"], given["cancelled"]
        if name not in ("", NAME):
            raise UsageError(f'no drill "{name}"')
        assert isinstance(self.world, Database)
        kept = self.open_journal(root)
        made = drills.session(self.world, root / ".runbook", kept, DRILL, allowed=self.allowed)
        assert isinstance(cancelled, threading.Event)
        parts = replace(
            made.deployer, observer=given["observer"], cancelled=cancelled, ask=lambda _question: self.answers
        )
        made.resources.callback(kept.close)
        return replace(made, planner=parts, deployer=parts, drill=DRILL if name else None)


@pytest.fixture
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JoinedDrills:
    made = JoinedDrills(tmp_path, Database(), drills.book())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "wiring", made, raising=False)
    return made


@pytest.fixture
def say(capsys):
    """Run one command: its exit code, standard output and standard error."""

    def said(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return said


def parsed(out: str) -> dict[str, Any]:
    found = json.loads(out)
    assert found["schema"] == 1
    return found


def test_a_drill_and_what_is_said_of_it(joined, say):
    assert say("deploy", "test")[0] == 0
    code, out, err = say("drill", "test", NAME, "--yes")
    assert code == 0, err
    assert re.search(r"loss of acknowledged writes +\d+ of \d+   \(0\.\d s\) +target 20s +✓", out), out
    assert "time to recover" in out
    assert "detect 0." in out
    assert "✓ drilled in" in out
    assert "✓ break/fault   done in" in err
    run = parsed(say("history", "--json")[1])["runs"][0]
    assert (run["kind"], run["status"], run["exit"]) == ("drill", "succeeded", 0)
    assert f"drill {NAME}" in say("show", run["id"])[1]
    shown = parsed(say("show", run["id"], "--json")[1])["run"]["drill"]
    assert shown["result"]["lost"] > 0
    assert shown["recovered"]
    assert "to be struck: generation=0" in say("why", run["id"], "break/fault")[1]
    assert say("why", run["id"], "base/db")[1].startswith("base/db   Db")
    status = say("status", "test")[1]
    assert f"✓ drill {NAME}: " in status
    assert "back in 0." in status
    record = say("report", run["id"])[1]
    assert record.startswith("# Drill record: ")
    assert "| loss of acknowledged writes |" in record
    html = say("report", run["id"], "--format", "html")[1]
    assert "<td>20s</td>" in html
    assert parsed(say("report", run["id"], "--format", "json")[1])["run"]["drill"]["id"] == NAME
    code, out, _ = say("drill", "test", "--list")
    assert code == 0
    assert out.startswith(f"{NAME}   The volume is lost\n    lose at most 20s, back in 1m00s\n    ✓ drill")
    again = say("drill", "test", NAME, "--yes")[1]
    assert "last times to recover" in again


def test_refusals_break_nothing(joined, say):
    code, _, err = say("drill", "test", NAME)
    assert code == 4
    assert "give --go" in err
    code, _, err = say("drill", "test", NAME, "--go")
    assert code == 4
    assert "on purpose" in err
    assert "give --yes" in err
    joined.allowed = False
    code, out, _ = say("drill", "test", NAME, "--yes", "--json")
    assert code == 4
    assert "does not allow them" in parsed(out)["error"]["message"]
    assert say("drill", "test")[0] == 64
    assert say("drill", "test", "another", "--yes")[0] == 64
    listed = parsed(say("drill", "test", "--list", "--json")[1])
    assert (listed["allowed"], listed["drills"][0]["last"]) == (False, None)
    assert joined.world.effects == []
    assert parsed(say("history", "--json")[1])["runs"] == []


def test_one_that_cannot_recover_is_not_hidden_and_is_taken_up(joined, say):
    joined.world.broken["load"] = PermanentError("the bucket is gone")
    code, out, _ = say("drill", "test", NAME, "--yes")
    assert code == 5
    assert "the bucket is gone" in out
    assert "✗ the platform is not back" in out
    assert "runbook resume test" in out
    status = say("status")[1]
    assert "✗ test" in status
    assert "the bucket is gone" in status
    code, out, _ = say("resume", "test")
    assert code == 0
    assert "✓ drilled in" in out
    assert "resumed" in out
    assert say("resume", "test")[0] == 4


def test_after_a_later_deploy_it_is_still_told_and_resume_asks(joined, say):
    joined.world.broken["load"] = PermanentError("the bucket is gone")
    say("drill", "test", NAME, "--yes")
    assert say("deploy", "test")[0] == 0
    status = parsed(say("status", "test", "--json")[1])["environments"][0]
    assert (status["run"]["kind"], status["status"]) == ("deploy", "succeeded")
    assert not status["drill"]["recovered"]
    page = say("status")[1]
    assert "the platform did not come back from it" in page
    assert "recover   runbook resume test" in page
    effects = list(joined.world.effects)
    code, _, err = say("resume", "test")
    assert code == 4
    assert "deployed it since" in err
    assert "give --go" in err
    assert joined.world.effects == effects
    assert say("resume", "test", "--go")[0] == 0
    assert "did not come back" not in say("status")[1]


def test_without_the_word_it_waits_for_resume(joined, say, monkeypatch):
    monkeypatch.setattr("engine.cli.opening._at_a_terminal", lambda: True)
    monkeypatch.setattr("engine.cli.opening._asked", lambda _question: True)
    joined.answers = False
    code, out, _ = say("drill", "test", NAME)
    assert code == 5
    assert "the platform is as the fault left it" in out
    assert "stopped" in say("status")[1]
    assert "unfinished" in say("deploy", "test")[2]
    code, _, err = say("resume", "test", "--no-input")
    assert code == 4
    assert "give --go" in err
    joined.answers = True
    assert say("resume", "test")[0] == 0
    assert joined.world.up
