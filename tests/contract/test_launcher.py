"""Child processes for real: deadlines, cancellation, orphans of a killed engine, daemons, descriptors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.adapters import launcher as launcher_module
from engine.adapters.cgroup import Cgroup
from engine.adapters.launcher import ProcessLauncher
from engine.core.action import Deadline
from engine.core.redaction import Redactor
from engine.errors import CancelledError, PermanentError, TemporaryError
from tests.contract.conformance.deadlines import Looked

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["cgroup", "process tree"])
def launcher(request, tmp_path, monkeypatch):
    """Both ways to know who belongs to a child; without a writable control group only the second."""
    if request.param == "process tree":
        monkeypatch.setattr(Cgroup, "create", classmethod(lambda cls, name: None))
    else:
        group = Cgroup.create("runbook-test-probe")
        if group is None:
            pytest.skip("no writable control group")
        group.release()
    return ProcessLauncher(tmp_path, Redactor(), "r1")


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "condition never held"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def locks(tmp_path):
    return list((tmp_path / "locks").glob("*"))


@pytest.mark.parametrize(
    ("argv", "env"), [(["echo", "x" * 200_000], {}), (["echo", "a\0b"], {}), (["echo"], {"A=B": "c"})]
)
def test_what_the_system_cannot_pass_on_fails_the_step(launcher, tmp_path, argv, env):
    with pytest.raises(PermanentError, match="echo cannot be started: "):
        launcher.run(argv, env=env, deadline=Deadline(10))
    assert not locks(tmp_path)


def test_output_exit_code_and_input(launcher, tmp_path):
    done = launcher.run(["sh", "-c", "cat; echo oops >&2; exit 3"], stdin=b"x" * 300_000, deadline=Deadline(10))
    assert (done.code, len(done.stdout), done.stderr) == (3, 300_000, "oops\n")
    assert not locks(tmp_path)


def test_environment_is_minimal_and_arguments_are_not_interpreted(launcher, monkeypatch):
    monkeypatch.setenv("TOKEN_OF_THE_USER", "x")
    done = launcher.run(["env"], env={"GIVEN": "$(id) ; `id`"}, deadline=Deadline(10))
    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert names == {"PATH", "HOME", "LANG", "GIVEN", "RUNBOOK_CHILD_LOCK", "LC_CTYPE"} - ({"LC_CTYPE"} - names)
    evil = "; rm -rf $HOME `id` $(id) \"'*\n"
    assert launcher.run(["printf", "%s", evil], deadline=Deadline(10)).stdout == evil


def test_a_child_inherits_the_lock_and_nothing_else(launcher, tmp_path):
    other = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(other, True)
    try:
        done = launcher.run(
            [sys.executable, "-c", "import os; [print(os.readlink(f'/proc/self/fd/{n}')) for n in range(3, 64) "
             "if os.path.exists(f'/proc/self/fd/{n}')]"],
            deadline=Deadline(10),
        )  # fmt: skip
    finally:
        os.close(other)
    assert [Path(line).parent.name for line in done.stdout.split()] == ["locks"]


def test_lines_arrive_redacted_while_it_runs(tmp_path):
    redactor = Redactor()
    redactor.register("hunter2hunter2")
    lines: list[str] = []
    seen_early = threading.Event()

    def on_line(line: str) -> None:
        lines.append(line)
        (tmp_path / "go").touch()
        seen_early.set()

    script = (
        f"echo hunter2hunter2; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; printf end; echo hunter2hunter2 >&2"
    )
    done = ProcessLauncher(tmp_path, redactor, "r1").run(["sh", "-c", script], deadline=Deadline(10), on_line=on_line)
    assert sorted(lines) == ["(sensitive)", "(sensitive)", "end"]
    assert done.stdout == "hunter2hunter2\nend"  # raw: helm's rendered Secrets are parsed, then masked
    assert done.stderr == "(sensitive)\n"


def test_more_output_than_is_kept(launcher, monkeypatch):
    monkeypatch.setattr("engine.adapters.streams.KEPT", 1_000_000)
    script = [sys.executable, "-c", "print('a' * 3_000_000); print('end')"]
    with pytest.raises(PermanentError, match="printed more than"):
        launcher.run(script, deadline=Deadline(20))
    followed = launcher.run(script, deadline=Deadline(20), on_line=lambda _line: None)
    assert len(followed.stdout) == 1_000_000
    assert followed.stdout.endswith("end\n")


def test_missing_program(launcher, tmp_path):
    with pytest.raises(PermanentError, match="no-such-program: no such program"):
        launcher.run(["no-such-program"], deadline=Deadline(5))
    assert not locks(tmp_path)


# A child that ignores SIGTERM and has a grandchild in a session of its own.
STUBBORN = (
    "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > {0}/grandchild; while :; do sleep 1; done' & "
    "echo $$ > {0}/child; while :; do sleep 1; done"
)


@pytest.mark.parametrize("how", ["deadline", "cancelled"])
def test_everything_ends_at_the_deadline_or_when_cancelled(launcher, tmp_path, monkeypatch, how):
    monkeypatch.setattr(launcher_module, "GRACE", 0.3)
    cancel = threading.Event()
    deadline = Deadline(1.0 if how == "deadline" else 60, cancel)
    if how == "cancelled":
        threading.Thread(target=lambda: (until((tmp_path / "grandchild").exists), cancel.set())).start()
    with pytest.raises(TemporaryError if how == "deadline" else CancelledError):
        launcher.run(["sh", "-c", STUBBORN.format(tmp_path)], deadline=deadline)
    assert not alive(int((tmp_path / "child").read_text()))
    until(lambda: not alive(int((tmp_path / "grandchild").read_text())), 2)
    assert not locks(tmp_path)


def test_a_polite_child_is_asked_before_it_is_killed(launcher, tmp_path):
    script = f"trap 'echo saved > {tmp_path}/saved; exit 0' TERM; while :; do sleep 0.05; done"
    with pytest.raises(TemporaryError, match="running sh"):
        launcher.run(["sh", "-c", script], deadline=Deadline(0.7))
    assert (tmp_path / "saved").read_text() == "saved\n"


def test_a_daemon_started_on_purpose_survives_and_does_not_hold_us_up(launcher, tmp_path):
    daemon = f"setsid sh -c 'exec 3>&-; echo $$ > {tmp_path}/daemon; exec sleep 60' &"  # keeps our output open
    started = time.monotonic()
    script = f"{daemon} while [ ! -e {tmp_path}/daemon ]; do sleep 0.01; done; echo up"
    done = launcher.run(["sh", "-c", script], deadline=Deadline(20))
    pid = int((tmp_path / "daemon").read_text())
    try:
        assert done.stdout == "up\n"
        assert time.monotonic() - started < 5
        assert alive(pid)
        assert "runbook-r1" not in Path(f"/proc/{pid}/cgroup").read_text()
    finally:
        os.kill(pid, signal.SIGKILL)


ENGINE = """
import sys
from pathlib import Path
from engine.adapters.cgroup import Cgroup
from engine.adapters.launcher import ProcessLauncher
from engine.core.action import Deadline
from engine.core.redaction import Redactor
if sys.argv[2] == "process tree":
    Cgroup.create = classmethod(lambda cls, name: None)
