"""The files a run was planned from, kept under the digest of their contents.

`STATE/inputs/DIGEST/tree` holds the runbook, the playbooks and the inventory as they were, `variables.json` the
variables, `files.json` every file's own digest. What an absolute name leads to (a chart that an earlier step staged) is
kept at the moment it is first used, under `STATE/inputs/external/DIGEST`; the run's `external.json` says which, so a
resumed run finds the same.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from threading import RLock
from typing import Any

from engine.errors import NotYetError, PermanentError, UsageError
from engine.load.document import guess
from engine.load.tree import TreeFile, contents, digest_of_files, sha256

_FOLDER = "inputs"
_EXTERNAL = "external"
_VARIABLES = "variables.json"
_FILES = "files.json"
_EXTERNAL_NAMES = "external.json"


class KeptInputs:
    """Implements `core.action.Inputs`. Made by `snapshot` before a plan, by `open` for a run that goes on."""

    def __init__(
        self, state: Path, digest: str, runbook: str, files: Mapping[str, TreeFile], *, run_folder: Path | None = None
    ) -> None:
        self._state, self._digest, self._files = state, digest, files
        self._runbook = PurePosixPath(runbook)
        self._verified: set[str] = set()
        self._external: dict[str, str] = {}
        self._record: Path | None = None
        self._lock = RLock()
        if run_folder is not None:
            self.bind(run_folder)

    @classmethod
    def snapshot(
        cls, state: Path, root: Path, runbook: str, names: Iterable[str], variables: Mapping[str, Any]
    ) -> KeptInputs:
        """Keep these files and folders of the project (`names`, relative to `root`; missing ones are left out).

        `runbook` is the runbook's folder, relative too: names are looked for there first. UsageError for links that
        lead outside.
        """
        kept: dict[str, bytes] = {}
        files: dict[str, TreeFile] = {}
        for name in (runbook, *names):
            for inner, content, executable in _content(root / _inside(name), root):
                path = f"{name}/{inner}" if inner else name
                kept[path] = content
                files[path] = TreeFile(sha256(content), executable)
        values = json.dumps(variables, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
        total = {**files, f"../{_VARIABLES}": TreeFile(sha256(values), False)}
        digest = sha256(f"{runbook}\0{digest_of_files(total)}".encode())
        listing = {"runbook": runbook, "files": {n: f.to_json() for n, f in sorted(files.items())}}
        _private(state)
        _write_once(
            state / _FOLDER / digest,
            {
                **{f"tree/{n}": (c, files[n].executable) for n, c in kept.items()},
                _VARIABLES: (values, False),
                _FILES: (json.dumps(listing).encode(), False),
            },
        )
        return cls(state, digest, runbook, files)

    @classmethod
    def open(cls, state: Path, digest: str, *, run_folder: Path | None = None) -> KeptInputs:
        """Kept files again. UsageError when they are gone; PermanentError when what is there is not what was kept."""
        folder = state / _FOLDER / digest
        try:
            listing = json.loads((folder / _FILES).read_bytes())
            values = (folder / _VARIABLES).read_bytes()
        except (OSError, ValueError) as error:
            raise UsageError(
                f"the kept inputs {digest[:12]} are not in {folder.parent}: the run cannot go on"
            ) from error
        changed = f"the kept inputs {digest[:12]} were changed in {folder}: refusing to use them"
        try:
            files = {name: TreeFile(d, x) for name, (d, x) in listing["files"].items()}
            total = {**files, f"../{_VARIABLES}": TreeFile(sha256(values), False)}
            found = sha256(f"{listing['runbook']}\0{digest_of_files(total)}".encode())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PermanentError(changed) from error
        if found != digest:
            raise PermanentError(changed)
        return cls(state, digest, listing["runbook"], files, run_folder=run_folder)

    @property
    def digest(self) -> str:
        return self._digest

    @property
    def tree(self) -> Path:
        """The kept project: what `load_runbook` reads for a run."""
        return self._state / _FOLDER / self._digest / "tree"

    @property
    def variables(self) -> dict[str, Any]:
        """The variables the plan was made with."""
        return dict(json.loads((self.tree.parent / _VARIABLES).read_bytes()))

    def bind(self, run_folder: Path) -> None:
        """From now on what is kept from outside is recorded with this run; what it recorded before holds."""
        with self._lock:
            self._record = run_folder / _EXTERNAL_NAMES
            if self._record.is_file():
                self._external |= json.loads(self._record.read_bytes())
            self._save()

    def path(self, name: str) -> Path:
        """The kept copy. A relative name is looked for in the runbook's folder, then in the project's root.

        UsageError when it is missing or leads outside, NotYetError for an absolute one that is missing (an earlier
        step may make it), PermanentError when the kept copy was changed.
        """
        if os.path.isabs(name):
            return self._external_path(name)
        found = self._find(name)
        self._verify(found)
        return self.tree / found

    def digest_of(self, name: str) -> str:
        """SHA-256 over the file, or over the folder's sorted names and contents."""
        if os.path.isabs(name):
            return self._external_digest(name)
        found = self._find(name)
        return _digest(self._under(found))

    def _find(self, name: str) -> str:
        wanted = _inside(name)
        tried = [str(self._runbook / wanted), str(PurePosixPath(wanted))]
        for candidate in tried:
            if self._under(candidate):
                return candidate
        known = {f.removeprefix(f"{self._runbook}/") for f in self._files}
        known |= {str(p) for f in known for p in PurePosixPath(f).parents}
        raise UsageError(f"no file or folder {' or '.join(dict.fromkeys(tried))}{guess(wanted, known)}")

    def _under(self, name: str) -> dict[str, TreeFile]:
        """The file itself under an empty name, or every file below a folder."""
        if name in self._files:
            return {"": self._files[name]}
        if name == ".":
            return dict(self._files)
        prefix = name + "/"
        return {f.removeprefix(prefix): file for f, file in self._files.items() if f.startswith(prefix)}

    def _verify(self, found: str) -> None:
        """Once per name and process: the copy is what was kept."""
        if found in self._verified:
            return
        now = _read(self.tree / found, self.tree)
        if now != self._under(found):
            raise PermanentError(f"the kept copy of {found} was changed in {self.tree}: refusing to use it")
        self._verified.add(found)

    def _external_path(self, name: str) -> Path:
        digest = self._external_digest(name)
        kept = self._state / _FOLDER / _EXTERNAL / digest / PurePosixPath(name).name
        if digest not in self._verified:
            if _digest(_read(kept, kept.parent)) != digest:
                raise PermanentError(f"the kept copy of {name} was changed in {kept}: refusing to use it")
            self._verified.add(digest)
        return kept

    def _external_digest(self, name: str) -> str:
        """Keep it at its first use; later uses, of a resumed run too, get that copy."""
        with self._lock:
            if name not in self._external:
                self._external[name] = self._keep_external(Path(name))
                self._save()
            return self._external[name]

    def _keep_external(self, path: Path) -> str:
        if not path.exists():
            raise NotYetError(f"{path} does not exist")
        read = {inner: (content, executable) for inner, content, executable in _content(path, path.parent)}
        digest = _digest({inner: TreeFile(sha256(c), x) for inner, (c, x) in read.items()})
        copies = {f"{path.name}/{inner}" if inner else path.name: pair for inner, pair in read.items()}
        _write_once(self._state / _FOLDER / _EXTERNAL / digest, copies)
        return digest

    def _save(self) -> None:
        if self._record is None or not self._external:
            return
        self._record.parent.mkdir(parents=True, exist_ok=True)
        part = self._record.with_name(f".{_EXTERNAL_NAMES}.{secrets.token_hex(4)}")
        part.write_text(json.dumps(self._external, sort_keys=True))
        part.replace(self._record)


