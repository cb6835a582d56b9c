"""Real Ansible through the adapter: results, secrets, templates in values, a killed engine."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.actions.playbook import PlaybookAction, PlaybookParams
from engine.adapters import ansible as ansible_module
from engine.adapters.ansible import AnsiblePlaybooks, HostRecords, tmpfs
from engine.adapters.cgroup import Cgroup
from engine.adapters.launcher import ProcessLauncher
from engine.core.action import Context, Deadline, Finding
from engine.core.change import Preimage, Verb
from engine.core.model import StepId
from engine.core.redaction import Redactor
from engine.errors import CancelledError
from tests.fakes.inputs import FolderInputs

ROOT = Path(__file__).parents[2]
CANARY = "canary-7f3a9c51d2"
INVENTORY = f"all:\n  hosts:\n    here: {{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project, and a home whose Ansible configuration must not be read."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.ansible.cfg").write_text("not a configuration at all")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))  # a killed module leaves its code there
    (tmp_path / "hosts.yml").write_text(INVENTORY)
    return tmp_path


@pytest.fixture
def leftovers():
    """Private folders on tmpfs that were not there before."""
    before = set(tmpfs().glob("runbook-ansible-*"))
    return lambda: set(tmpfs().glob("runbook-ansible-*")) - before


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "condition never held"
        time.sleep(0.02)


def playbook(project, tasks, name="play.yml", hosts="all"):
    path = project / name
    path.write_text(f"- hosts: {hosts}\n  gather_facts: false\n  tasks:\n" + tasks)
    return path


def play(project, path, variables=None, redactor=None, watch=lambda: None, **options):
    redactor = redactor or Redactor()
    lines: list[str] = []

    def told(line: str) -> None:
        lines.append(line)
        watch()

    playbooks = AnsiblePlaybooks(ProcessLauncher(project / "state", redactor, "r1"), redactor, "r1")
    options.setdefault("deadline", Deadline(60))
    result = playbooks.run(path, project / "hosts.yml", variables or {}, progress=told, **options)
    return result, lines


def test_success_streams_tasks_and_counts_changes(project, leftovers, monkeypatch):
    monkeypatch.chdir(project)
    (project / "ansible.cfg").write_text("[defaults]\ninventory = /nowhere\ncallbacks_enabled = nothing\nbroken")
    (project / "roles/web/tasks").mkdir(parents=True)
    (project / "roles/web/tasks/main.yml").write_text("- name: Say\n  ansible.builtin.debug: {msg: hello}\n")
    path = project / "play.yml"
    path.write_text(
        "- hosts: all\n  gather_facts: false\n  roles: [web]\n  tasks:\n"
        f"    - name: Make\n      ansible.builtin.file: {{path: '{project}/made', state: directory, mode: '0700'}}\n"
    )
    result, lines = play(project, path)
    assert result.ok, result.failure
    assert result.changed == 1
    assert result.recap == {"here": {"ok": 2, "changed": 1, "failures": 0, "unreachable": 0, "skipped": 0}}
    assert lines == ["web: Say (1)", "Make (2)", "changed [here] Make"]
    again, _ = play(project, path)
    assert (again.ok, again.changed) == (True, 0)
    assert not leftovers()


def test_failure_names_task_host_and_message_redacted(project, leftovers):
    redactor = Redactor()
    secret = redactor.register(CANARY)
    path = playbook(
        project,
        "    - name: Rescued\n      block: [{ansible.builtin.fail: {msg: 'first, rescued'}}]\n"
        "      rescue: [{ansible.builtin.debug: {msg: mended}}]\n"
        "    - name: Break\n      ansible.builtin.command: {argv: [sh, -c, "
        "'echo cannot use {{ token }} >&2; exit 7']}\n",
    )
    result, lines = play(project, path, {"token": secret}, redactor)
    assert not result.ok
    assert result.failure.startswith("Break on here: non-zero return code")
    assert "cannot use (sensitive)" in result.failure
    assert CANARY not in json.dumps([result.failure, lines])
    assert not leftovers()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("- hosts: all\n  tasks: [{nonsense.module: {}}]\n", "couldn't resolve module/action 'nonsense.module'"),
        ("- hosts: nobody\n  gather_facts: false\n  tasks: [{ansible.builtin.debug: {}}]\n", "no host"),
        ("- hosts: all\n  tasks: [\n", "YAML parsing failed"),
    ],
)
def test_what_cannot_run_says_why(project, content, expected):
    (project / "bad.yml").write_text(content)
    result, _ = play(project, project / "bad.yml")
    assert not result.ok
    assert expected in result.failure


def test_fault_36_values_are_never_rendered_again(project):
    evil = {"plain": "{{ 6 * 7 }}", "deep": [{"x": "{% raw %}{{ lookup('env', 'HOME') }}"}], "lines": "a\n{# no #}\n"}
    path = playbook(
        project,
        f"    - ansible.builtin.copy: {{dest: '{project}/seen.json', mode: '0600', "
        'content: \'{{ {"plain": plain, "deep": deep, "lines": lines} | to_json }}\'}\n',
    )
    result, _ = play(project, path, evil)
    assert result.ok, result.failure
    assert json.loads((project / "seen.json").read_text()) == evil


def test_limit_tags_and_check_mode(project):
    path = playbook(
        project,
        f"    - {{name: One, ansible.builtin.file: {{path: '{project}/one', state: directory}}, tags: one}}\n"
        f"    - {{name: Two, ansible.builtin.file: {{path: '{project}/two', state: directory}}, tags: two}}\n",
    )
    result, lines = play(project, path, check=True, tags=["one"], limit="here")
    assert result.ok, result.failure
    assert result.changed == 1
    assert lines == ["One (1)", "changed [here] One"]
    assert not (project / "one").exists()
    assert not play(project, path, limit="elsewhere")[0].ok


def test_fault_38_the_secret_is_nowhere_while_it_runs_nor_after(project, leftovers):
    """Not in anybody's arguments or environment, not on a disk; on tmpfs only in 0700 folders, and gone at the end."""
    redactor = Redactor()
    secret = redactor.register(CANARY)
    path = playbook(
        project,
        f"    - name: Hold\n      ansible.builtin.command: {{argv: [sh, -c, 'touch {project}/at; "
        f"while [ ! -e {project}/go ]; do sleep 0.05; done']}}\n"
        "    - name: Use\n      ansible.builtin.debug: {msg: 'it is {{ token }}'}\n",
    )
    answer: list[object] = []
    worker = threading.Thread(target=lambda: answer.append(play(project, path, {"token": secret}, redactor)))
    worker.start()
    until((project / "at").exists)
    forms = (CANARY.encode(), base64.b64encode(CANARY.encode()))
    try:
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    content = (process / name).read_bytes()
                except OSError:
                    continue
                assert not any(form in content for form in forms), process
        (folder,) = leftovers()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert any(CANARY.encode() in f.read_bytes() for f in folder.rglob("*") if f.is_file()), "the test looks wrong"
    finally:
        (project / "go").touch()
        worker.join(60)
    ((result, lines),) = answer
    assert result.ok, result.failure
    assert CANARY not in json.dumps(lines)
    assert not (project / "home/.ansible").exists(), "Ansible's own temporary files belong on tmpfs"
    for file in project.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file
    assert not leftovers()