ProcessLauncher(Path(sys.argv[1]), Redactor(), "r1").run(["sh", "-c", sys.argv[3]], deadline=Deadline(60))
"""


def killed_engine(tmp_path, launcher, script):
    """An engine of its own, killed -9 while its child runs. Returns the child's pid."""
    kind = "cgroup" if Cgroup.create.__func__ is CREATE else "process tree"
    engine = subprocess.Popen([sys.executable, "-c", ENGINE, str(tmp_path), kind, script], cwd=ROOT)
    until((tmp_path / "child").exists)
    until(lambda: (tmp_path / "child").read_text().endswith("\n"))
    engine.kill()
    engine.wait()
    return int((tmp_path / "child").read_text())


CREATE = Cgroup.create.__func__


def test_fault_40_resume_waits_for_the_orphan_of_a_killed_engine(launcher, tmp_path):
    script = f"echo $$ > {tmp_path}/child; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo x > {tmp_path}/done"
    pid = killed_engine(tmp_path, launcher, script)
    assert alive(pid)
    (lock,) = locks(tmp_path)
    group = lock.read_text().partition("cgroup=")[2].splitlines()[0]
    waiting = threading.Thread(target=launcher.wait_for_orphans, args=(Deadline(30),))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive(), "the resume did not wait"
    (tmp_path / "go").touch()
    waiting.join(10)
    assert not waiting.is_alive()
    assert (tmp_path / "done").exists()
    assert not locks(tmp_path)
    assert not group or not Path(group).exists()


