"""A plan on disk: written by `plan --out`; run by `deploy --plan` only while all it was made of is the same."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.change import Change
from engine.core.events import digest_of
from engine.core.model import StepId
from engine.core.planning import Plan
from engine.errors import RefusedError, UsageError
from engine.report.documents import plan_document

if TYPE_CHECKING:
    from engine.run.session import Session

_CONTENT = ("schema", "environment", "runbook", "target", "inputs", "variables", "changes", "left_out")
"""What the digest covers; the rest of the file is counts for a reader."""


def save(plan: Plan, path: Path) -> None:
    """Write the plan, for its owner only, whole or not at all. UsageError when that is not possible."""
    text = json.dumps(plan_document(plan), indent=2, ensure_ascii=False) + "\n"
    try:
        if path.exists() and not path.is_file():  # a folder, or a device, which renaming would replace
            raise UsageError(f"plan file {path}: not a regular file. Nothing was touched.")
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=".plan-")  # 0600
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(f"plan file {path}: {error.strerror}. Nothing was touched.") from error


def load(path: Path, session: Session) -> Plan:
    """Read a plan back. RefusedError when it was altered, or made of other files, variables, or for another target."""
    document = _read(path)
    if digest_of({name: document[name] for name in _CONTENT}) != document["digest"]:
        raise RefusedError(f"plan file {path}: altered since it was written. Plan again. Nothing was changed.")
    plan = Plan(
        environment=document["environment"],
        runbook=document["runbook"],
        target=document["target"],
        inputs=document["inputs"],
        variables=document["variables"],
        changes={StepId(c["step"]): Change.from_json(c) for c in document["changes"]},
        reasons={StepId(s): why for s, why in document["left_out"].items()},
    )
    moved = _moved(plan, session)
    if moved:
        raise RefusedError(
            f"plan file {path} no longer fits: {'; '.join(moved)}. Nothing was changed.\n"
            f"  plan again   runbook plan {session.environment} --out {path}"
        )
    return plan


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"plan file {path}: {error.strerror}. Nothing was touched.") from error
    except ValueError as error:
        raise UsageError(f"plan file {path}: no JSON ({error}). Nothing was touched.") from error
    if not isinstance(document, dict) or document.get("schema") != 1 or not {*_CONTENT, "digest"} <= document.keys():
        raise UsageError(f"plan file {path}: not a plan of `runbook plan --out`. Nothing was touched.")
    return document


def _moved(plan: Plan, session: Session) -> list[str]:
    """Whatever of the plan's foundations is not what it was, in words."""
    pairs = [
        ("made for environment {0}, not {1}", plan.environment, session.environment),
        ("made of runbook {0}, not {1}", plan.runbook, session.runbook.name),
        ("the runbook's files changed since", plan.inputs, session.inputs),
        ("the inventory's variables changed since", plan.variables, session.variables),
        ("it was made against another cluster", plan.target, session.target),
    ]
    return [text.format(planned, now) for text, planned, now in pairs if planned != now]
