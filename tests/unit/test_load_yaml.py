"""YAML with positions: what is read, what is refused, and where a mistake is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Diagnostic, FilesError
from engine.load.yaml import MAX_BYTES, parse, read


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(FilesError) as caught:
        parse(text.encode() if isinstance(text, str) else text, "f.yml")
    return [f"{d.position.line}:{d.position.column} {d.message}" for d in caught.value.diagnostics]


def test_plain_data() -> None:
    text = "a: 1\nb: [x, 'y', true, null, ~, -2, 1.5, 0x10]\nc:\n  d: |\n    two\n    lines\n  e: 2026-11-24\n"
    expected = {
        "a": 1,
        "b": ["x", "y", True, None, None, -2, 1.5, 16],
        "c": {"d": "two\nlines\n", "e": "2026-11-24"},
    }
    assert parse(text.encode(), "f.yml").data == expected


def test_every_key_and_value_has_its_place() -> None:
    document = parse(b"a:\n  - {b: word}\n", "f.yml")
    assert str(document.mark(("a", 0, "b")).position) == "f.yml:2:9"
    assert document.mark(("a", 0, "b")).width == 4
    assert str(document.mark(("a", 0, "b"), key=True).position) == "f.yml:2:6"
    assert str(document.mark(("a", 0, "gone", "deeper")).position) == "f.yml:2:5", "the nearest thing around it"


def test_a_part_of_a_long_text_is_found_in_its_line() -> None:
    document = parse(b"a: >-\n  one\n  {{ two }}\nb: two\n", "f.yml")
    assert str(document.mark(("a",), needle="two").position) == "f.yml:3:6"
    assert str(document.mark(("a",), needle="three").position) == "f.yml:1:4"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", '3:1 "a" is given twice (first in line 1)'),
        ("a: yes\n", '1:4 yes is a boolean to some readers and text to others: write true, or "yes"'),
        ("a: Off\n", '1:4 Off is a boolean to some readers and text to others: write false, or "Off"'),
        ("a: 12:30:00\n", "1:4 12:30:00 is a number in base 60 to YAML 1.1"),
        ("a: 0777\n", "1:4 0777 is an octal number"),
        ("a: 0o17\n", "1:4 0o17 is an octal number"),
        ("a: 99999999999999999999\n", "1:4 99999999999999999999 is too large"),
        ("a: .nan\n", "1:4 .nan is no number JSON knows"),
        ("1: a\n", '1:1 a key must be text: quote it, "1"'),
        ("[a]: b\n", "1:1 a key must be plain text"),
        ("a: !!python/object:os.system x\n", "1:4 the tag !!python/object:os.system is not known here"),
        ("a: *b\n", "1:4 *b stands for nothing yet"),
        ("a: &a [*a]\n", "1:8 *a stands for nothing yet (or for itself)"),
        ("a: 1\n---\nb: 1\n", "2:1 a second document"),
        ("a:\n\t- b\n", "2:1 a tab cannot indent YAML"),
        ("a: x\0\n", "1:5 the character NUL is not allowed"),
        ("a: 'x\n", "2:1 found unexpected end of stream"),
        ("<<: x\n", "1:1 << merges mappings only"),
        ("[" * 5000, "1:52 nested deeper than 50 levels"),
    ],
)
def test_refused(text: str, expected: str) -> None:
    assert problems(text)[0].startswith(expected)


def test_mistakes_come_all_at_once() -> None:
    assert len(problems("a: yes\nb: 0777\na: no\n")) == 4


def test_not_utf8_and_too_large() -> None:
    assert problems(b"a: 1\nb: \xff\n") == ["2:4 not UTF-8 text"]
    assert "larger than 1 MiB" in problems(b"#" * (MAX_BYTES + 1))[0]


def test_aliases_and_merges() -> None:
    document = parse(b"x: &a {k: 1, l: 2}\ny: {<<: *a, l: 3}\nz: *a\n", "f.yml")
    assert document.data == {"x": {"k": 1, "l": 2}, "y": {"k": 1, "l": 3}, "z": {"k": 1, "l": 2}}
    assert str(document.mark(("y", "k")).position) == "f.yml:1:11", "where it was written"


def test_bombs_do_not_go_off() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    assert "more than 100000 values" in problems("\n".join(rows))[0]
    assert "more than 100 aliases" in problems("a: &a x\nb: [" + "*a, " * 101 + "]")[0]
    chain = ["a0: &a0 " + "[" * 40 + "]" * 40] + [f"a{i}: &a{i} [[[*a{i - 1}]]]" for i in range(1, 9)]
    assert "nested deeper" in problems("\n".join(chain))[0]


def test_positions_name_the_file_within_the_project(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text("a: yes\n")
    with pytest.raises(FilesError, match=r"^x\.yml:1:4"):
        read(tmp_path, tmp_path / "x.yml")
    with pytest.raises(FilesError, match="cannot be read: No such file"):
        read(tmp_path, tmp_path / "y.yml")
    os.mkfifo(tmp_path / "pipe.yml")
    with pytest.raises(FilesError, match="not a regular file"):
        read(tmp_path, tmp_path / "pipe.yml")


# Text that looks like a number to one version of YAML alone is refused; the writer does not quote it.
words = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda text: text[:1] not in set("0123456789+-."))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcäé_ :#", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_what_another_writer_wrote_is_read_back(data: object) -> None:
    written = pyyaml.safe_dump(data, allow_unicode=False)
    assert parse(written.encode(), "f.yml").data == data


@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@,?\n\t 01~<"), max_size=40))
def test_whatever_is_written_gives_data_or_diagnostics(text: str) -> None:
    found: tuple[Diagnostic, ...] = ()
    try:
        parse(text.encode(), "f.yml")
    except FilesError as error:
        found = error.diagnostics
    assert all(1 <= d.position.line <= text.count("\n") + 2 and d.position.column >= 1 for d in found)
