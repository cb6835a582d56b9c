"""Environments: Ansible inventories, their variables as Ansible itself has them.

`ansible-inventory` takes about a second to start, so its answer is kept under the digest of all it was made from; that
way never imports or starts Ansible.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import Diagnostic, FilesError, Position, UsageError
from engine.load import yaml
from engine.load.document import guess, listed
from engine.load.places import inventory_documents
from engine.load.tree import contents, sha256

FOLDER = "inventories"
PROGRAM = "ansible-inventory"
TIMEOUT = 120.0
"""Seconds."""
_JUDGED = "2"
"""Changes with what is refused before Ansible is asked: an answer that was kept was judged so."""
_PLACE = re.compile(r"(?:Origin: |in |['\"])?(/[^\s:'\"]+)(?:['\"], line |:)(\d+)(?:, column |:)(\d+)")
_DYNAMIC = re.compile(rb"^plugin:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Environment:
    """An inventory folder and the variables that hold for the environment as a whole."""

    name: str
    folder: Path
    variables: Mapping[str, Any]


def environments(root: Path) -> list[str]:
    """The names of the project's environments, sorted: folders that hold something."""
    folder = root / FOLDER
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p.name for p in found if p.is_dir() and p.name[0] != "." and any(p.iterdir()))


def load_environment(root: Path, name: str, cache: Path, extra: Mapping[str, Any] | None = None) -> Environment:
    """The environment of that name. UsageError when there is none; FilesError when Ansible cannot read it, or
    should not.

    The variables are those of host `localhost`, else of the first host by name, with all its groups' merged in by
    Ansible; then `extra` (`-e`) over them. They may hold templates, as Ansible's do.
    """
    there = environments(root)
    if name not in there:
        known = f"there are: {listed(there)}" if there else f"{FOLDER}/ holds none: write {FOLDER}/NAME/hosts.yml"
        raise UsageError(f'no environment "{name}"{guess(name, there)}; {known}')
    folder = root / FOLDER / name
    listing = _listing(root, folder, cache)
    return Environment(name, folder, {**_variables(listing, folder, root), **(extra or {})})


def extra_variables(arguments: Sequence[str], base: Path) -> dict[str, Any]:
    """What `-e` gives: `name=value` (text, as with Ansible), a JSON mapping, or `@file` of YAML. Later ones have the
    say."""
    found: dict[str, Any] = {}
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise UsageError("-e: not UTF-8 text")
        if argument.startswith("@"):
            document = yaml.read(base, base / argument[1:])
            found.update(_mapping(document.data, argument))
        elif argument.lstrip().startswith("{"):
            try:
                found.update(_mapping(json.loads(argument), "-e"))
            except ValueError as error:
                raise UsageError(f"-e: not JSON: {error}") from error
        else:
            found.update(_pairs(argument))
    return found


def _pairs(argument: str) -> dict[str, str]:
    try:
        words = shlex.split(argument)
    except ValueError as error:
        raise UsageError(f"-e {argument}: {error}") from error
    pairs = [word.partition("=") for word in words]
    for name, sign, _value in pairs:
        if not sign or not name.isidentifier():
            raise UsageError(f'-e: "{name}" should be name=value, a JSON mapping, or @file')
    return {name: value for name, _sign, value in pairs}


