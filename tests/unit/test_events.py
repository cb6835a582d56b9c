"""`command`, `approval`, `record`: once per key or `fresh` window, evidence, doubt."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from engine.actions.approval import ApprovalAction, ApprovalParams
from engine.actions.command import CommandAction, CommandParams
from engine.actions.record import RecordAction, RecordParams
from engine.core.action import Context, Deadline
from engine.core.change import Change, Fidelity, Verb
from engine.core.convergence import Decision, converge
from engine.core.model import StepId
from engine.core.ports import Answer
from engine.core.processes import Finished
from engine.errors import InDoubtError, PermanentError, RefusedError

KEY = "r1/one/event"


class JournalEvidence:
    """Evidence under keys, and what is fresh."""

    def __init__(self):
        self.kept = {}

    def find(self, ctx):
        if ctx.key is not None:
            return self.kept.get(ctx.key)
        return next(iter(self.kept.values()), None) if ctx.fresh else None


class Launcher:
    def __init__(self, code=0, stdout="made\n", stderr=""):
        self.ran, self.finished = [], Finished(code, stdout, stderr)

    def run(self, argv, *, deadline, stdin=b"", env=None, cwd=None, on_line=None):
        self.ran.append((list(argv), stdin, dict(env or {})))
        return self.finished


class Asker:
    def __init__(self, answer):
        self.answer, self.questions = answer, []

    def ask(self, question):
        self.questions.append(question)
        return self.answer


@pytest.fixture
def evidence():
    return JournalEvidence()


def context(**fields):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Context(step=StepId("one/event"), inputs=None, now=now, deadline=Deadline(5), **fields)


def plan(action, params, **fields):
    ctx = context(**fields)
    change = action.plan(params, action.read(params, ctx), ctx)
    assert Change.from_json(change.to_json()) == change
    return change


def happen(action, params, evidence):
    """As the executor does it: read under the key, converge, apply, keep the evidence."""
    change, ctx = plan(action, params), context(key=KEY)
    verdict = converge(change, action.read(params, ctx).state, resuming=False).decision
    if verdict is Decision.APPLY:
        evidence.kept[KEY] = action.apply(params, change, ctx).evidence
    return verdict


def once(action, params, evidence):
    """What holds for every event with evidence in the journal."""
    assert plan(action, params).verb is Verb.RUN
    assert happen(action, params, evidence) is Decision.APPLY
    assert happen(action, params, evidence) is Decision.ALREADY
    assert plan(action, params, fresh=None).verb is Verb.RUN, "the next run's event is another one"
    fresh = plan(action, params, fresh=datetime.resolution)
    assert (fresh.verb, fresh.fidelity) == (Verb.NONE, Fidelity.EXACT)
    assert fresh.reason
    assert fresh.residue == tuple(fresh.objects)


# --- command


def test_a_command_runs_once_with_its_arguments_untouched(evidence):
    launcher = Launcher()
    params = CommandParams(argv=["/opt/make image", "; rm -rf /", "$HOME"], stdin="in", env={"A": "b"})
    once(CommandAction(launcher, evidence), params, evidence)
    assert launcher.ran == [(["/opt/make image", "; rm -rf /", "$HOME"], b"in", {"A": "b"})]
    assert evidence.kept[KEY] == {"program": "make image", "code": 0}


def test_a_command_registers_its_output(evidence):
    outcome = CommandAction(Launcher(stdout="\nv1.2\n"), evidence).apply(
        CommandParams(argv=["x"]),
        plan(CommandAction(Launcher(), evidence), CommandParams(argv=["x"])),
        context(key=KEY),
    )
    assert outcome.outputs == {"stdout": "v1.2"}


def test_a_failed_command_shows_the_end_of_what_it_said(evidence):
    launcher = Launcher(code=3, stderr="\n".join(f"line {n}" for n in range(50)))
    with pytest.raises(PermanentError, match=r"one/event: x ended with 3:\nline 30\n(.*\n)*line 49$"):
        happen(CommandAction(launcher, evidence), CommandParams(argv=["x"]), evidence)


def test_fault_02_a_command_killed_midway_is_in_doubt(evidence):
    action = CommandAction(Launcher(), evidence)
    with pytest.raises(InDoubtError, match="migrate was started before the crash"):
        action.read(CommandParams(argv=["migrate"]), context(key=KEY, resuming=True))
    assert action.read(CommandParams(argv=["migrate"], repeatable=True), context(key=KEY, resuming=True)).state == {}
    evidence.kept[KEY] = {}
    assert action.read(CommandParams(argv=["migrate"]), context(key=KEY, resuming=True)).state


def test_what_a_command_creates_is_its_evidence(evidence, tmp_path):
    path = tmp_path / "image"
    launcher, params = Launcher(), CommandParams(argv=["x"], creates=str(path))
    action = CommandAction(launcher, evidence)
    assert action.read(params, context(key=KEY, resuming=True)).state == {}  # not there, so it did not finish
    with pytest.raises(PermanentError, match=r"x ended well, but .*image is not there"):
        happen(action, params, evidence)
    path.touch()
    change = plan(action, params)
    assert (change.verb, change.reason) == (Verb.NONE, f"{path} is there")


@pytest.mark.parametrize(
    "wrong",
    [
        {"argv": ["echo", "a\0b"]},
        {"argv": [""]},
        {"argv": ["echo"], "env": {"A": "a\0b"}},
        {"argv": ["echo"], "env": {"A=B": "c"}},
        {"argv": ["echo"], "env": {"": "c"}},
        {"argv": ["echo"], "creates": "made/here"},
        {"argv": ["echo"], "creates": "/a\0b"},
    ],
)
def test_what_no_program_can_be_given_is_a_mistake_in_the_files(wrong):
    with pytest.raises(ValidationError):
        CommandParams(**wrong)


def test_no_shell_line_instead_of_arguments():
    with pytest.raises(ValidationError):
        CommandParams(argv="rm -rf /")
    with pytest.raises(ValidationError):
        CommandParams(argv=[])


# --- approval


def approval(evidence, answer):
    return ApprovalAction(Asker(answer), evidence, lambda _ctx: "9a41")


def test_an_approval_is_asked_once_and_recorded_with_the_plan(evidence):
    action = approval(evidence, Answer("ada", "2026-01-01T00:00:00Z", True))
    once(action, ApprovalParams(question="Go live?", role="release manager"), evidence)
    expected = {"by": "ada", "at": "2026-01-01T00:00:00Z", "plan": "9a41", "question": "Go live?"}
    assert evidence.kept[KEY] == {**expected, "role": "release manager"}
    assert action._asker.questions == ["Go live? (release manager)"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [(None, "nobody can be asked here: Go live"), (Answer("ada", "now", False), "ada did not approve: Go live")],
)
def test_no_answer_or_no_is_a_refusal(evidence, answer, message):
    with pytest.raises(RefusedError, match=message) as caught:
        happen(approval(evidence, answer), ApprovalParams(question="Go live?"), evidence)
    assert caught.value.exit_code == 4
    assert not evidence.kept


def test_the_question_stands_in_the_live_display_too(evidence):
    action, lines = approval(evidence, Answer("ada", "now", True)), []
    params = ApprovalParams(question="Go live?")
    action.apply(params, plan(action, params), context(key=KEY, progress=lines.append))
    assert lines == ["Go live? Type yes or no, then Enter"]


# --- record


def record(evidence, root, text="# Record\n"):
    return RecordAction(root, "local", lambda _ctx: {"md": text, "html": "<p>Record"}, evidence)


def test_a_record_is_written_whole_and_counts_while_it_is_as_written(evidence, tmp_path):
    action, params = record(evidence, tmp_path), RecordParams()
    once(action, params, evidence)
    file, page = (tmp_path / "records/local-2026-01-01-r1.md"), (tmp_path / "records/local-2026-01-01-r1.html")
    assert sorted((tmp_path / "records").iterdir()) == [page, file]
    assert evidence.kept[KEY] == {
        "path": "records/local-2026-01-01-r1.md",
        "sha256": hashlib.sha256(b"# Record\n").hexdigest(),
        "bytes": 9,
        "beside": {"records/local-2026-01-01-r1.html": hashlib.sha256(b"<p>Record").hexdigest()},
    }
    page.write_text("<p>Record, mended by hand")
    assert plan(action, params, fresh=datetime.resolution).verb is Verb.RUN
    page.write_text("<p>Record")
    assert plan(action, params, fresh=datetime.resolution).verb is Verb.NONE
    file.write_text("# Record, mended by hand\n")
    assert plan(action, params, fresh=datetime.resolution).verb is Verb.RUN
    file.unlink()
    assert plan(action, params, fresh=datetime.resolution).verb is Verb.RUN


def test_a_record_killed_midway_is_written_again(evidence, tmp_path):
    action, ctx = record(evidence, tmp_path), context(key=KEY, resuming=True)
    assert action.read(RecordParams(), ctx).state == {}
    change = plan(action, RecordParams())
    action.apply(RecordParams(), change, ctx)
    action.apply(RecordParams(), change, replace(ctx))
    assert len(list((tmp_path / "records").iterdir())) == 2


def test_a_record_that_cannot_be_written_leaves_nothing(evidence, tmp_path):
    (tmp_path / "records").write_text("a file where the folder should be")
    with pytest.raises(PermanentError, match=r"one/event: cannot write records/local-2026-01-01-r1.html"):
        happen(record(evidence, tmp_path), RecordParams(), evidence)


@pytest.mark.parametrize("path", ["/etc", "../elsewhere", "a/../../b"])
def test_fault_35_a_record_stays_inside_the_project(path):
    with pytest.raises(ValidationError, match="inside the project"):
        RecordParams(path=path)
