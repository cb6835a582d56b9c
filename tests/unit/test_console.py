"""What a run looks like: every picture is a file in tests/golden/display. RUNBOOK_GOLDEN=write draws them anew."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from engine.core.change import Fidelity, Verb
from engine.core.events import EventType
from engine.core.model import StepId
from engine.core.planning import Plan
from engine.errors import UsageError
from engine.report import status as pages
from engine.report.console import LiveConsole, console_for
from engine.report.frame import frame_lines
from engine.report.plain import PlainConsole
from engine.report.plan import plan_lines
from engine.report.summary import summary_lines
from engine.report.text import ago, clean, clip, duration, paint
from engine.report.why import find_step, why_lines
from tests.fakes import story

GOLDEN = Path(__file__).parent.parent / "golden" / "display"
WAITING = {StepId("base/redis"): "waiting: pod redis-0 0/1 Running (readiness 2 of ~6 s)"}
ACTIONS = {StepId(s): action for s, _, action, _ in story.STEPS}


def same(name: str, lines: Iterable[str]) -> None:
    """The lines are those of the golden file."""
    text, path = "\n".join(lines) + "\n", GOLDEN / f"{name}.txt"
    if os.environ.get("RUNBOOK_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def end_of(told: story.Story) -> datetime:
    return datetime.fromisoformat(told.now)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_picture_of_a_running_run(width):
    told = story.half_way()
    lines = frame_lines(told.view, WAITING, told.now, width=width, height=30)
    assert max(map(len, lines)) <= width
    same(f"running-{width}", lines)


@pytest.mark.parametrize("height", [6, 8, 10, 12])
def test_a_low_terminal_shows_what_runs(height):
    told = story.half_way()
    lines = frame_lines(told.view, WAITING, told.now, width=80, height=height)
    assert len(lines) <= height
    assert any("▸ redis" in line for line in lines)
    same(f"running-80x{height}", lines)


def test_stopping_is_announced():
    told = story.half_way()
    lines = frame_lines(told.view, {}, told.now, width=100, height=30, stopping=True)
    assert lines[-1].startswith("! stopping")


def test_the_picture_while_rolling_back():
    told = story.failed()
    until = [e.type for e in told.events].index(EventType.UNDONE)
    told.events = told.events[:until]
    same("rolling-back-100", frame_lines(told.view, {}, told.now, width=100, height=40))


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("name", ["succeeded", "failed", "idle"])
def test_the_last_word(name, width):
    told = getattr(story, name)()
    lines = summary_lines(
        told.view,
        end_of(told),
        width=width,
        read_seconds=3.8,
        coverage="11 exact, 2 assumed",
        position="runbooks/belizechain/phases/05-mesh.yml:12:5",
    )
    same(f"{name}-{width}", lines)


def test_the_last_word_of_an_incomplete_rollback():
    told = story.failed(complete=False)
    same("incomplete", summary_lines(told.view, end_of(told)))


def test_the_last_word_of_a_stopped_run():
    told = story.half_way().end("stopped", 130)
    same("stopped", summary_lines(told.view, end_of(told)))


def verified(*, broken: bool) -> story.Story:
    told = story.Story("c0de", kind="verify").start([story.made(s, Verb.NONE) for s, *_ in story.STEPS])
    for step, *_ in story.STEPS:
        if broken and step == "mesh/gateway":
            told.begin(step).check(step, "http url=https://gateway", "connection refused", ok=False)
            told.fail(step, "check http url=https://gateway: connection refused")
        else:
            told.after(0.5).same(step)
    return told.end("failed", 1) if broken else told.end("succeeded", 0)


@pytest.mark.parametrize("broken", [False, True])
def test_the_last_word_of_a_verification(broken):
    told = verified(broken=broken)
    same(f"verified-{'broken' if broken else 'well'}", summary_lines(told.view, end_of(told), width=80))


def a_plan(*changes) -> Plan:
    return Plan("local", "belizechain", "uid", "i" * 64, "v" * 64, {c.step: c for c in changes}, {})


def drift() -> Plan:
    unmoved = [story.made(s, Verb.NONE) for s, *_ in story.STEPS if s != "core/pakit"]
    return a_plan(*unmoved, story.scaled())


def everything() -> Plan:
    """One change of each kind."""
    return a_plan(
        story.made("infrastructure/cluster", Verb.RUN, fidelity=Fidelity.OPAQUE, irreversible="the cluster stays"),
        story.made("secrets/pg-credentials", Verb.CREATE, object="kv/belizechain/postgresql", undo_to=None),
        story.made("base/postgresql", Verb.REPLACE, fidelity=Fidelity.PREDICTED),
        story.made("base/redis", Verb.DELETE),
        story.made("mesh/gateway", Verb.NONE, fidelity=Fidelity.ASSUMED),
        story.made(
            "mesh/authz-pakit", Verb.CREATE, fidelity=Fidelity.DEFERRED, reason="kind AuthorizationPolicy is not served"
        ),
    )


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_plan_with_drift(width):
    same(f"plan-drift-{width}", plan_lines(drift(), ACTIONS, width=width, saved="plans/1c2d.json"))


def test_a_plan_with_everything():
    same("plan-everything", plan_lines(everything(), ACTIONS))


def test_a_plan_with_everything_in_full():
    lines = plan_lines(everything(), ACTIONS, verbose=True)
    assert any(line.startswith("= mesh/gateway") for line in lines)


def test_a_plan_that_changes_nothing():
    plan = a_plan(*(story.made(s, Verb.NONE) for s, *_ in story.STEPS))
    assert plan_lines(plan, ACTIONS) == ["✓ nothing to change   13 steps read (13 exact)"]


def test_a_value_in_a_diff_cannot_move_the_cursor():
    from engine.core.change import DiffLine

    nasty = story.made("core/pakit", Verb.UPDATE, diff=[DiffLine("spec.x", "a", "b\x1b[2J\x07\r\nc", "by \x9b1m")])
    text = "\n".join(plan_lines(a_plan(nasty), ACTIONS))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\x9b" not in text
    assert "a → b  c" in text


def environments() -> list[pages.EnvironmentStatus]:
    dead = story.Story("aaaa", "production").start().begin("infrastructure/cluster").intend("infrastructure/cluster")
    alive = story.half_way()
    alive.environment = "staging"
    busy = story.Story("bbbb", "staging").start().begin("infrastructure/cluster").intend("infrastructure/cluster")
    views = [story.succeeded().view, story.failed().view, dead.view, busy.view, verified(broken=True).view]
    return pages.environments(views, ["dev"], ["staging"])


def test_status_of_every_environment():
    same("status", pages.status_lines(environments(), story.START + timedelta(minutes=21), width=120))


def test_status_of_one_environment():
    production = next(s for s in environments() if s.name == "production")
    same("status-one", pages.environment_lines(production, story.START + timedelta(minutes=21), width=120))


def test_history():
    views = [s.run for s in environments() if s.run] + [verified(broken=False).view]
    same("history", pages.history_lines(views, ["staging"]))


def test_show():
    same("show", pages.show_lines(story.failed().view))


def test_why_of_a_failure():
    told = story.failed()
    same("why", why_lines(told.view, find_step(told.view, "gateway"), told.events))


def test_why_of_a_step_that_never_began():
    told = story.failed()
    lines = why_lines(told.view, find_step(told.view, "record"), told.events)
    assert lines[-1] == "· never begun: the run is rolled back, since mesh/gateway failed"


def test_why_of_a_step_that_is_not_there():
    told = story.failed()
    with pytest.raises(UsageError, match="no step"):
        find_step(told.view, "nothing")


def plain(told: story.Story, **options) -> str:
    stream = io.StringIO()
    console = PlainConsole(stream, **options)
    for event in told.events:
        console.event(event)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["succeeded", "failed", "idle"])
def test_plain_lines(name):
    same(f"plain-{name}", plain(getattr(story, name)()).splitlines())


def test_plain_lines_in_full_show_every_check():
    quiet, full = plain(story.succeeded()), plain(story.succeeded(), verbose=True)
    assert quiet.count("✓ base/postgresql   check") == 0
    assert full.count("✓ base/postgresql   check") == 3


def test_progress_lines_are_not_too_many():
    now, stream = [0.0], io.StringIO()
    console = PlainConsole(stream, monotonic=lambda: now[0])
    for second in range(25):
        now[0] = float(second)
        console.progress(StepId("base/redis"), f"waiting {second // 5}")
    said = [line.split("   ")[-1] for line in stream.getvalue().splitlines()]
    assert said == ["waiting 0", "waiting 2", "waiting 4"]


def test_a_reader_that_went_away_does_not_stop_the_run():
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    console = PlainConsole(Closed())
    for event in story.succeeded().events:
        console.event(event)
    assert console.view is not None
    assert console.view.status == "succeeded"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[Terminal, LiveConsole]]:
    def made(width: int, told: story.Story | None = None, **options) -> tuple[Terminal, LiveConsole]:
        from rich.console import Console

        stream = Terminal()
        rich = Console(file=stream, width=width, height=30, force_terminal=True, color_system="standard")
        clock = (lambda: told.now) if told else story.START.isoformat
        return stream, LiveConsole(stream, rich=rich, clock=clock, **options)

    monkeypatch.setenv("TERM", "xterm")
    return made


_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.mark.parametrize("width", [20, 60, 80, 140])
def test_the_live_display_fits_and_cleans_up(terminal, width):
    told = story.half_way()
    stream, console = terminal(width, told)
    for event in told.events:
        console.event(event)
    console.progress(StepId("base/redis"), "waiting: ünïcode 日本語 and a very long line " + "x" * 200)
    assert len(max(console.lines(), key=len)) <= width
    console.close()
    console.close()
    written = stream.getvalue()
    assert "\x1b[?25l" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert all(len(line) <= width for line in _ESCAPES.sub("", written).splitlines())


def test_the_live_display_shows_reading(terminal):
    _, console = terminal(80)
    console.doing("reading 68 steps")
    console.progress(StepId("core/pakit"), "rendering")
    assert console.lines()[0][2:].startswith("reading 68 steps…   0.0s   core/pakit: rendering")
    console.close()


def test_no_colour_is_no_colour(terminal):
    told = story.failed()
    stream, console = terminal(80, told, colour=False)
    for event in told.events:
        console.event(event)
    console.close()
    assert not re.search(r"\x1b\[[0-9;]*m", stream.getvalue().replace("\x1b[0m", ""))


def test_checks_stay_on_screen_when_verbose(terminal):
    told = story.succeeded()
    stream, console = terminal(140, told, verbose=True)
    for event in told.events:
        console.event(event)
    console.close()
    assert _ESCAPES.sub("", stream.getvalue()).count("✓ base/postgresql   check") == 3


def test_events_from_many_threads_do_not_block_the_display(terminal):
    told = story.succeeded()
    _, console = terminal(140, told, verbose=True)
    console.event(told.events[0])

    def work() -> None:
        for event in told.events[1:]:
            console.event(event)
            console.progress(event.step, "busy")
            console.lines()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert not any(t.is_alive() for t in threads)
    console.close()


def test_a_pipe_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(console_for(io.StringIO()), PlainConsole)
    assert isinstance(console_for(Terminal()), LiveConsole)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(console_for(Terminal()), PlainConsole)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (3.84, "3.8s"), (9.97, "10s"), (31.2, "31s"), (59.6, "1m00s"), (112, "1m52s"), (3900, "1h05m")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(6, "6 s"), (300, "5 min"), (10800, "3 h"), (200000, "2 d"), (-5, "0 s")]
)
def test_ago(seconds, text):
    assert ago(story.START.isoformat(), story.START + timedelta(seconds=seconds)) == text


def test_text_is_made_harmless():
    assert clean("a\x1b]0;title\x07b\x1b[31mc\nd\te") == "abc d e"
    assert clip("abcdef", 4) == "abc…"
    assert clip("abcdef", 0) == "abcdef"
    assert paint("✓ well", True) == "\x1b[32m✓\x1b[0m well"
    assert paint("✓ well", False) == "✓ well"