def _mapping(data: Any, what: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UsageError(f"{what}: should be a mapping of names to values")
    return data


def _listing(root: Path, folder: Path, cache: Path) -> dict[str, Any]:
    """Ansible's answer, from the cache when all it was made from is the same."""
    program = Path(sys.executable).parent / PROGRAM
    config = root / "ansible.cfg"
    parts, dynamic = [_JUDGED], False
    for name, content, executable in contents(folder, root):
        parts.append(f"{name}\0{sha256(content)}\0{executable}")
        dynamic = dynamic or executable or bool(_DYNAMIC.search(content))
    parts += [sha256(config.read_bytes()) if config.is_file() else "", _version(program)]
    kept = cache / f"inventory-{sha256(chr(10).join(parts).encode())}.json"
    if not dynamic and kept.is_file():
        try:
            return dict(json.loads(kept.read_bytes()))
        except ValueError:
            kept.unlink(missing_ok=True)  # cut short by a crash of the machine
    inventory_documents(root, folder)
    answer = _ask(program, root, folder, config)
    if not dynamic:
        _keep(kept, answer)
    return answer


def _version(program: Path) -> str:
    """Changes when Ansible is installed anew, without importing it."""
    try:
        return str(program.stat().st_mtime_ns)
    except OSError as error:
        raise UsageError(f"{program} is missing: install ansible-core into this Python environment") from error


def _keep(kept: Path, answer: Mapping[str, Any]) -> None:
    kept.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # else the state folder were open to all
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    part = kept.with_name(f".{kept.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(answer, file)
    part.replace(kept)


def _ask(program: Path, root: Path, folder: Path, config: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="runbook-inventory-") as scratch:
        empty = Path(scratch, "ansible.cfg")  # else Ansible would look for one in the user's home
        empty.touch()
        environment = {
            "PATH": f"{program.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": scratch,
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(config if config.is_file() else empty),
            "ANSIBLE_LOCAL_TEMP": scratch,
            "ANSIBLE_HOME": scratch,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
            "ANSIBLE_INVENTORY_UNPARSED_FAILED": "1",
            "ANSIBLE_INVENTORY_IGNORE_REGEX": "^allowed_signers$",  # whose signatures count: no inventory
        }
        argv = [str(program), "-i", str(folder), "--list"]
        try:
            done = subprocess.run(
                argv, env=environment, cwd=root, capture_output=True, timeout=TIMEOUT, check=False, text=True
            )
        except subprocess.TimeoutExpired as error:
            raise UsageError(f"{PROGRAM} -i {folder} did not answer within {TIMEOUT:.0f} s") from error
        except OSError as error:
            raise UsageError(f"{program} cannot be started: {error.strerror}") from error
    if done.returncode:
        raise _unreadable(root, folder, done.stderr)
    try:
        return dict(json.loads(done.stdout))
    except ValueError as error:
        raise UsageError(f"{PROGRAM} -i {folder} gave no JSON:\n{_cause(done.stderr)}") from error


def _unreadable(root: Path, folder: Path, stderr: str) -> FilesError:
    """Ansible's own words, as detail of ours, at the place it names in the inventory; else at its first line."""
    position = Position(_shown(root, folder / "hosts.yml"), 1, 1)
    for file, line, column in _PLACE.findall(stderr):
        if Path(file).is_relative_to(folder):
            position = Position(_shown(root, Path(file)), int(line), int(column))
            break
    return FilesError([Diagnostic(position, f"Ansible cannot read this inventory; it says:\n{_cause(stderr)}")])


def _shown(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _cause(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith("[DEPRECATION")]
    return "\n".join(f"  {line}" for line in lines[-12:]) or "  (it said nothing)"


def _variables(listing: Mapping[str, Any], folder: Path, root: Path) -> dict[str, Any]:
    hosts = listing.get("_meta", {}).get("hostvars", {})
    names = sorted(_hosts(listing) | set(hosts))
    if not names:
        message = "this inventory has no host: write at least `localhost` into its hosts.yml"
        raise FilesError([Diagnostic(Position(_shown(root, folder / "hosts.yml"), 1, 1), message)])
    host = "localhost" if "localhost" in names else names[0]
    return {name: _literal(value) for name, value in hosts.get(host, {}).items()}


def _hosts(listing: Mapping[str, Any]) -> set[str]:
    """Every host of every group: one without variables is not among the hostvars."""
    return {h for group in listing.values() if isinstance(group, dict) for h in group.get("hosts", ())}


def _literal(value: Any) -> Any:
    """Ansible's `!unsafe` text is never rendered, so it stays as it is here too."""
    if isinstance(value, dict):
        if set(value) == {"__ansible_unsafe"}:
            text = str(value["__ansible_unsafe"])
            return "{{ " + json.dumps(text, ensure_ascii=False) + " }}" if "{" in text else text
        return {k: _literal(v) for k, v in value.items()}
    return [_literal(v) for v in value] if isinstance(value, list) else value