@pytest.mark.parametrize("grouped", [True, False], ids=["cgroup", "process tree"])
def test_stopping_ends_the_whole_playbook(project, leftovers, monkeypatch, grouped):
    if not grouped:
        monkeypatch.setattr(Cgroup, "create", classmethod(lambda cls, name: None))
    path = playbook(
        project,
        f"    - ansible.builtin.command: {{argv: [sh, -c, 'touch {project}/at; exec sleep 300']}}\n",
    )
    stop = threading.Event()
    threading.Thread(target=lambda: (until((project / "at").exists), stop.set())).start()
    with pytest.raises(CancelledError, match=r"stopped while running playbook play\.yml"):
        play(project, path, deadline=Deadline(60, stop))
    assert not leftovers()
    until(lambda: not still_running(project), 5)


def test_fault_39_nothing_is_left_when_even_the_child_is_killed(project, leftovers, monkeypatch):
    monkeypatch.setattr("engine.adapters.launcher.GRACE", 0.0)
    path = playbook(project, "    - ansible.builtin.command: {argv: [sleep, '300']}\n")
    seen, stop = [], threading.Event()

    def first_task() -> None:
        seen.extend(leftovers())
        stop.set()

    with pytest.raises(CancelledError):
        play(project, path, deadline=Deadline(60, stop), watch=first_task)
    assert seen, "the folder was never there"
    assert not leftovers()


def still_running(project):
    """Command lines that name the project's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            content = process.read_bytes()
        except OSError:
            continue
        if str(project).encode() in content:
            found.append(content)
    return found


ENGINE = """
import sys
from pathlib import Path
from engine.adapters.ansible import AnsiblePlaybooks
from engine.adapters.launcher import ProcessLauncher
from engine.actions.playbook import PlaybookAction, PlaybookParams
from engine.core.action import Context, Deadline, Finding
from engine.core.change import Preimage, Verb
from engine.core.model import StepId
from engine.core.redaction import Redactor
project, redactor = Path(sys.argv[1]), Redactor()
playbooks = AnsiblePlaybooks(ProcessLauncher(project / "state", redactor, "r1"), redactor, "r1")
playbooks.run(project / "play.yml", project / "hosts.yml", {"token": sys.stdin.read()}, progress=print,
              deadline=Deadline(90))
