"""`doctor`: is this machine able to run what the project needs? Looks only; one line per finding, with what to do."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.cli import options as o
from engine.cli.output import Output
from engine.errors import RunbookError
from engine.report.text import columns

_TOOLS = {
    "ansible-playbook": "playbook steps need it; it comes with this program's own installation",
    "helm": "release steps need it, unless the inventory's helm_program names another place",
    "git": "records name the revision they were made of",
}
_FREE_GIB = 12
"""For the local cluster: its own folder and its cache of built programs and images."""
_LAB_PORTS = (6443, 2379, 10250, 9000)


@dataclass(frozen=True, slots=True)
class Examined:
    """One thing looked at. `verdict`: ✓ good, ! may matter, ✗ stands in the way."""

    verdict: str
    what: str
    saw: str
    advice: str = ""


@o.speaking
def doctor(output: Output) -> int:
    """Look whether this machine can run the project, and say what to do where it can not. Exit 1 when it can not."""
    found = [*_machine(), *_tools(), _disk(), *_ports(), _project()]
    rows = [[f"{f.verdict} {f.what}", f.saw, f.advice] for f in found]
    output.answer({"schema": 1, "examined": [asdict(f) for f in found]}, columns(rows, gap="   "))
    return 1 if any(f.verdict == "✗" for f in found) else 0


def _machine() -> Iterator[Examined]:
    system = platform.system()
    good = system == "Linux"
    yield Examined("✓" if good else "✗", "system", f"{system} {platform.release()}", "" if good else "use Linux")
    version = ".".join(map(str, sys.version_info[:3]))
    yield Examined("✓", "python", version)
    root = os.geteuid() == 0
    advice = "" if root else "the local cluster needs root; else set `cluster: existing` and a kubeconfig context"
    yield Examined("✓" if root else "!", "user", "root" if root else f"uid {os.geteuid()}, not root", advice)


def _tools() -> Iterator[Examined]:
    beside = str(Path(sys.executable).parent)
    for tool, advice in _TOOLS.items():
        place = shutil.which(tool) or shutil.which(tool, path=beside)
        yield Examined("✓" if place else "!", tool, place or "not found", "" if place else advice)


def _disk() -> Examined:
    free = shutil.disk_usage("/var").free / 2**30
    good = free >= _FREE_GIB
    advice = "" if good else f"the local cluster needs {_FREE_GIB} GiB the first time"
    return Examined("✓" if good else "!", "disk", f"{free:.1f} GiB free under /var", advice)


def _ports() -> Iterator[Examined]:
    taken = [port for port in _LAB_PORTS if _answers(port)]
    saw = f"in use: {', '.join(map(str, taken))}" if taken else "free"
    advice = "fine when the local cluster runs; else free them, or set `cluster: existing`" if taken else ""
    yield Examined("!" if taken else "✓", "ports", saw, advice)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _project() -> Examined:
    from engine import wiring

    try:
        root = wiring.find_root(Path.cwd())
        journal = wiring.open_journal(root)
    except RunbookError as error:
        return Examined("✗", "project", str(error).partition("\n")[0], "go to a project's folder")
    try:
        return Examined("✓", "project", f"{root}, {journal.head[0]} events in its journal")
    finally:
        journal.close()
