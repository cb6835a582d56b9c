"""`playbook`: when it runs, when it does not, what a crash in the middle leaves, and the way back."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from engine.actions.playbook import PlaybookAction, PlaybookParams
from engine.actions.playbook_tree import parts_of
from engine.core.action import CheckSpec, Context, Deadline, Finding
from engine.core.change import ABSENT, Change, Fidelity, Preimage, Verb
from engine.core.convergence import Decision, converge, undo_verdict
from engine.core.model import StepId
from engine.core.processes import PlayResult
from engine.core.redaction import Secret
from engine.errors import CancelledError, NotYetError, PermanentError, TemporaryError
from tests.fakes.inputs import FolderInputs

RECAP = {"here": {"ok": 3, "changed": 2, "failures": 0, "unreachable": 0, "skipped": 0}}
PARAMS = PlaybookParams(path="playbooks/cluster.yml", vars={"size": 1})
UP = CheckSpec("thing", {"is": "up"})


class Playbooks:
    """Remembers what it was asked to run; `answer` is a result or what it raises."""

    def __init__(self):
        self.ran = []
        self.answer = PlayResult(True, RECAP, changed=2)

    def run(self, playbook, inventory, variables, *, check=False, limit="", tags=(), progress, deadline):
        self.ran.append((playbook.name, dict(variables), limit, list(tags)))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class Records:
    def __init__(self):
        self.kept = {}

    def read(self, step):
        return self.kept.get(step)

    def write(self, step, record):
        self.kept[step] = dict(record)

    def remove(self, step):
        self.kept.pop(step, None)


class Scene:
    def __init__(self, root):
        (root / "playbooks/roles/node/tasks").mkdir(parents=True)
        (root / "playbooks/roles/other/tasks").mkdir(parents=True)
        (root / "inventories/local").mkdir(parents=True)
        (root / "inventories/local/hosts.yml").write_text("all: {hosts: {here: {}}}\n")
        (root / "playbooks/cluster.yml").write_text("- hosts: all\n  roles: [node]\n")
        (root / "playbooks/roles/node/tasks/main.yml").write_text("[]\n")
        (root / "playbooks/roles/other/tasks/main.yml").write_text("[]\n")
        self.root, self.playbooks, self.records = root, Playbooks(), Records()
        self.finding = Finding(True, "it is up")
        self.target = ""
        self.action = PlaybookAction(
            self.playbooks, self.records, self.look, "local", "inventories/local", lambda: self.target
        )
        self.cancelled = threading.Event()
        self.ctx = Context(
            step=StepId("infrastructure/cluster"),
            inputs=FolderInputs(root),
            now=datetime(2026, 1, 1, tzinfo=UTC),
            deadline=Deadline(5, self.cancelled),
        )

    def look(self, spec, ctx):
        if isinstance(self.finding, BaseException):
            raise self.finding
        return self.finding

    def plan(self, params=PARAMS, **ctx):
        context = replace(self.ctx, **ctx)
        change = self.action.plan(params, self.action.read(params, context), context)
        assert Change.from_json(change.to_json()) == change
        return change

    def verdict(self, change, params=PARAMS, *, resuming=False, **ctx):
        return converge(change, self.action.read(params, replace(self.ctx, **ctx)).state, resuming=resuming).decision

    def apply(self, change=None, params=PARAMS, **ctx):
        change = change or self.plan(params, **ctx)
        return self.action.apply(params, change, replace(self.ctx, **ctx))


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


def test_first_it_runs_then_it_is_assumed(scene):
    first = scene.plan()
    assert (first.verb, first.fidelity) == (Verb.RUN, Fidelity.OPAQUE)
    assert first.before == {"playbook playbooks/cluster.yml on local": ABSENT}
    assert scene.verdict(first) is Decision.APPLY
    outcome = scene.apply(first)
    assert outcome.summary == "2 changed on 1 host"
    assert outcome.evidence == {"recap": RECAP}
    assert scene.verdict(first) is Decision.ALREADY
    second = scene.plan()
    assert (second.verb, second.fidelity) == (Verb.NONE, Fidelity.ASSUMED)
    assert scene.playbooks.ran == [("cluster.yml", {"size": 1}, "", [])]


def test_checks_that_looked_are_better_than_an_assumption(scene):
    scene.apply(unless=[UP])
    change = scene.plan(unless=[UP])
    assert (change.verb, change.fidelity) == (Verb.NONE, Fidelity.PREDICTED)


@pytest.mark.parametrize(
    "found", [Finding(False, "it is down"), NotYetError("no cluster"), TemporaryError("no answer")]
)
def test_a_failing_check_runs_it_again_and_says_why(scene, found):
    scene.apply(unless=[UP])
    scene.finding = found
    change = scene.plan(unless=[UP])
    assert change.verb is Verb.RUN
    (line,) = next(iter(change.objects.values())).diff
    assert line.path == "still holds"
    assert (found.saw if isinstance(found, Finding) else str(found)) in line.note
    assert scene.verdict(change, unless=[UP]) is Decision.APPLY


def test_a_success_on_another_cluster_does_not_count(scene):
    scene.target = "uid-1"
    scene.apply()
    assert scene.plan().verb is Verb.NONE
    scene.target = "uid-2"
    change = scene.plan()
    assert change.verb is Verb.RUN
    assert next(iter(change.objects.values())).diff[0].note == "last done for another cluster"


def test_while_the_cluster_does_not_answer_it_is_deferred_unless_checks_can_tell(scene):
    scene.target = "uid-1"
    scene.apply(unless=[UP])
    scene.target = ""
    with pytest.raises(NotYetError, match="cluster uid-1, which does not answer"):
        scene.plan()
    scene.finding = Finding(False, "node is away")
    assert scene.plan(unless=[UP]).verb is Verb.RUN, "the cluster's own step must not wait for itself"


def test_cancelling_is_not_a_failing_check(scene):
    scene.apply(unless=[UP])
    scene.finding = CancelledError("stopped")
    with pytest.raises(CancelledError):
        scene.plan(unless=[UP])


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ("playbooks/roles/node/tasks/main.yml", "playbooks/roles/node"),
        ("playbooks/cluster.yml", "playbooks/cluster.yml"),
        ("inventories/local/hosts.yml", "inventory"),
    ],
)
def test_a_changed_file_runs_it_again_and_is_named(scene, changed, part):
    scene.apply()
    with (scene.root / changed).open("a") as file:
        file.write("# changed\n")
    change = scene.plan()
    assert change.verb is Verb.RUN
    assert [line.path for line in next(iter(change.objects.values())).diff] == [part]


def test_a_role_it_does_not_use_does_not_matter(scene):
    scene.apply()
    (scene.root / "playbooks/roles/other/tasks/main.yml").write_text("# changed\n")
    assert scene.plan().verb is Verb.NONE


@pytest.mark.parametrize("change", [{"vars": {"size": 2}}, {"limit": "here"}, {"tags": ["one"]}])
def test_other_variables_hosts_or_tags_run_it_again(scene, change):
    scene.apply()
    assert scene.plan(PARAMS.model_copy(update=change)).verb is Verb.RUN


def test_a_secret_leaves_no_trace_in_the_record(scene):
    params = PlaybookParams(
        path="playbooks/cluster.yml", vars={"token": Secret("hunter2"), "deep": [{"x": Secret("a")}]}
    )
    scene.apply(params=params)
    assert scene.playbooks.ran[0][1]["token"] == Secret("hunter2")
    assert scene.plan(
        params.model_copy(update={"vars": {"token": Secret("b"), "deep": [{"x": Secret("c")}]}})
    ).verb is (Verb.NONE)


def test_fault_02_a_crash_in_the_middle_is_neither_done_nor_somebody_elses(scene):
    """Also when an older success is on record, and when its checks happen to pass."""
    scene.apply(unless=[UP])
    scene.finding = Finding(False, "it is down")
    change = scene.plan(unless=[UP])
    scene.finding = Finding(True, "it is up")
    scene.playbooks.answer = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        scene.apply(change, unless=[UP])
    assert scene.verdict(change, unless=[UP]) is Decision.STALE
    assert scene.verdict(change, unless=[UP], resuming=True) is Decision.APPLY
    later = scene.plan(unless=[UP])
    assert later.verb is Verb.RUN
    assert later.reason == "interrupted before, so it runs again"
    assert scene.verdict(later, unless=[UP]) is Decision.APPLY


@pytest.mark.parametrize(("unreachable", "error"), [(0, PermanentError), (1, TemporaryError)])
def test_a_failure_names_the_step_the_playbook_and_the_task(scene, unreachable, error):
    recap = {"here": {**RECAP["here"], "unreachable": unreachable}}
    scene.playbooks.answer = PlayResult(False, recap, "Build on here: no space left")
    with pytest.raises(error, match=r"infrastructure/cluster: playbooks/cluster\.yml: Build on here: no space left"):
        scene.apply()
    assert scene.plan().verb is Verb.RUN


def test_apply_waits_until_what_it_set_up_has_come_up(scene, monkeypatch):
    monkeypatch.setattr("engine.actions.playbook._LOOK_EVERY", 0.0)
    findings = iter([Finding(False, "starting"), Finding(False, "starting"), Finding(True, "up")])
    monkeypatch.setattr(scene.action, "_look", lambda _spec, _ctx: next(findings))
    lines = []
    change = scene.plan()  # nothing on record yet, so nothing is looked at
    scene.apply(change, unless=[UP], progress=lines.append)
    assert lines == ["waiting: thing is=up: starting"] * 2
    assert scene.records.kept[scene.ctx.step]["digest"]


def test_what_never_comes_up_fails_at_the_deadline_saying_what(scene):
    scene.finding = Finding(False, "still down")
    with pytest.raises(TemporaryError, match="still down"):
        scene.apply(unless=[UP], deadline=Deadline(0.05))
    assert scene.plan().verb is Verb.RUN


def test_undo_runs_what_the_author_wrote(scene):
    (scene.root / "playbooks/down.yml").write_text("- hosts: all\n")
    undo = {"path": "playbooks/down.yml", "vars": {"deep": True}}
    change = scene.plan(undo_params=undo)
    assert change.residue == ()
    scene.apply(change, undo_params=undo)
    ctx = replace(scene.ctx, undo_params=undo)
    assert undo_verdict(change, scene.action.read_back(PARAMS, change, Preimage(), ctx)).decision is Decision.APPLY
    scene.action.undo(PARAMS, change, Preimage(), ctx)
    assert scene.playbooks.ran[-1] == ("down.yml", {"deep": True}, "", [])
    assert undo_verdict(change, scene.action.read_back(PARAMS, change, Preimage(), ctx)).decision is Decision.ALREADY
    assert scene.plan().verb is Verb.RUN


def test_without_undo_its_effects_are_residue(scene):
    change = scene.plan()
    assert change.residue == ("playbook playbooks/cluster.yml on local",)
    scene.apply(change)
    scene.action.undo(PARAMS, change, Preimage(), scene.ctx)
    assert len(scene.playbooks.ran) == 1
    assert scene.plan().verb is Verb.NONE


def test_an_unknown_key_is_refused():
    with pytest.raises(ValidationError, match="playbok"):
        PlaybookParams(path="x.yml", playbok=1)


TREE = {
    "site.yml": "- import_playbook: more/sub.yml\n- hosts: all\n  vars_files: [own.yml]\n  roles: [{role: a}, b]\n",
    "more/sub.yml": "- hosts: all\n  tasks:\n    - ansible.builtin.include_role: {name: c}\n",
    "own.yml": "x: !vault |\n  abc\n",
    "roles/a/meta/main.yml": "dependencies: [{role: d}]\n",
    "roles/b/tasks/main.yml": "- block:\n    - import_role: {name: e}\n",
    "roles/c/tasks/main.yml": "- include_tasks: more.yml\n",
    "roles/d/tasks/main.yml": "[]\n",
    "roles/e/tasks/main.yml": "[]\n",
    "roles/unused/tasks/main.yml": "[]\n",
    "templates/x.j2": "x",
    "elsewhere/file": "x",
}


def written(folder, tree):
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder / "site.yml"


def test_a_playbook_is_made_of_what_it_names(tmp_path):
    roles = ["roles/a", "roles/b", "roles/c", "roles/d", "roles/e"]
    assert parts_of(written(tmp_path, TREE)) == ["more/sub.yml", "own.yml", *roles, "site.yml", "templates"]


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ("- hosts: all\n  tasks: [{include_role: {name: '{{ which }}'}}]\n", ["roles", "site.yml", "templates"]),
        ("- hosts: all\n  vars_files: [../outside.yml, missing.yml]\n", ["site.yml", "templates"]),
        ("- hosts: [\n", ["site.yml", "templates"]),
    ],
)
def test_what_only_a_variable_tells_or_does_not_exist(tmp_path, site, expected):
    assert parts_of(written(tmp_path, {**TREE, "site.yml": site})) == expected


def test_what_the_user_gives_by_e_reaches_the_playbook_over_the_steps_own(scene):
    params = PlaybookParams(path="playbooks/cluster.yml", vars={"size": 1, "name": "here"})
    scene.apply(params=params)
    given = {"runbook_extra_vars": {"size": 2}}
    change = scene.plan(params, variables=given)
    assert change.verb is Verb.RUN, "other variables are another playbook run"
    scene.apply(change, params, variables=given)
    assert scene.playbooks.ran[-1][1] == {"size": 2, "name": "here"}