"""


def killed_engine(project):
    """An engine of its own, killed -9 while its playbook is in the task that waits for `go`."""
    playbook(
        project,
        f"    - ansible.builtin.command: {{argv: [sh, -c, 'touch {project}/at; "
        f"while [ ! -e {project}/go ]; do sleep 0.05; done']}}\n"
        f"    - ansible.builtin.file: {{path: '{project}/second-task', state: touch, mode: '0600'}}\n",
    )
    engine = subprocess.Popen([sys.executable, "-c", ENGINE, str(project)], cwd=ROOT, stdin=subprocess.PIPE)
    engine.stdin.write(CANARY.encode())
    engine.stdin.close()
    until((project / "at").exists)
    engine.kill()
    engine.wait()


def test_fault_39_40_resume_waits_for_the_playbook_of_a_killed_engine(project, leftovers):
    killed_engine(project)
    launcher = ProcessLauncher(project / "state", Redactor(), "r1")
    AnsiblePlaybooks.remove_leftovers()
    assert leftovers(), "a folder in use was taken away"
    waiting = threading.Thread(target=launcher.wait_for_orphans, args=(Deadline(60),))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive(), "the resume did not wait"
    (project / "go").touch()
    waiting.join(30)
    assert not waiting.is_alive()
    assert (project / "second-task").exists(), "the playbook was not seen through"
    assert not leftovers()


@pytest.mark.parametrize("also_runner", [False, True])
def test_fault_39_40_a_playbook_that_does_not_end_is_ended(project, leftovers, also_runner, monkeypatch):
    monkeypatch.setattr("engine.adapters.launcher.GRACE", 1.0)
    killed_engine(project)
    (lock,) = (project / "state/locks").iterdir()
    if also_runner:  # ansible-runner's process dies too: Ansible itself still holds the lock
        runner = int(lock.read_text().partition("\npid=")[2].split()[0])
        os.kill(runner, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{runner}").exists())
    ProcessLauncher(project / "state", Redactor(), "r1").wait_for_orphans(Deadline(0.5))
    AnsiblePlaybooks.remove_leftovers()
    assert not leftovers()
    assert not list((project / "state/locks").iterdir())
    assert not still_running(project)
    assert not (project / "second-task").exists()


def test_the_step_as_a_whole(project, monkeypatch):
    """Runs, then is assumed without Ansible, runs when a role changed, and is taken back."""
    (project / "playbooks/roles/web/tasks").mkdir(parents=True)
    tasks = project / "playbooks/roles/web/tasks/main.yml"
    tasks.write_text("- ansible.builtin.copy: {content: '{{ text }}', dest: '{{ target }}', mode: '0600'}\n")
    (project / "playbooks/web.yml").write_text("- hosts: all\n  gather_facts: false\n  roles: [web]\n")
    playbook(project, "    - ansible.builtin.file: {path: '{{ target }}', state: absent}\n", "playbooks/down.yml")
    made = project / "made"
    launcher = ProcessLauncher(project / "state", Redactor(), "r1")
    records = HostRecords(project / "records")
    playbooks = AnsiblePlaybooks(launcher, Redactor(), "r1")
    action = PlaybookAction(playbooks, records, lambda *_: Finding(True, ""), "local", "hosts.yml")
    params = PlaybookParams(path="playbooks/web.yml", vars={"text": "one", "target": str(made)})
    undo = {"path": "playbooks/down.yml", "vars": {"target": str(made)}}
    ctx = Context(StepId("one/web"), FolderInputs(project), datetime.now(UTC), Deadline(120), undo_params=undo)

    def planned():
        return action.plan(params, action.read(params, ctx), ctx)

    first = planned()
    action.apply(params, first, ctx)
    assert made.read_text() == "one"
    assert planned().verb is Verb.NONE
    tasks.write_text(tasks.read_text().replace("0600", "0640"))
    second = planned()
    assert second.verb is Verb.RUN
    action.apply(params, second, ctx)
    assert made.stat().st_mode & 0o777 == 0o640
    action.undo(params, second, Preimage(), ctx)
    assert not made.exists()
    assert action.read_back(params, second, Preimage(), ctx) == {}


def test_the_tasks_of_a_long_playbook_are_counted(project, monkeypatch, tmp_path):
    child = tmp_path / "child"
    child.mkdir()
    for name in ("ansible_child.py", "launch_child.py"):
        source = (ROOT / "engine/adapters" / name).read_text()
        (child / name).write_text(source.replace("COUNT_AFTER = 10.0", "COUNT_AFTER = 0.1"))
    monkeypatch.setattr(ansible_module, "_CHILD", child / "ansible_child.py")
    path = playbook(
        project,
        "    - {name: Slow, ansible.builtin.command: {argv: [sleep, '4']}}\n"
        "    - {name: Last, ansible.builtin.debug: {}}\n",
    )
    assert "Last (2/2)" in play(project, path)[1]


def test_records_survive_and_are_private(tmp_path):
    records = HostRecords(tmp_path / "playbooks")
    assert records.read("infrastructure/cluster") is None
    records.write("infrastructure/cluster", {"digest": "abc"})
    records.write("infrastructure/cluster", {"digest": "def"})
    assert HostRecords(tmp_path / "playbooks").read("infrastructure/cluster") == {"digest": "def"}
    (file,) = (tmp_path / "playbooks").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("{torn")
    assert records.read("infrastructure/cluster") is None
    records.remove("infrastructure/cluster")
    records.remove("infrastructure/cluster")


def test_a_variable_that_is_no_data_is_refused(project):
    path = playbook(project, "    - ansible.builtin.debug: {}\n")
    with pytest.raises(TypeError, match="cannot be a PosixPath"):
        play(project, path, {"x": Path("/")})
