"""Commands that read the journal and the files, over a world in memory; and the ends of the program itself."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import engine
from engine.cli.app import main
from engine.errors import PermanentError
from tests.fakes.joined import MISTAKE, Joined
from tests.fakes.runs import runbook, step
from tests.fakes.world import World

HERE = Path(__file__).parent.parent.parent


@pytest.fixture
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Joined:
    book = runbook(("one", [step("a"), step("b")]), ("two", [step("c", phase="two", more={"check": True})]))
    made = Joined(tmp_path, World(), book)
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


@pytest.fixture
def run(joined, say) -> str:
    """The id of a run that failed in its second phase."""
    joined.world.broken["c"] = PermanentError("c: no such image")
    assert say("deploy", "test")[0] == 1
    return json.loads(say("history", "--json")[1])["runs"][0]["id"]


def test_status_without_a_run(joined, say):
    assert say("status") == (0, "· test   no run yet\n", "")
    code, out, _ = say("status", "test")
    assert code == 0
    assert "begin   runbook deploy test" in out
    assert say("status", "nowhere")[0] == 64


def test_the_history_of_an_environment_without_a_run_is_empty(joined, say):
    assert say("history", "test") == (0, "· no run yet\n", "")


def test_status_and_history(run, say):
    assert f"✗ test   rolled back   run {run}" in say("status")[1]
    assert "Two" in say("status", "test")[1]
    found = json.loads(say("status", "--json")[1])["environments"]
    assert [(e["environment"], e["status"], e["held"], e["run"]["id"]) for e in found] == [
        ("test", "rolled back", False, run)
    ]
    assert run in say("history")[1]
    code, out, err = say("history", "tset")
    assert (code, out) == (64, "")
    assert err == '✗ no environment "tset" (did you mean "test"?); there are: test\n'
    assert say("show", run[:-1] + "z")[2].startswith(f'✗ no run "{run[:-1]}z" (did you mean "{run}"?)')
    assert [r["id"] for r in json.loads(say("history", "test", "--json")[1])["runs"]] == [run]


def test_show(run, say):
    code, out, _ = say("show", run)
    assert code == 0
    assert "✗ c  thing  create" in out
    assert "c: no such image" in out
    assert say("show", run[:3])[1] == out
    shown = json.loads(say("show", run, "--json")[1])["run"]
    assert shown["failure"]["step"] == "two/c"
    code, _, err = say("show", "zzzz")
    assert code == 64
    assert run in err


def test_why(run, say):
    code, out, _ = say("why", run, "c")
    assert code == 0
    assert "planned: create, exact" in out
    assert "✗ failed\n    c: no such image" in out
    told = json.loads(say("why", run, "two/c", "--json")[1])
    assert told["change"]["verb"] == "create"
    assert [e["type"] for e in told["events"]][:3] == ["step-started", "intent", "step-failed"]
    assert say("why", run, "nothing")[0] == 64


def test_lint(joined, say):
    assert say("lint") == (0, "✓ no mistakes found\n", "")
    joined.mistakes = [MISTAKE]
    code, out, _ = say("lint", "test")
    assert code == 64
    assert out.splitlines() == [
        'runbooks/test/phases/01.yml:14:29  unknown key "lenght" in generate (did you mean "length"?)',
        "   14 |        password: {generate: {lenght: 40}}",
        "                                    ^^^^^^",
        "1 error",
    ]
    found = json.loads(say("lint", "--json")[1])
    assert found["errors"] == 1
    assert found["diagnostics"][0]["line"] == 14


def test_schema(joined, say, tmp_path):
    assert json.loads(say("schema")[1])["phase"] == {"title": "A phase"}
    assert say("schema", "--out", "schemas")[0] == 0
    assert json.loads((tmp_path / "schemas" / "runbook.schema.json").read_text()) == {"title": "A runbook"}


def test_graph(joined, say):
    assert say("graph")[1].splitlines() == [
        "test   Test",
        " 1 one   One",
        "     a   thing",
        "     b   thing   after a",
        " 2 two   Two   after one",
        "     c   thing",
    ]
    dot = say("graph", "--format", "dot")[1]
    assert dot.startswith('digraph "test" {')
    assert '"one/a" -> "one/b";' in dot
    assert '"one/b" -> "two/c" [ltail="cluster_one", lhead="cluster_two"];' in dot
    assert json.loads(say("graph", "--json")[1])["phases"][1]["needs"] == ["one"]


def test_doctor(joined, say):
    code, out, _ = say("doctor")
    assert code == 0
    assert "✓ python" in out
    assert {e["what"] for e in json.loads(say("doctor", "--json")[1])["examined"]} >= {"system", "disk", "ports"}


def test_outside_a_project(joined, say, monkeypatch):
    monkeypatch.chdir("/")
    assert say("status")[0] == 64
    code, out, _ = say("doctor")
    assert code == 1
    assert "✗ project" in out


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["plan"], ["plan", "test", "--no-such"], ["graph", "--format", "x"]]
)
def test_bad_usage_is_64(joined, say, arguments):
    code, out, err = say(*arguments)
    assert code == 64
    assert not out
    assert err
    code, out, _ = say(*arguments, "--json")
    assert code == 64
    assert json.loads(out)["error"]["exit"] == 64


def test_help_and_version(say):
    code, out, _ = say("--help")
    assert code == 0
    assert all(name in out for name in ("deploy", "resume", "rollback", "why", "doctor"))
    assert say("deploy", "--help")[0] == 0
    code, out, _ = say("--version")
    assert code == 0
    assert out.startswith("runbook ")
    assert say()[0] == 64


def test_a_defect_outside_a_run(joined, say, monkeypatch):
    def broken(_root: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(joined, "open_journal", broken)
    code, _, err = say("status")
    assert code == 5
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err
    assert json.loads(say("status", "--json")[1])["error"]["kind"] == "CrashError"
    assert "Traceback" in say("status", "-v")[2]


# Not pydantic: typer itself loads it to read a command's arguments.
_HEAVY = (
    *("kubernetes", "boto3", "botocore", "hvac", "azure", "ansible_runner", "ansible", "requests", "engine.registry"),
    *("rich", "redis", "pg8000", "cryptography", "jinja2", "tenacity"),
)


@pytest.mark.parametrize("arguments", [["--version"], ["status"], ["history"], ["--help"]])
def test_cheap_commands_import_nothing_heavy(tmp_path, arguments):
    (tmp_path / "inventories" / "local").mkdir(parents=True)
    (tmp_path / "runbooks").mkdir()
    code = (
        "import sys\nfrom engine.cli.app import main\n"
        f"code = main({arguments!r})\n"
        f"heavy = {_HEAVY!r}\n"
        "print(sorted({*sys.modules} & set(heavy)), code, file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert ended.stderr.strip() == "[] 0"


def test_a_reader_that_goes_away_ends_the_writing_only(tmp_path):
    (tmp_path / "inventories" / "local").mkdir(parents=True)
    (tmp_path / "runbooks").mkdir()
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    arguments = [sys.executable, "-m", "engine", "status"]
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(arguments, cwd=tmp_path, env=env, stdout=writing, stderr=subprocess.PIPE, text=True) as child:
        os.close(writing)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 0
    assert err == ""


@pytest.mark.parametrize(("number", "code"), [(errno.EPIPE, 0), (errno.EIO, 0), (errno.ENOSPC, 5)])
def test_an_answer_that_nobody_takes(joined, monkeypatch, capfd, number, code):
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise OSError(number, os.strerror(number))

        def fileno(self) -> int:
            return spare

    spare = os.open(os.devnull, os.O_WRONLY)
    monkeypatch.setattr(sys, "stdout", Gone())
    assert main(["status"]) == code
    err = capfd.readouterr().err
    assert ("No space left on device" in err) == (code == 5)
    assert "mistake" not in err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(tmp_path, closed):
    line = f'exec "{sys.executable}" -m engine status {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(HERE)}, check=False
    )
    assert done.returncode == 64  # no project here


def test_a_working_directory_that_is_gone(tmp_path):
    line = f'mkdir x && cd x && rmdir ../x && exec "{sys.executable}" -m engine status'
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (64, "✗ the working directory is gone: go to a folder that exists\n")
