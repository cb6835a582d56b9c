"""`istioctl analyze`: what Istio itself holds against its objects (port Analyzer)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from engine.core.action import Deadline
from engine.core.ports import Manifest, Objection, Reference
from engine.core.processes import Finished, Launcher
from engine.errors import PermanentError, TemporaryError

_NOT_FOUND = "IST0101"  # "Referenced host (gateway, …) not found"
_UNREADABLE = "error processing "
_PASSING = ("connection refused", "i/o timeout", "TLS handshake timeout", "context deadline exceeded")


class Istioctl:
    """Objects go by standard input, never a Secret among them; what it says of foreign live objects is left out."""

    def __init__(self, program: str, kubeconfig: Path, context: str, launcher: Launcher) -> None:
        self._program = program
        self._access = ["--kubeconfig", str(kubeconfig), "--context", context]
        self._launcher = launcher

    def analyze(self, manifests: Sequence[Manifest], *, live: bool, deadline: Deadline) -> Sequence[Objection]:
        """See Analyzer. What istioctl cannot read is an objection too: it would skip it, and say all is well."""
        given = [m for m in manifests if m["kind"] != "Secret"]
        where = self._access if live else ["--use-kube=false", "--suppress", f"{_NOT_FOUND}=*"]
        argv = [self._program, "analyze", "-", "--all-namespaces", "--output", "json", *where]
        argv += ["--timeout", f"{max(1, int(deadline.remaining()))}s"]
        done = self._launcher.run(argv, deadline=deadline, stdin=yaml.safe_dump_all(map(dict, given)).encode())
        ours = {str(Reference.of(m)): m for m in given}
        return [*_unreadable(done, given), *(o for o in _objections(done) if o.object in ours)]


def _objections(done: Finished) -> list[Objection]:
    """What it printed. Found errors are exit 0 here or not, by version: only an answer that is no list is a failure."""
    try:
        messages = json.loads(done.stdout)
    except ValueError:
        raise _failure(done) from None
    return [
        Objection(m.get("origin", ""), m["code"], m["message"], m["level"] == "Error", m["code"] == _NOT_FOUND)
        for m in messages
        if m.get("code")
    ]


def _unreadable(done: Finished, given: Sequence[Manifest]) -> list[Objection]:
    """Objects that could not be parsed: told once more in a summary, and in a log line that is left out."""
    found = {}
    for line in done.stderr.splitlines():
        text = line.strip().removeprefix("* ")
        if not text.startswith(_UNREADABLE) or "[" not in text:
            continue
        number, _, reason = text.partition("[")[2].partition("]: ")
        manifest = given[int(number)] if number.isdigit() and int(number) < len(given) else None
        found[number] = Objection(str(Reference.of(manifest)) if manifest else "", "unreadable", reason, True)
    return list(found.values())


def _failure(done: Finished) -> PermanentError | TemporaryError:
    text = done.stderr.strip().removeprefix("Error: ") or f"exit {done.code}"
    message = f"istioctl analyze: {text[:500]}"
    return TemporaryError(message) if any(words in text for words in _PASSING) else PermanentError(message)
