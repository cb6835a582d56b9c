"""Ansible playbooks through ansible-runner, which runs in a child process (ansible_child.py) under the launcher.

Private data (variables, Ansible's own temporary files) lives in a 0700 folder on tmpfs that is removed at every end;
one that a SIGKILL left is removed at the next start. No event file, no argument and no environment holds a variable.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core.action import Deadline
from engine.core.model import StepId
from engine.core.processes import Launcher, PlayResult
from engine.core.redaction import Redactor, Secret
from engine.errors import PermanentError

_CHILD = Path(__file__).with_name("ansible_child.py")
_PREFIX = f"runbook-ansible-{os.getuid()}-"

_ENVIRONMENT = {
    "ANSIBLE_NOCOWS": "1",
    "ANSIBLE_INVENTORY_IGNORE_REGEX": "^allowed_signers$",  # whose signatures count: no inventory
    "ANSIBLE_RETRY_FILES_ENABLED": "0",
    "ANSIBLE_PIPELINING": "1",
    "ANSIBLE_DEPRECATION_WARNINGS": "0",
    "ANSIBLE_LOCALHOST_WARNING": "0",
}
_PASSED_ON = (
    "SSH_AUTH_SOCK", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "PIP_INDEX_URL",
    "PIP_FIND_LINKS", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GOFLAGS", "TMPDIR",
)  # fmt: skip
"""What a playbook needs of the user's environment to reach its hosts and the registries; the rest are variables."""


class AnsiblePlaybooks:
    """`core.processes.Playbooks`."""

    def __init__(self, launcher: Launcher, redactor: Redactor, run: str) -> None:
        """`run` names the private folders, for whoever finds one."""
        self._launcher = launcher
        self._redactor = redactor
        self._run = run
        self.remove_leftovers()

    def run(
        self,
        playbook: Path,
        inventory: Path,
        variables: Mapping[str, Any],
        *,
        check: bool = False,
        limit: str = "",
        tags: Sequence[str] = (),
        progress: Callable[[str], None],
        deadline: Deadline,
    ) -> PlayResult:
        """Run to the end. A failed task is a result; PermanentError when Ansible itself could not be run.

        `progress` gets one line per task and per changed host. A Secret among the variables travels by standard
        input and a file on tmpfs.
        """
        self.remove_leftovers()
        private = tmpfs() / f"{_PREFIX}{self._run}-{uuid.uuid4().hex}"
        order = {
            "private": str(private),
            "playbook": str(playbook.resolve()),
            "inventory": str(inventory.resolve()),
            "variables": dict(variables),
            "limit": limit,
            "tags": list(tags),
            "check": check,
            "env": _environment(),
        }
        told = _Told(progress)
        try:
            done = self._launcher.run(
                [sys.executable, "-I", str(_CHILD)],
                stdin=json.dumps(order, default=self._reveal).encode(),
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                on_line=told.line,
                deadline=deadline,
                name=f"playbook {playbook.name}",
            )
        finally:
            shutil.rmtree(private, ignore_errors=True)  # its own process removes it, unless it was killed
        if told.code is None:
            raise PermanentError(f"ansible-runner ended with {done.code} while running {playbook.name}:\n{done.stderr}")
        return told.result(playbook.name)

    def _reveal(self, value: Any) -> str:
        if isinstance(value, Secret):
            return self._redactor.register(value).reveal()
        raise TypeError(f"a playbook's variable cannot be a {type(value).__name__}")

    @staticmethod
    def remove_leftovers() -> None:
        """Remove private folders that no living process holds. Call it after waiting for orphans, too."""
        for folder in tmpfs().glob(f"{_PREFIX}*"):
            try:
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                continue  # gone meanwhile, or not a folder of ours
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_uid == os.getuid():
                    shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                pass  # its playbook is still running
            finally:
                os.close(descriptor)