def _inside(name: str) -> str:
    """The name in its plain form. UsageError when it is absolute or climbs out."""
    parts = PurePosixPath(name).parts
    if not parts and name not in {".", ""}:
        raise UsageError(f"{name!r} is not a name of a file")
    if ".." in parts or PurePosixPath(name).is_absolute() or "\0" in name:
        raise UsageError(f"{name} leads outside the project")
    return str(PurePosixPath(name))


def _content(path: Path, within: Path) -> Iterable[tuple[str, bytes, bool]]:
    """What a file (under an empty name) or a folder holds; nothing when it is missing."""
    if path.is_dir():
        yield from contents(path, within)
    elif path.is_file():
        if not path.resolve().is_relative_to(within.resolve()):
            raise UsageError(f"{path} leads outside {within}: it cannot be kept with the run")
        yield "", path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR)


def _read(path: Path, within: Path) -> dict[str, TreeFile]:
    return {inner: TreeFile(sha256(content), executable) for inner, content, executable in _content(path, within)}


def _digest(files: Mapping[str, TreeFile]) -> str:
    return files[""].digest if set(files) == {""} else digest_of_files(files)


def _private(state: Path) -> None:
    """Variables lie below it: only its owner may look in. UsageError when it cannot be made."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the run's files cannot be kept in {state}: {error.strerror}") from error


def _write_once(target: Path, files: Mapping[str, tuple[bytes, bool]]) -> None:
    """A folder under the digest of its content: whole or not there, read-only. Copies, never links: an edit of the
    original must not go through."""
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name[:12]}.{secrets.token_hex(6)}")
    try:
        for folder in {os.path.dirname(part / name) for name in files}:
            os.makedirs(folder, exist_ok=True)
        for name, (content, executable) in files.items():
            path = part / name
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o500 if executable else 0o400)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        part.mkdir(exist_ok=True)
        part.rename(target)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        if not target.is_dir():  # else another process was as quick
            raise UsageError(f"the run's files cannot be kept in {target.parent}: {error.strerror}") from error
