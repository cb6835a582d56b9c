"""Commands that change an environment, over a world in memory: answers, exit codes, stopping, going on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import engine
from engine.cli import opening
from engine.cli.app import main
from engine.errors import PermanentError
from tests.fakes.cluster import RecordCluster
from tests.fakes.joined import Joined
from tests.fakes.runs import runbook, step
from tests.fakes.world import World


def book():
    return runbook(("one", [step("a"), step("b")]), ("two", [step("c", phase="two", more={"check": True})]))


@pytest.fixture
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Joined:
    made = Joined(tmp_path, World(), book())
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


def document(out: str) -> dict:
    parsed = json.loads(out)
    assert parsed["schema"] == 1
    return parsed


def test_a_first_deploy_and_a_second(joined, say):
    code, out, err = say("deploy", "test")
    assert code == 0
    assert "✓ done in" in out
    assert "3 changed, 0 unchanged, 1 check passed" in out
    assert "runbook status test" in out
    assert "✓ one/a   create" in err
    assert joined.world.things == {"a": "a-new", "b": "b-new", "c": "c-new"}

    code, out, _ = say("deploy", "test")
    assert code == 0
    assert out.startswith("✓ nothing to change   3 steps read in ")
    assert "(3 exact)   1 check passed" in out
    assert len(joined.world.effects) == 3


def test_deploy_as_json(joined, say):
    code, out, _ = say("deploy", "test", "--json")
    found = document(out)
    assert code == 0
    assert found["run"]["status"] == "succeeded"
    assert found["run"]["changed"] == 3
    assert [s["id"] for s in found["run"]["steps"]] == ["one/a", "one/b", "two/c"]
    assert found["run"]["steps"][2]["checks"][0]["saw"] == "c is c-new"
    assert found["next"]


def test_what_was_given_reaches_the_session(joined, say):
    say("plan", "test", "-e", "a=1", "-e", "b=2", "--runbook", "test")
    assert joined.opened == [{"extra": ["a=1", "b=2"], "runbook": "test", "interactive": False, "run": None}]


def test_a_plan_changes_nothing_and_tells_by_its_exit_code(joined, say):
    joined.world.things["a"] = "a-old"
    code, out, err = say("plan", "test")
    assert code == 0
    assert "~ one/a   thing   update   exact" in out
    assert "a-old → a-new" in out
    assert "3 of 3 steps would change: 2 create, 1 update.   Way back: yes." in out
    assert "reading 3 steps" in err
    assert say("plan", "test", "--detailed-exitcode")[0] == 2
    assert joined.world.effects == []
    say("deploy", "test")
    code, out, _ = say("plan", "test", "--detailed-exitcode")
    assert code == 0
    assert out == "✓ nothing to change   3 steps read (3 exact)\n"


def test_a_saved_plan_is_what_runs(joined, say, tmp_path):
    code, out, _ = say("plan", "test", "--out", "plans/one.json", "--json")
    assert code == 0
    assert document(out)["changes_wanted"] == 3
    path = tmp_path / "plans" / "one.json"
    assert json.loads(path.read_text()) == document(out)
    assert path.stat().st_mode & 0o777 == 0o600
    code, _, _ = say("deploy", "test", "--plan", "plans/one.json")
    assert code == 0
    assert joined.world.things["c"] == "c-new"


def test_a_plan_is_not_written_over_what_is_no_file(joined, say, tmp_path):
    device = tmp_path / "pipe"
    os.mkfifo(device)
    for place in (str(device), "/", ".", str(tmp_path)):
        code, out, _ = say("plan", "test", "--out", place, "--json")
        assert code == 64
        assert "not a regular file" in document(out)["error"]["message"]
    assert device.is_fifo()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".plan-")] == []


def test_a_saved_plan_of_other_files_is_refused(joined, say):
    say("plan", "test", "--out", "plan.json")
    joined.inputs = "others"
    code, _, err = say("deploy", "test", "--plan", "plan.json")
    assert code == 4
    assert "the runbook's files changed since" in err
    assert joined.world.effects == []


def test_an_altered_plan_is_refused(joined, say, tmp_path):
    say("plan", "test", "--out", "plan.json")
    path = tmp_path / "plan.json"
    path.write_text(path.read_text().replace('"verb": "create"', '"verb": "delete"', 1))
    code, _, err = say("deploy", "test", "--plan", "plan.json")
    assert code == 4
    assert "altered since it was written" in err


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"schema": 1}'])
def test_a_file_that_is_no_plan_is_bad_usage(joined, say, tmp_path, content):
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    code, _, err = say("deploy", "test", "--plan", "plan.json")
    assert code == 64
    assert "plan.json" in err


def test_a_failure_is_rolled_back_and_explained(joined, say):
    joined.world.broken["c"] = PermanentError("c: no such image\nlook at the registry")
    code, out, err = say("deploy", "test")
    assert code == 1
    assert 'step "c" failed' in out
    assert "    c: no such image\n    look at the registry" in out
    assert 'rolled back to savepoint "1 One"' in out
    assert "look at   phases/01.yml:1:1" in out
    assert "runbook why " in out
    assert "Traceback" not in err
    code, out, _ = say("deploy", "test", "--json")
    assert code == 1
    assert document(out)["run"]["failure"] == {"step": "two/c", "error": "c: no such image\nlook at the registry"}


class Stopper(World):
    """Somebody presses Ctrl-C while a thing is made."""

    def set(self, name: str, value: str | None) -> None:
        super().set(name, value)
        if name == "a" and len(self.effects) == 1:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_finishes_what_runs_and_resume_goes_on(joined, say):
    joined.world = Stopper()
    before = signal.getsignal(signal.SIGINT)
    code, out, err = say("deploy", "test")
    assert code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert "! stopping" in err
    assert "! stopped after" in out
    assert "runbook resume test" in out
    assert joined.world.things == {"a": "a-new"}

    code, _, err = say("deploy", "test")
    assert code == 4
    assert "is unfinished" in err

    code, out, err = say("resume", "test")
    assert code == 0
    assert "✓ done in" in out
    assert joined.opened[-1]["run"] is not None
    assert [name for _, name in joined.world.effects] == ["a", "b", "c"]


def test_nothing_to_resume(joined, say):
    code, _, err = say("resume", "test")
    assert code == 4
    assert "no run of test to resume" in err
    say("deploy", "test")
    assert say("resume", "test")[0] == 0
    joined.world.things.clear()
    joined.world.broken["c"] = PermanentError("no")
    say("deploy", "test")
    code, _, err = say("resume", "test")
    assert code == 4
    assert "is rolled back" in err


def test_a_rollback_asks_and_takes_back(joined, say):
    joined.world.things["a"] = "a-old"
    say("deploy", "test")
    code, _, err = say("rollback", "test")
    assert code == 4
    assert "take back two/c, one/b, one/a" in err
    assert "--yes" in err
    code, out, _ = say("rollback", "test", "--yes")
    assert code == 0
    assert joined.world.things == {"a": "a-old"}
    assert "undone" in out
    code, _, err = say("rollback", "test", "--yes")
    assert code == 4
    assert "nothing to take back" in err
    assert say("rollback", "test", "ffff")[0] == 64


def test_a_rollback_that_does_not_get_there_exits_3(joined, say):
    say("deploy", "test")
    joined.world.broken["undo a"] = PermanentError("no")
    code, out, _ = say("rollback", "test", "--yes")
    assert code == 3
    assert "✗ not undone" in out


def test_losing_changes_are_only_asked_about_at_a_terminal(joined, say):
    code, _, _ = say("deploy", "test", "--no-input")
    assert code == 0


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 4), (None, 130)])
def test_a_question_at_a_terminal(joined, say, monkeypatch, answer, code):
    def confirm(question: str, **_options: object) -> bool:
        assert "take back one/a" in question.replace("two/c, one/b, ", "")
        if answer is None:
            raise typer.Abort
        return bool(answer)

    say("deploy", "test")
    monkeypatch.setattr(typer, "confirm", confirm)
    monkeypatch.setattr(opening, "_at_a_terminal", lambda: True)
    before = dict(joined.world.things)
    assert say("rollback", "test")[0] == code
    assert (joined.world.things == before) is (code != 0)


def test_verify_looks_again(joined, say):
    say("deploy", "test")
    code, out, _ = say("verify", "test")
    assert code == 0
    assert "✓ verified in" in out
    joined.world.things["c"] = "broken by hand"
    code, out, _ = say("verify", "test")
    assert code == 1
    assert "✗ two/c" in out
    assert "c is broken by hand" in out
    assert "✗ 1 of 3 steps do not pass" in out


def test_adopt_explains_before_it_takes(joined, say, tmp_path, monkeypatch):
    joined.cluster = RecordCluster()
    code, out, _ = say("adopt", "test")
    assert code == 0
    assert "nothing to adopt" in out
    say("deploy", "test")

    other = Joined(tmp_path / "other", joined.world, joined.book, joined.cluster)
    monkeypatch.setattr(engine, "wiring", other)
    monkeypatch.chdir(tmp_path / "other")
    code, _, err = say("adopt", "test")
    assert code == 4
    assert "of journal " in err
    assert "--yes" in err
    code, out, _ = say("adopt", "test", "--yes")
    assert code == 0
    assert "✓ test is yours now" in out


def test_a_defect_is_one_message_with_the_way_on(joined, say):
    joined.world.broken["b"] = ValueError("hunter2")
    code, _, err = say("deploy", "test")
    assert code == 5
    assert "the engine made a mistake (ValueError)" in err
    assert "runbook resume test" in err
    assert "Traceback" not in err
    assert "hunter2" not in err
    joined.world.broken.clear()
    assert say("resume", "test")[0] == 0
    joined.world.broken["b"] = ValueError("x")
    joined.world.things.clear()
    assert "Traceback" in say("deploy", "test", "-v")[2]


def test_a_machine_that_refuses_is_no_defect(joined, say):
    joined.world.broken["b"] = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/state/file")
    code, _, err = say("deploy", "test")
    assert code == 5
    assert "/state/file: No space left on device. What was begun is in the journal" in err
    assert "mistake" not in err


def test_errors_as_json(joined, say):
    code, out, _ = say("plan", "nowhere", "--json")
    assert code == 64
    assert document(out)["error"] == {
        "kind": "UsageError",
        "message": "no environment nowhere: inventories/ has test",
        "exit": 64,
    }
    code, out, _ = say("plan", "--json")
    assert code == 64
    assert "ENV" in document(out)["error"]["message"]


_TWICE = """
import os, signal, sys, threading
from pathlib import Path
import engine
from engine.cli.app import main
from tests.fakes.joined import Joined
from tests.fakes.runs import runbook, step
from tests.fakes.world import World

class Waiting(World):
    def set(self, name, value):
        super().set(name, value)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(20)

engine.wiring = Joined(Path.cwd(), Waiting(), runbook(("one", [step("a")])))
sys.exit(main(["deploy", "test"]))
"""


def test_a_second_ctrl_c_leaves_at_once_and_keeps_the_journal(tmp_path, say, monkeypatch):
    here = str(Path(__file__).parent.parent.parent)
    arguments, env = [sys.executable, "-c", _TWICE], {**os.environ, "PYTHONPATH": here}
    with subprocess.Popen(arguments, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert any("! stopping" in line for line in child.stderr)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=10) == 130
    world = World(things={"a": "a-new"})
    joined = Joined(tmp_path, world, runbook(("one", [step("a")])))
    monkeypatch.setattr(engine, "wiring", joined, raising=False)
    monkeypatch.chdir(tmp_path)
    code, out, _ = say("status")
    assert "✗ test   interrupted" in out
    assert "in doubt, looked at before anything is done: one/a" in out
    code, out, _ = say("resume", "test")
    assert code == 0
    assert world.effects == []