@dataclass(slots=True)
class _Told:
    """What the child has told so far. Lines come redacted from the launcher."""

    progress: Callable[[str], None]
    code: int | None = None
    stats: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    count: int = 0
    total: int = 0

    def line(self, line: str) -> None:
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            self.text.append(line)  # something printed past us: Python's own words on a broken installation
            return
        match kind:
            case "task":
                self.count += 1
                place = f"{self.count}/{self.total}" if self.count <= self.total else f"{self.count}"
                self.progress(f"{event['name']} ({place})")
            case "changed":
                self.progress(f"changed [{event['host']}] {event['name']}")
            case "failed":
                self.failures.append(f"{event['name']} on {event['host']}: {event['message']}")
                self.progress(f"failed [{event['host']}] {event['name']}")
            case "text":
                self.text = [*self.text, event["line"]][-20:]
            case "total":
                self.total = event["tasks"]
            case "stats":
                self.stats = {name: hosts for name, hosts in event.items() if name != "event"}
            case "end":
                self.code = event["code"]

    def result(self, playbook: str) -> PlayResult:
        names = {"ok": "ok", "changed": "changed", "failures": "failures", "unreachable": "dark", "skipped": "skipped"}
        hosts = sorted({host for kind in names.values() for host in self.stats.get(kind, {})})
        recap = {h: {name: self.stats.get(kind, {}).get(h, 0) for name, kind in names.items()} for h in hosts}
        changed = sum(counts["changed"] for counts in recap.values())
        if self.code == 0 and recap:
            return PlayResult(True, recap, changed=changed)
        return PlayResult(False, recap, self._failure(playbook), changed)

    def _failure(self, playbook: str) -> str:
        if self.code == 0:
            return f"{playbook}: no host of the inventory matched, nothing ran"
        if self.failures:
            # A rescued failure comes before the one that ended the play.
            return self.failures[-1 if any(self.stats.get("rescued", {}).values()) else 0]
        return "\n".join(self.text).strip() or f"{playbook}: Ansible ended with {self.code}"


class HostRecords:
    """`core.processes.PlaybookRecords`: the last success of each playbook step, one 0600 file each, on the host that
    runs the engine. It outlives the working folder, so a second checkout knows what was done."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def of(cls, environment: str) -> HostRecords:
        """Root's in /var/lib/runbook, anybody else's in their state folder."""
        if os.getuid() == 0:
            base = Path("/var/lib/runbook")
        else:
            base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "runbook"
        return cls(base / environment / "playbooks")

    def read(self, step: StepId) -> Mapping[str, Any] | None:
        """A record that cannot be read counts as none: the playbook runs again."""
        try:
            record = json.loads(self._path(step).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def write(self, step: StepId, record: Mapping[str, Any]) -> None:
        path = self._path(step)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # 0600
        with open(descriptor, "w") as file:
            json.dump(record, file, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)

    def remove(self, step: StepId) -> None:
        self._path(step).unlink(missing_ok=True)

    def _path(self, step: StepId) -> Path:
        return self._root / f"{step.replace('/', '.')}.json"


def tmpfs() -> Path:
    """A folder in memory. PermanentError when there is none: secrets are not written to a disk."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    in_memory = {mount[1] for mount in mounts if mount[2] in ("tmpfs", "ramfs")}
    for name in ("/dev/shm", os.environ.get("XDG_RUNTIME_DIR", "")):  # noqa: S108 - the folder inside is 0700
        if name in in_memory and os.access(name, os.W_OK):
            return Path(name)
    raise PermanentError(
        "no folder in memory for Ansible's private data: neither /dev/shm nor XDG_RUNTIME_DIR is a tmpfs.\n"
        "  mount one    mount -t tmpfs -o mode=1777 tmpfs /dev/shm"
    )


def _environment() -> dict[str, str]:
    home = Path.home() / ".ansible"
    return _ENVIRONMENT | {
        # ANSIBLE_HOME is on tmpfs; what a user installed stays where it is looked for.
        "ANSIBLE_COLLECTIONS_PATH": f"{home}/collections:/usr/share/ansible/collections",
        "ANSIBLE_ROLES_PATH": f"{home}/roles:/usr/share/ansible/roles:/etc/ansible/roles",
    }
