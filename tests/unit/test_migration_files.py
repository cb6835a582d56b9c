"""A folder of migrations beside what a database says was applied."""

from __future__ import annotations

import re

import pytest

from engine.actions.migration_files import Applied, pending, read_folder
from engine.errors import PermanentError, RefusedError

AT = "2026-01-02T03:04:05Z"


@pytest.fixture
def folder(tmp_path):
    for name in ("0001-accounts.sql", "0002-jobs.sql", "0003-index.sql"):
        (tmp_path / name).write_text(f"SELECT '{name}';\n")
    (tmp_path / "README.md").write_text("not a migration")
    return tmp_path


@pytest.fixture
def files(folder):
    return read_folder(folder, "migrations/")


def rows(files):
    return [Applied(f.number, f.name, f.sha256, AT) for f in files]


def test_what_is_not_applied_is_pending_in_order(files):
    assert [f.name for f in pending(files, [], "m", "db")] == [f.name for f in files]
    assert [f.name for f in pending(files, rows(files[:2]), "m", "db")] == ["0003-index.sql"]
    assert pending(files, rows(files), "m", "db") == []


def test_a_text_that_changed_is_refused(folder, files):
    applied = rows(files[:2])
    (folder / "0001-accounts.sql").write_text("SELECT 2;")
    expected = "db: 0001-accounts.sql was changed after it was applied at 2026-01-02T03:04:05Z (sha256 then "
    with pytest.raises(RefusedError, match=re.escape(expected)):
        pending(read_folder(folder, "m"), applied, "m", "db")


def test_a_name_that_changed_is_refused(folder, files):
    (folder / "0002-jobs.sql").rename(folder / "0002-tasks.sql")
    with pytest.raises(RefusedError, match=r"0002 was applied as 0002-jobs.sql at .* and is now 0002-tasks.sql"):
        pending(read_folder(folder, "m"), rows(files), "m", "db")


def test_what_was_applied_and_is_gone_is_refused(files):
    with pytest.raises(RefusedError, match=r"0003-index.sql was applied at .* and is not in m: bring it back"):
        pending(files[:2], rows(files), "m", "db")


def test_a_number_below_the_newest_applied_is_refused(files):
    with pytest.raises(RefusedError, match=r"0002-jobs.sql was never applied, but 0003 was, .* a number above 0003"):
        pending(files, rows([files[0], files[2]]), "m", "db")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: (f / "0002-jobs.sql").unlink(), "m/0003-index.sql: number 0002 is missing before it"),
        (lambda f: (f / "0002-more.sql").write_text("SELECT 1"), "m/0002-more.sql: number 0002 is there twice"),
        (lambda f: (f / "0000-first.sql").write_text("SELECT 1"), "m/0000-first.sql: number 0001 is missing before"),
        (lambda f: (f / "4-Late.sql").write_text("SELECT 1"), "m/4-Late.sql: a migration is named 0001-name.sql"),
        (lambda f: (f / "0002-jobs.sql").write_text("a;\n COMMIT;"), "m/0002-jobs.sql:2:2: COMMIT is not allowed"),
        (lambda f: (f / "0002-jobs.sql").write_bytes(b"SELECT 1;\n'\xff'"), "m/0002-jobs.sql:2:1: is not UTF-8"),
        (lambda f: (f / "0002-jobs.sql").write_bytes(b" " * (5 << 20)), "m/0002-jobs.sql:1:1: 5242880 bytes; at most"),
    ],
    ids=["gap", "twice", "zero", "name", "commit", "encoding", "size"],
)
def test_a_folder_that_is_not_one_sequence_is_refused(folder, change, told):
    change(folder)
    with pytest.raises(PermanentError, match=re.escape(told)):
        read_folder(folder, "m/")


def test_no_folder(tmp_path):
    with pytest.raises(PermanentError, match=r"m is not a folder of migrations"):
        read_folder(tmp_path / "absent", "m")


def test_the_way_back_may_be_there_for_some_only(folder):
    (folder / "0001-accounts.sql").unlink()
    assert [f.number for f in read_folder(folder, "m", whole=False)] == [2, 3]
