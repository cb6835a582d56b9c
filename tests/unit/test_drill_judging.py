"""What a drill lost and how long it took: pure judging, and the log of sentinels outside the environment."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from engine.core.drill import FAULT, Acknowledged, Stage, Targets, Times, judge, loss, times
from engine.core.events import GENESIS, Event, EventType
from engine.errors import RefusedError
from engine.run.sentinels import SentinelLog


def at(second: float) -> str:
    return f"2026-01-01T00:00:{second:06.3f}+00:00"


ACKNOWLEDGED = [Acknowledged(n, f"token-{n}", at(n)) for n in range(1, 6)]
WHOLE = {a.number: a.token for a in ACKNOWLEDGED}
STRUCK = at(6)
TARGETS = Targets(timedelta(seconds=10), timedelta(seconds=30))


@pytest.mark.parametrize(
    ("found", "backup", "absent", "altered", "seconds", "by"),
    [
        (WHOLE, None, (), (), 0.0, "sentinels"),
        ({n: t for n, t in WHOLE.items() if n != 4}, None, (4,), (), 3.0, "sentinels"),
        ({**WHOLE, 3: "another"}, None, (), (3,), 4.0, "sentinels"),
        ({1: "token-1", 2: "another"}, None, (3, 4, 5), (2,), 5.0, "sentinels"),
        ({}, at(0), (1, 2, 3, 4, 5), (), 6.0, "backup"),
        ({}, None, (1, 2, 3, 4, 5), (), 5.0, "first sentinel: the loss reaches further back"),
        ({**WHOLE, 9: "never acknowledged"}, None, (), (), 0.0, "sentinels"),
    ],
    ids=["none", "one vanished", "one altered", "both", "all, a backup", "all, no backup", "one more is no loss"],
)
def test_loss_is_every_acknowledged_sentinel_absent_or_altered(found, backup, absent, altered, seconds, by):
    lost = loss(ACKNOWLEDGED, found, STRUCK, backup)
    assert (lost.absent, lost.altered, lost.seconds, lost.measured_by) == (absent, altered, seconds, by)
    assert lost.lost == len(absent) + len(altered)


def event(second: float, kind: EventType, step: str = "", **data) -> Event:
    return Event.sealed(1, at(second), kind, "7f3c", step, data, GENESIS)


def over(second: float, stage: Stage) -> Event:
    return event(second, EventType.PHASE_FINISHED, phase=stage.value)


def test_recovery_time_is_split_at_the_end_of_each_stage():
    events = [
        event(1, EventType.INTENT, FAULT),
        over(3, Stage.BREAK),
        over(5, Stage.DETECT),
        over(6.5, Stage.DECIDE),
        over(20, Stage.ACT),
        over(25.25, Stage.VERIFY),
    ]
    took = times(events)
    assert took == Times(detect=4.0, decide=1.5, act=13.5, verify=5.25)
    assert took.rto == 24.25
    assert times(events[:-1]) == Times(detect=4.0, decide=1.5, act=13.5)
    assert times(events[:-1]).rto is None
    assert times(events[1:]) == Times()


def test_each_target_that_was_missed_is_told():
    none, quick, slow = loss(ACKNOWLEDGED, WHOLE, STRUCK, None), Times(1, 0, 10, 5), Times(1, 0, 40, 5)
    assert judge(none, quick, TARGETS, noticed=True, unproved=()).misses == ()
    assert judge(none, slow, TARGETS, noticed=True, unproved=()).misses == ("recovered in 46.0 s, target 30 s",)
    much = loss(ACKNOWLEDGED, {}, STRUCK, "2025-12-31T00:00:00+00:00")
    assert judge(much, quick, TARGETS, noticed=True, unproved=()).misses == ("lost 86406.0 s of writes, target 10 s",)
    verdict = judge(none, Times(1, 0, 10), TARGETS, noticed=False, unproved=["base/db"])
    assert not verdict.recovered
    assert verdict.to_json()["rto_seconds"] is None
    assert len(verdict.misses) == 2


def written(tmp_path: Path) -> SentinelLog:
    log = SentinelLog.of(tmp_path, "7f3c")
    descriptor = log.open()
    for one in ACKNOWLEDGED:
        log.note(descriptor, one)
    os.close(descriptor)
    return log


def test_the_log_is_the_owners_and_forgets_only_a_line_that_was_cut_off(tmp_path):
    log = written(tmp_path)
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert log.read() == ACKNOWLEDGED
    with log.path.open("a") as file:
        file.write('{"number": 6, "tok')
    assert log.read() == ACKNOWLEDGED
    log.path.write_text(log.path.read_text().replace("}", "", 1))
    with pytest.raises(RefusedError, match="damaged"):
        log.read()


def test_a_log_that_was_changed_afterwards_is_refused(tmp_path):
    log = written(tmp_path)
    sealed = log.evidence()
    assert log.sealed(sealed) == ACKNOWLEDGED
    log.path.write_text("".join(line + "\n" for line in log.path.read_text().splitlines()[:-1]))
    with pytest.raises(RefusedError, match="was changed since"):
        log.sealed(sealed)
