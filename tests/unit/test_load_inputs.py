"""Kept inputs: whole, unchanged, found again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.errors import NotYetError, PermanentError, UsageError
from engine.load.inputs import KeptInputs

NAMES = ("playbooks", "inventories/dev", "gone")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    files = {
        "runbooks/shop/runbook.yml": "title: Shop\n",
        "runbooks/shop/charts/web/Chart.yaml": "name: web\n",
        "runbooks/shop/charts/web/values.yaml": "a: 1\n",
        "playbooks/site.yml": "[]\n",
        "inventories/dev/hosts.yml": "all: {}\n",
        "other/secret.txt": "not kept\n",
        "runbooks/shop/.git/config": "not kept\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "playbooks" / "run.sh").write_text("#!/bin/sh\n")
    (root / "playbooks" / "run.sh").chmod(0o755)
    return root


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def keep(root: Path, state: Path, variables: object = None) -> KeptInputs:
    return KeptInputs.snapshot(state, root, "runbooks/shop", NAMES, {"v": variables})


def test_what_is_kept_is_for_its_owner_only(root: Path, state: Path) -> None:
    keep(root, state)
    assert state.stat().st_mode & 0o777 == 0o700


def test_a_copy_that_edits_do_not_reach(root: Path, state: Path) -> None:
    kept = keep(root, state, {"b": 1, "a": "ü"})
    chart = kept.path("charts/web")
    (root / "runbooks/shop/charts/web/values.yaml").write_text("a: 2\n")
    assert (chart / "values.yaml").read_text() == "a: 1\n"
    assert kept.path("playbooks/site.yml").read_text() == "[]\n", "then the project's root"
    assert kept.variables == {"v": {"b": 1, "a": "ü"}}
    assert (kept.tree.parent / "variables.json").read_text() == '{"v":{"a":"ü","b":1}}'
    assert not (kept.tree / "other").exists()
    assert not (kept.tree / "runbooks/shop/.git").exists()
    assert oct((kept.tree / "playbooks/run.sh").stat().st_mode)[-3:] == "500"
    assert oct((chart / "values.yaml").stat().st_mode)[-3:] == "400"


def test_the_digest_is_of_content_modes_and_variables(root: Path, state: Path) -> None:
    first = keep(root, state)
    assert keep(root, state).digest == first.digest
    assert keep(root, state, 1).digest != first.digest
    (root / "playbooks" / "run.sh").chmod(0o644)
    second = keep(root, state)
    (root / "playbooks" / "site.yml").write_text("[] \n")
    assert len({first.digest, second.digest, keep(root, state).digest}) == 3
    assert first.digest_of("charts/web") == second.digest_of("charts/web")
    assert first.digest_of("playbooks") != second.digest_of("playbooks")
    assert [p.name for p in (state / "inputs").iterdir() if p.name.startswith(".")] == [], "nothing half-made"


def test_found_again_by_its_digest(root: Path, state: Path) -> None:
    kept = keep(root, state)
    again = KeptInputs.open(state, kept.digest)
    assert (again.digest, again.variables) == (kept.digest, kept.variables)
    assert again.path("charts/web") == kept.path("charts/web")
    with pytest.raises(UsageError, match="are not in"):
        KeptInputs.open(state, "0" * 64)


@pytest.mark.parametrize("name", ["runbooks/shop/charts/web/values.yaml", "runbooks/shop/charts/web/new.yaml"])
def test_a_changed_copy_is_refused(root: Path, state: Path, name: str) -> None:
    kept = keep(root, state)
    target = kept.tree / name
    if target.exists():
        target.chmod(0o600)
    target.write_text("a: 3\n")
    again = KeptInputs.open(state, kept.digest)
    assert again.path("playbooks/site.yml")
    with pytest.raises(PermanentError, match="kept copy of runbooks/shop/charts/web was changed"):
        again.path("charts/web")


@pytest.mark.parametrize("name", ["variables.json", "files.json"])
def test_changed_variables_or_listing_are_refused(root: Path, state: Path, name: str) -> None:
    kept = keep(root, state)
    path = kept.tree.parent / name
    path.chmod(0o600)
    path.write_text(path.read_text().replace("null", "1").replace("true", "false"))
    with pytest.raises(PermanentError, match="were changed"):
        KeptInputs.open(state, kept.digest)


@pytest.mark.parametrize(
    "listing", ["{}", "[]", "5", '{"files": [], "runbook": ""}', '{"files": {"a": 1}, "runbook": ""}']
)
def test_a_listing_of_another_form_is_refused(root: Path, state: Path, listing: str) -> None:
    kept = keep(root, state)
    path = kept.tree.parent / "files.json"
    path.chmod(0o600)
    path.write_text(listing)
    with pytest.raises(PermanentError, match="were changed"):
        KeptInputs.open(state, kept.digest)


@pytest.mark.parametrize("name", ["../project/other/secret.txt", "charts/../../x", "a\0b"])
def test_names_that_lead_outside(root: Path, state: Path, name: str) -> None:
    with pytest.raises(UsageError, match="leads outside"):
        keep(root, state).path(name)


def test_a_missing_file_is_guessed(root: Path, state: Path) -> None:
    kept = keep(root, state)
    with pytest.raises(UsageError, match=r'no file or folder .*charts/wbe.*did you mean "charts/web"'):
        kept.path("charts/wbe")


def test_links(root: Path, state: Path) -> None:
    link = root / "runbooks/shop/link.yml"
    link.symlink_to(root / "other/secret.txt")
    assert keep(root, state).path("link.yml").read_text() == "not kept\n", "within the project: its content"
    link.unlink()
    link.symlink_to("/etc/hostname")
    with pytest.raises(UsageError, match="leads outside"):
        keep(root, state)
    link.unlink()
    link.symlink_to(root / "other")
    with pytest.raises(UsageError, match="link to a folder"):
        keep(root, state)


def test_outside_files_are_kept_at_first_use_and_for_the_run(root: Path, state: Path, tmp_path: Path) -> None:
    chart = tmp_path / "staged" / "istio"
    kept = keep(root, state)
    run = state / "runs" / "7f3c"
    kept.bind(run)
    with pytest.raises(NotYetError, match="does not exist"):
        kept.path(str(chart))
    chart.mkdir(parents=True)
    (chart / "Chart.yaml").write_text("version: 1\n")
    first = kept.path(str(chart))
    assert first.name == "istio"
    digest = kept.digest_of(str(chart))
    (chart / "Chart.yaml").write_text("version: 2\n")
    assert (kept.path(str(chart)) / "Chart.yaml").read_text() == "version: 1\n"
    resumed = KeptInputs.open(state, kept.digest, run_folder=run)
    assert resumed.path(str(chart)) == first
    assert json.loads((run / "external.json").read_text()) == {str(chart): digest}
    another = KeptInputs.open(state, kept.digest)
    assert (another.path(str(chart)) / "Chart.yaml").read_text() == "version: 2\n"


def test_what_the_plan_kept_is_recorded_when_the_run_begins(root: Path, state: Path, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("x")
    kept = keep(root, state)
    kept.path(str(tmp_path / "tool"))
    kept.bind(state / "runs" / "1")
    assert json.loads((state / "runs" / "1" / "external.json").read_text()).keys() == {str(tmp_path / "tool")}


def test_a_full_disk_leaves_nothing_half_made(root: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def full(path: object, *args: int, **kwargs: int) -> int:
        if str(path).endswith("values.yaml"):
            raise OSError(28, "No space left on device")
        return opened(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(UsageError, match=r"cannot be kept .*No space left"):
        keep(root, state)
    assert list((state / "inputs").iterdir()) == []
