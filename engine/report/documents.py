"""What `--json` prints: one document per command, `schema: 1`, described in docs/commands.md. Never a secret value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.core.drill import LOSS
from engine.core.evidence import Beside
from engine.core.history import CheckView, RunView, StepView
from engine.core.planning import Plan, barrier
from engine.errors import Diagnostic, FilesError, RunbookError
from engine.report import tally
from engine.report.drill import drill_document
from engine.report.people import people
from engine.report.readiness import readiness_document
from engine.report.status import EnvironmentStatus
from engine.report.summary import evidence_path, next_commands
from engine.report.text import between

SCHEMA = 1


def run_document(view: RunView, *, held: bool = False) -> dict[str, Any]:
    """One run in full: `deploy`, `resume`, `rollback`, `verify`, `show`."""
    return {
        "schema": SCHEMA,
        "run": {
            **run_head(view),
            **({"drill": drill_document(view)} if view.kind == "drill" else {}),
            "phases": [_phase(p) for p in tally.phases(view)],
            "steps": [_step(s) for s in view.steps.values()],
            "failure": {"step": view.failed_step, "error": view.failure} if view.failure else None,
            "rollback_to": view.rollback_to or None,
            "record": evidence_path(view) or None,
        },
        "next": [command for _, command in next_commands(view, held=held)],
    }


def record_document(view: RunView, beside: Beside | None = None) -> dict[str, Any]:
    """The deployment record: `report --format json`. A run in full, who had a hand in it, where in the journal; and
    beside it the environment's readiness and its newest drills, where there are any."""
    body = run_document(view)
    hands = [{"who": hand.who, "what": hand.what, "at": hand.at} for hand in people(view)]
    journal = {"sequence": view.sequence, "head": view.head}
    told = beside or Beside()
    more: dict[str, Any] = {}
    if told.readiness is not None:
        more["readiness"] = readiness_document(told.readiness)
    if told.drills:
        more["drills"] = [{"run": d.id, "drill": d.drill.get("id", ""), **d.steps[LOSS].evidence} for d in told.drills]
    return {"schema": SCHEMA, "run": body["run"], "people": hands, "journal": journal, **more}


def run_head(view: RunView) -> dict[str, Any]:
    """What a list of runs says of each: `history`, `status`."""
    return {
        "id": view.id,
        "kind": view.kind,
        "environment": view.environment,
        "runbook": view.runbook,
        "status": view.status.value,
        "exit": view.exit_code,
        "started": view.started,
        "finished": view.finished or None,
        "seconds": round(tally.seconds(view), 3),
        "holder": view.holder,
        "pid": view.pid,
        "plan": view.plan_digest,
        "inputs": view.inputs,
        "resumed": view.resumed,
        "head": view.head,
        "steps_total": len(view.steps),
        "steps_done": tally.done(view),
        "changed": tally.changed(view),
        "unchanged": tally.unchanged(view),
        "left_out": tally.left_out(view),
        "checks_passed": sum(c.ok for c in tally.checks(view)),
        "checks_failed": sum(not c.ok for c in tally.checks(view)),
        "checks_proved_earlier": sum(bool(c.proved_at) for c in tally.checks(view)),
    }


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as it is saved, with its digest and counts."""
    way_back = barrier(plan.changes.values())
    return {
        **plan.to_json(),
        "digest": plan.digest,
        "changes_wanted": len(plan.wanted),
        "verbs": plan.count(lambda c: c.verb.value),
        "fidelity": plan.count(lambda c: c.fidelity.value),
        "no_way_back_after": way_back.step if way_back else None,
    }


def status_document(statuses: Iterable[EnvironmentStatus]) -> dict[str, Any]:
    """Every environment with its newest run."""
    return {
        "schema": SCHEMA,
        "environments": [
            {
                "environment": s.name,
                "status": s.word,
                "held": s.held,
                "run": run_head(s.run) if s.run else None,
                "drill": {"run": s.drill.id, **drill_document(s.drill)} if s.drill else None,
                "in_doubt": [step.id for step in s.run.steps.values() if step.open_intent] if s.run else [],
                "next": [command for _, command in s.next],
            }
            for s in statuses
        ],
    }


def history_document(views: Iterable[RunView]) -> dict[str, Any]:
    """Every run, newest first."""
    return {"schema": SCHEMA, "runs": [run_head(v) for v in reversed(list(views))]}


def diagnostics_document(diagnostics: Iterable[Diagnostic]) -> dict[str, Any]:
    """What `lint` found."""
    found = list(diagnostics)
    return {
        "schema": SCHEMA,
        "errors": sum(d.severity == "error" for d in found),
        "warnings": sum(d.severity != "error" for d in found),
        "diagnostics": [_diagnostic(d) for d in found],
    }


def error_document(kind: str, message: str, exit_code: int, error: RunbookError | None = None) -> dict[str, Any]:
    """Whatever kept a command from its answer."""
    found = error.diagnostics if isinstance(error, FilesError) else ()
    body: dict[str, Any] = {"kind": kind, "message": message, "exit": exit_code}
    if found:
        body["diagnostics"] = [_diagnostic(d) for d in found]
    return {"schema": SCHEMA, "error": body}


def _diagnostic(diagnostic: Diagnostic) -> dict[str, Any]:
    place = diagnostic.position
    return {
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
    }


def _phase(phase: tally.PhaseTally) -> dict[str, Any]:
    return {
        "id": phase.id,
        "title": phase.title,
        "steps": len(phase.steps),
        "done": phase.done,
        "changed": phase.changed,
        "seconds": round(phase.seconds, 3),
        "finished": phase.finished,
    }


def _step(step: StepView) -> dict[str, Any]:
    return {
        "id": step.id,
        "phase": step.phase,
        "name": step.name,
        "action": step.action,
        "verb": step.verb.value if step.change else None,
        "fidelity": step.fidelity.value if step.change else None,
        "status": step.status.value,
        "started": step.started or None,
        "finished": step.finished or None,
        "seconds": round(between(step.started, step.finished), 3),
        "in_doubt": step.open_intent,
        "summary": step.summary,
        "reason": step.reason,
        "error": step.error or None,
        "evidence": dict(step.evidence),
        "undo": step.undo_detail or None,
        "residue": list(step.change.residue) if step.change else [],
        "checks": [_check(c) for c in step.checks.values()],
    }


def _check(check: CheckView) -> dict[str, Any]:
    return {
        "check": check.check,
        "ok": check.ok,
        "saw": check.saw,
        "at": check.at,
        "proved_at": check.proved_at or None,
    }
