"""The journal keeps what it was given, in order, and notices every alteration."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from engine.core.events import EventType
from engine.errors import PermanentError, RefusedError
from tests.fakes.runs import journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


def fill(path: Path, count: int = 5) -> None:
    kept = journal(path)
    for number in range(count):
        kept.append(EventType.CHECKED, "run", "p/s", {"check": f"c{number}", "ok": True, "saw": "x"})
    kept.close()


def test_events_come_back_and_chain(path: Path) -> None:
    fill(path)
    kept = journal(path)
    events = kept.events()
    assert [e.data["check"] for e in events] == ["c0", "c1", "c2", "c3", "c4"]
    assert [e.previous for e in events[1:]] == [e.hash for e in events[:-1]]
    assert kept.head == (5, events[-1].hash)
    assert kept.hash_at(3) == events[2].hash
    assert kept.hash_at(9) is None


def test_private(path: Path) -> None:
    fill(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("column", ["at", "type", "run", "step", "data", "previous", "hash"])
@pytest.mark.parametrize("sequence", [1, 3, 5])
def test_an_altered_event_is_named(path: Path, column: str, sequence: int) -> None:
    fill(path)
    raw = sqlite3.connect(path)
    raw.execute("drop trigger no_update")
    value = {"data": '{"check":"forged","ok":true,"saw":"x"}', "type": "intent"}.get(column, "forged")
    raw.execute(f"update events set {column} = ? where sequence = ?", (value, sequence))
    raw.commit()
    raw.close()
    with pytest.raises(RefusedError, match=f"event {sequence} "):
        journal(path)


def test_a_missing_event_is_noticed(path: Path) -> None:
    fill(path)
    raw = sqlite3.connect(path)
    raw.execute("drop trigger no_delete")
    raw.execute("delete from events where sequence = 3")
    raw.commit()
    raw.close()
    with pytest.raises(RefusedError, match=r"event 4 .* or one before it is missing"):
        journal(path)


def test_the_table_itself_refuses_changes(path: Path) -> None:
    fill(path)
    raw = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="never changed"):
        raw.execute("update events set run = 'other'")
    with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
        raw.execute("delete from events")
    raw.close()


def test_not_a_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is not SQLite" * 100)
    with pytest.raises(RefusedError, match=r"journal\.db"):
        journal(path)


def test_values_pass_the_redactor(path: Path) -> None:
    kept = journal(path)
    kept._redact = lambda data: dict.fromkeys(data, "(sensitive)")
    event = kept.append(EventType.CHECKED, "run", "p/s", {"saw": "secret-value"})
    assert event.data == {"saw": "(sensitive)"}
    assert b"secret-value" not in path.read_bytes()


def test_two_processes_write_side_by_side(path: Path) -> None:
    """Runs of two environments share a journal."""
    one, other = journal(path), journal(path)
    for number in range(3):
        one.append(EventType.CHECKED, "one", "p/s", {"n": number})
        other.append(EventType.CHECKED, "other", "p/s", {"n": number})
    assert one.verify() == 6
    assert [e.run for e in one.events()] == ["one", "other"] * 3
    assert one.head == other.head


def test_a_failed_write_leaves_nothing_and_the_journal_usable(path: Path) -> None:
    kept = journal(path)
    with pytest.raises(TypeError):
        kept.append(EventType.CHECKED, "run", "p/s", {"not JSON": object()})
    kept.append(EventType.CHECKED, "run", "p/s", {})
    assert kept.verify() == 1


def test_what_the_file_system_refuses_is_no_damage(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(PermanentError, match="must be writable"):
        journal(path)


def test_whoever_looks_does_not_wait_for_a_writer_that_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    monkeypatch.setattr("engine.run.journal._PATIENCE", 0)  # whoever had to wait would fail at once
    hanging = sqlite3.connect(path, isolation_level=None)
    hanging.execute("begin immediate")
    kept = journal(path)
    assert len(kept.events()) == 5
    with pytest.raises(PermanentError, match="let the other process that writes it end"):
        kept.append(EventType.CHECKED, "run", "p/s", {})
    hanging.close()
