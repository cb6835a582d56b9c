"""Environments, read by Ansible itself; then from the cache without it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, model_validator

from engine.errors import FilesError, UsageError
from engine.load.inventory import _literal, environments, extra_variables, load_environment
from engine.load.lint import Registry, lint
from engine.load.render import Scope, render

HOSTS = """
all:
  children:
    web: {hosts: {web-1: {size: small}}}
    lab: {hosts: {localhost: {ansible_connection: local}}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "inventories" / "dev"
    (folder / "group_vars").mkdir(parents=True)
    (folder / "hosts.yml").write_text(HOSTS)
    (folder / "group_vars" / "all.yml").write_text(
        "domain: test\nurl: 'https://{{ domain }}'\nsize: none\nraw: !unsafe 'a {{ b }}'\n"
    )
    (folder / "group_vars" / "lab.yml").write_text("domain: lab.test\n")
    (tmp_path / "inventories" / "production").mkdir()
    (tmp_path / "inventories" / "production" / "hosts.yml").write_text(HOSTS)
    (tmp_path / "inventories" / "begun").mkdir()
    return tmp_path


@pytest.fixture
def no_ansible(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on Ansible may not be started."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("Ansible was started")

    monkeypatch.setattr(subprocess, "run", refuse)


def test_variables_are_those_of_localhost_merged_as_ansible_does(root: Path, tmp_path: Path) -> None:
    environment = load_environment(root, "dev", tmp_path / "cache", {"extra": 1, "size": "big"})
    assert environment.folder == root / "inventories" / "dev"
    wanted = {
        "ansible_connection": "local",
        "domain": "lab.test",
        "url": "https://{{ domain }}",
        "size": "big",
        "extra": 1,
        "raw": '{{ "a {{ b }}" }}',
    }
    assert environment.variables == wanted


@pytest.mark.parametrize("text", ["a {{ b }}", "{% endraw %}{{ b }}{% raw %}", 'q " \\ {# é 💥 \n', "{"])
def test_unsafe_text_stays_as_it_is(text: str) -> None:
    assert render(_literal({"__ansible_unsafe": text}), Scope()) == text


def test_arguments_that_are_not_text_are_bad_usage() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        extra_variables(["x=a\udcff"], Path("/"))


def test_without_localhost_the_first_host(root: Path, tmp_path: Path) -> None:
    (root / "inventories" / "dev" / "hosts.yml").write_text("all: {hosts: {b: {x: 2}, a: {x: 1}}}\n")
    assert load_environment(root, "dev", tmp_path / "cache").variables["x"] == 1


def test_the_second_time_ansible_is_not_started(root: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    first = load_environment(root, "dev", tmp_path / "cache")
    request.getfixturevalue("no_ansible")
    assert load_environment(root, "dev", tmp_path / "cache") == first
    kept = list((tmp_path / "cache").iterdir())
    assert [oct(p.stat().st_mode)[-3:] for p in kept] == ["600"]
    assert oct((tmp_path / "cache").stat().st_mode)[-3:] == "700"
    (root / "inventories" / "dev" / "group_vars" / "all.yml").write_text("domain: other\n")
    with pytest.raises(AssertionError, match="Ansible was started"):
        load_environment(root, "dev", tmp_path / "cache")


def test_a_cache_file_cut_short_is_made_again(root: Path, tmp_path: Path) -> None:
    first = load_environment(root, "dev", tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_text(kept.read_text()[:20])
    assert load_environment(root, "dev", tmp_path / "cache") == first


def test_a_dynamic_inventory_is_asked_every_time(root: Path, tmp_path: Path) -> None:
    script = root / "inventories" / "dev" / "more.py"
    script.write_text(f'#!/bin/sh\necho x >> {tmp_path}/asked\necho \'{{"_meta": {{"hostvars": {{}}}}}}\'\n')
    script.chmod(0o755)
    for _ in range(2):
        load_environment(root, "dev", tmp_path / "cache")
    assert (tmp_path / "asked").read_text().count("x") >= 2


def test_unknown_environment(root: Path, tmp_path: Path) -> None:
    assert environments(root) == ["dev", "production"]
    with pytest.raises(
        UsageError, match=r'no environment "prodution" \(did you mean "production"\?\); there are: dev, p'
    ):
        load_environment(root, "prodution", tmp_path / "cache")


def test_a_broken_inventory_is_an_error_not_an_empty_one(root: Path, tmp_path: Path) -> None:
    (root / "inventories" / "dev" / "hosts.yml").write_text("all: [\n")
    with pytest.raises(UsageError, match=r"^inventories/dev/hosts\.yml:2:1  did not find"):
        load_environment(root, "dev", tmp_path / "cache")


def test_one_broken_file_beside_a_sound_one_is_an_error_too(root: Path, tmp_path: Path) -> None:
    (root / "inventories" / "dev" / "more.yml").write_text("all: [\n")
    with pytest.raises(UsageError, match=r"^inventories/dev/more\.yml:2:1  did not find"):
        load_environment(root, "dev", tmp_path / "cache")


def test_no_host_at_all(root: Path, tmp_path: Path) -> None:
    (root / "inventories" / "dev" / "hosts.yml").write_text("all: {}\n")
    with pytest.raises(UsageError, match="has no host"):
        load_environment(root, "dev", tmp_path / "cache")


def test_the_users_home_and_secrets_do_not_reach_ansible(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_TOKEN", "canary-value")
    script = root / "inventories" / "dev" / "env.sh"
    script.write_text(f'#!/bin/sh\nenv > {tmp_path}/env\necho \'{{"_meta": {{"hostvars": {{}}}}}}\'\n')
    script.chmod(0o755)
    load_environment(root, "dev", tmp_path / "cache")
    seen = (tmp_path / "env").read_text()
    assert "canary" not in seen
    assert f"HOME={os.environ.get('HOME', '/root')}\n" not in seen


def test_extra_variables(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text("a: 1\nb: [2]\n")
    assert extra_variables(["a=0 c='two words'", "@x.yml", '{"d": {"e": null}}'], tmp_path) == {
        "a": 1,
        "b": [2],
        "c": "two words",
        "d": {"e": None},
    }


@pytest.mark.parametrize(
    ("argument", "message"),
    [("plain", "should be name=value"), ("{x", "not JSON"), ("@gone.yml", "cannot be read"), ("a='", "No closing")],
)
def test_extra_variables_that_are_none(argument: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        extra_variables([argument], tmp_path)


def test_what_only_ansible_finds_has_a_place_and_its_words_as_detail(root: Path, tmp_path: Path) -> None:
    (root / "inventories" / "dev" / "hosts.yml").write_text("all: {hosts: [a]}\n")
    with pytest.raises(FilesError, match=r"^inventories/dev/hosts\.yml:1:1  Ansible cannot read this inventory; it"):
        load_environment(root, "dev", tmp_path / "cache")


def test_a_key_given_twice_is_refused_in_every_file_at_once(root: Path, tmp_path: Path) -> None:
    """Ansible takes the second one and warns."""
    folder = root / "inventories" / "dev"
    (folder / "hosts.yml").write_text(HOSTS + "    web: {hosts: {web-2: }}\n")
    (folder / "group_vars" / "all.yml").write_text("domain: a\nsize: 1\ndomain: b\n")
    (folder / "host_vars").mkdir()
    (folder / "host_vars" / "localhost").write_text("a: 1\na: 2\n")
    with pytest.raises(FilesError) as caught:
        load_environment(root, "dev", tmp_path / "cache")
    assert [(str(d.position), d.message) for d in caught.value.diagnostics] == [
        ("inventories/dev/group_vars/all.yml:3:1", '"domain" is given twice (first in line 1)'),
        ("inventories/dev/host_vars/localhost:2:1", '"a" is given twice (first in line 1)'),
        ("inventories/dev/hosts.yml:6:5", '"web" is given twice (first in line 4)'),
    ]


def test_what_is_ansibles_own_in_its_files_stays(root: Path, tmp_path: Path) -> None:
    (root / "inventories" / "dev" / "group_vars" / "all.yml").write_text(
        "yes_or_no: yes\nmode: 0755\nat: 12:30\nraw: !unsafe 'x'\n7: seven\n"
    )
    (root / "inventories" / "dev" / "more.ini").write_text("[web]\nweb-9\n")
    assert load_environment(root, "dev", tmp_path / "cache").variables["yes_or_no"] is True


class Wanted(BaseModel):
    model_config = ConfigDict(extra="ignore")
    store: Literal["vault", "keyvault"] = "vault"
    networks: dict[str, list[str]] = {}
    region: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Wanted:
        if self.store == "keyvault" and not self.region:
            raise ValueError("store: keyvault needs region")
        return self


@pytest.mark.parametrize(
    ("file", "text", "wanted"),
    [
        ("group_vars/all.yml", "store: valut", "1:8  store should be 'vault' or 'keyvault'"),
        ("group_vars/all.yml", "networks: {lab0: [1]}", "1:19  networks.lab0[0] should be text"),
        ("group_vars/lab.yml", "a: 1\nstore: keyvault", "2:8  store: keyvault needs region"),
        ("host_vars/localhost.yml", "region: [x]", "1:9  region should be text"),
        (
            "group_vars/all.yml",
            'region: "{{ regoin }}"',
            '1:9  in the variable "region": no variable "regoin" (did you mean "region"?)',
        ),
        ("hosts.yml", "all: {vars: {region: {}}, hosts: {localhost: }}", "1:22  region should be text"),
    ],
)
def test_the_environments_settings_are_judged_where_they_stand(
    root: Path, tmp_path: Path, file: str, text: str, wanted: str
) -> None:
    path = root / "inventories" / "dev" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n")
    (root / "runbooks" / "shop" / "phases").mkdir(parents=True)
    (root / "runbooks" / "shop" / "runbook.yml").write_text("title: Shop\n")
    (root / "runbooks" / "shop" / "phases" / "a.yml").write_text("phase: a\nsteps: [{id: a, echo: {}}]\n")
    registry = Registry({"echo": dict}, {}, settings=Wanted)
    found = lint(root, "shop", "dev", registry, tmp_path / "cache")
    assert [f"{d.position}  {d.message}" for d in found] == [f"inventories/dev/{file}:{wanted}"]


def test_a_setting_of_the_runbook_itself_is_told_there(root: Path, tmp_path: Path) -> None:
    (root / "runbooks" / "shop" / "phases").mkdir(parents=True)
    (root / "runbooks" / "shop" / "runbook.yml").write_text("title: Shop\nvars: {store: nowhere}\n")
    (root / "runbooks" / "shop" / "phases" / "a.yml").write_text("phase: a\nsteps: [{id: a, echo: {}}]\n")
    found = lint(root, "shop", "dev", Registry({"echo": dict}, {}, settings=Wanted), tmp_path / "cache")
    assert [str(d.position) for d in found] == ["runbooks/shop/runbook.yml:2:15"]


def test_lint_tells_of_an_unreadable_inventory_beside_the_others(root: Path, tmp_path: Path) -> None:
    (root / "runbooks" / "shop" / "phases").mkdir(parents=True)
    (root / "runbooks" / "shop" / "runbook.yml").write_text("title: Shop\n")
    (root / "runbooks" / "shop" / "phases" / "a.yml").write_text("phase: a\nsteps: [{id: a, ehco: {}}]\n")
    (root / "inventories" / "begun").rmdir()
    (root / "inventories" / "dev" / "hosts.yml").write_text("all: \nall: \n")
    found = lint(root, None, None, Registry({"echo": dict}, {}), tmp_path / "cache")
    assert [str(d.position) for d in found] == ["inventories/dev/hosts.yml:2:1", "runbooks/shop/phases/a.yml:2:17"]
