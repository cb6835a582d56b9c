"""Which files a playbook is made of, so that only a change to one of them makes it run again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BESIDE = (
    "action_plugins", "collections", "files", "filter_plugins", "group_vars", "host_vars", "library", "lookup_plugins",
    "module_utils", "tasks", "templates", "test_plugins", "vars",
)  # fmt: skip
"""Folders beside a playbook that Ansible looks into by itself."""
_ROLE_KEYS = ("import_role", "include_role")
_FILE_KEYS = ("import_playbook", "import_tasks", "include_tasks", "include_vars", "vars_files")


def parts_of(playbook: Path) -> list[str]:
    """Paths relative to the playbook's folder, sorted: itself, what it imports, the roles it names, and theirs.

    A name that only a variable tells (`include_role: {name: "{{ x }}"}`) stands for every role.
    """
    folder = playbook.parent
    found: set[str] = {name for name in _BESIDE if (folder / name).is_dir()}
    waiting = [playbook]
    while waiting:
        file = waiting.pop()
        name = str(file.relative_to(folder))
        if name in found or not file.exists():
            continue
        found.add(name)
        files = [file] if file.is_file() else sorted([*file.glob("**/*.yml"), *file.glob("**/*.yaml")])
        for each in files:
            for kind, reference in _references(_load(each)):
                waiting += _targets(kind, reference, each, folder)
    return sorted(name for name in found if not _within_another(name, found))


def _within_another(name: str, found: set[str]) -> bool:
    return any(str(parent) in found for parent in Path(name).parents)


def _targets(kind: str, reference: str, file: Path, folder: Path) -> list[Path]:
    roles = folder / "roles"
    if kind == "role":
        return [roles] if "{{" in reference else [roles / reference]
    target = Path(os.path.normpath(file.parent / reference))
    return [target] if target.is_relative_to(folder) and "{{" not in reference else []


def _references(node: Any) -> Iterator[tuple[str, str]]:
    """("role" or "file", name) for each that a playbook, a tasks file or a role's meta names."""
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        short = str(key).rpartition(".")[2]
        if short in ("roles", "dependencies") and isinstance(value, list):
            names = (item if isinstance(item, str) else _named(item, "role", "name") for item in value)
            yield from (("role", name) for name in names if name)
        elif short in _ROLE_KEYS and _named(value, "name"):
            yield "role", _named(value, "name")
        elif short in _FILE_KEYS:
            values = value if isinstance(value, list) else [value]
            names = (item if isinstance(item, str) else _named(item, "file", "_raw_params") for item in values)
            yield from (("file", name) for name in names if name)
        yield from _references(value)


def _named(node: Any, *keys: str) -> str:
    if not isinstance(node, dict):
        return ""
    return next((node[key] for key in keys if isinstance(node.get(key), str)), "")


def _load(file: Path) -> Any:
    """The YAML as plain data; what cannot be read names nothing, Ansible will say what is wrong with it."""
    import yaml

    class Loader(yaml.CSafeLoader):
        """Ansible's own tags (`!vault`, `!unsafe`) do not matter here."""

    Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)
    try:
        return yaml.load(file.read_text(), Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return None