def test_fault_40_an_orphan_that_does_not_end_is_ended(launcher, tmp_path, monkeypatch):
    monkeypatch.setattr(launcher_module, "GRACE", 0.3)
    pid = killed_engine(tmp_path, launcher, STUBBORN.format(tmp_path))
    until((tmp_path / "grandchild").exists)
    launcher.wait_for_orphans(Deadline(0.2))
    assert not alive(pid)
    until(lambda: not alive(int((tmp_path / "grandchild").read_text())), 2)
    assert not locks(tmp_path)


def test_fault_40_cancelling_the_wait_leaves_the_orphan_alone(launcher, tmp_path):
    pid = killed_engine(tmp_path, launcher, f"echo $$ > {tmp_path}/child; exec sleep 60")
    cancel = threading.Event()
    cancel.set()
    try:
        with pytest.raises(CancelledError, match="killed engine"):
            launcher.wait_for_orphans(Deadline(30, cancel))
        assert alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    launcher.wait_for_orphans(Deadline(10))
    assert not locks(tmp_path)


@pytest.mark.parametrize("name", ["child-r10-abc.lock", "child-r1-2-abc.lock"])
def test_another_environments_orphans_are_not_ours(launcher, tmp_path, name):
    (tmp_path / "locks").mkdir()
    other = tmp_path / "locks" / name
    other.write_text("program=helm\ncgroup=\n")
    launcher.wait_for_orphans(Deadline(1))
    assert other.exists()


def test_the_child_of_a_living_engine_is_no_orphan(launcher, tmp_path):
    """A `plan` of the same environment beside us: neither waited for nor ended."""
    script = f"touch {tmp_path}/at; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
    answer = []
    plan = threading.Thread(target=lambda: answer.append(launcher.run(["sh", "-c", script], deadline=Deadline(20))))
    plan.start()
    until((tmp_path / "at").exists)
    launcher.wait_for_orphans(Deadline(0))
    (tmp_path / "go").touch()
    plan.join(10)
    assert answer[0].code == 0


def test_a_child_that_is_stopped_before_it_joined_its_group_is_ended(launcher):
    """Found by the conformance suite: it was not signalled, and the engine waited for it for ever."""
    with pytest.raises(TemporaryError, match="running sleep"):
        launcher.run(["sleep", "60"], deadline=Looked(1, cancel=False))


def test_a_killed_engine_s_child_has_all_of_its_input(tmp_path):
    """Through a pipe `helm upgrade --values -` would have read none, and deployed the chart's own values."""
    script = f"""
import os, signal, sys
from pathlib import Path
from engine.adapters import launcher, streams
from engine.core.action import Deadline
from engine.core.redaction import Redactor
streams.Streams.follow = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
argv = ["sh", "-c", "cat > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/whole"]
launcher.ProcessLauncher(Path("{tmp_path}"), Redactor(), "r").run(argv, stdin=b"x" * 300_000, deadline=Deadline(9))
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    until((tmp_path / "whole").exists)
    assert (tmp_path / "whole").read_bytes() == b"x" * 300_000


def test_a_child_that_starts_after_the_cleaning_up_does_nothing(tmp_path):
    """The engine died between starting the child and the child's taking the lock; a resume was quicker."""
    argv = launcher_module.launch_argv(tmp_path / "gone.lock", "", ["touch", str(tmp_path / "effect")])
    assert subprocess.run(argv, check=False).returncode == 125
    assert not (tmp_path / "effect").exists()


def test_a_child_that_opens_the_lock_just_before_the_cleaning_up_does_nothing(tmp_path):
    """As above, a moment later: the file is opened, then removed, then locked by nobody."""
    lock = tmp_path / "child.lock"
    lock.touch()
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import launch_child; opened = os.open\n"
        "def open_then_lose(*args):\n    descriptor = opened(*args); os.unlink(args[0]); return descriptor\n"
        "os.open = open_then_lose; sys.exit(launch_child.main(sys.argv[2], '', ['touch', sys.argv[3]]))"
    )
    adapters = str(ROOT / "engine/adapters")
    argv = [sys.executable, "-S", "-c", script, adapters, str(lock), str(tmp_path / "effect")]
    assert subprocess.run(argv, check=False).returncode == 125
    assert not (tmp_path / "effect").exists()
