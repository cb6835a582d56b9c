"""The deployment record as Markdown, from one run's fold: what was done, what proved it, and what stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.core.evidence import Beside
from engine.core.history import RunStatus, RunView, StepStatus, StepView
from engine.report import drill as drills
from engine.report import tally
from engine.report.people import people
from engine.report.readiness import drill_row, readiness_rows, verdict
from engine.report.text import clean, clean_lines, columns, count, duration

_OBJECTS = 6  # named per step; the journal has them all
_MARKUP = str.maketrans({character: f"\\{character}" for character in "\\`|<[*"})


def render(view: RunView, beside: Beside | None = None) -> str:
    """The whole document. The same view gives the same text, so that its hash means something. `beside`: what else the
    journal held of the environment."""
    told = beside or Beside()
    parts = [
        _header(view),
        _section("Result", _result(view)),
        _section("Phases", _phases(view)),
        _section("Failure", _failure(view)),
        _section("Changes", _changes(view)),
        _section("Checks", _checks(view)),
        _section("Evidence", _evidence(view)),
        _section("Readiness", _readiness(told)),
        _section("Drills", _drills(told)),
        _section("People", _people(view)),
        _section("What stays on purpose", _residue(view)),
        _section("No way back", _barriers(view)),
        _section("How to verify this record", _verifying(view)),
    ]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _header(view: RunView) -> list[str]:
    running = view.status in (RunStatus.RUNNING, RunStatus.ROLLING_BACK)
    status = f"{view.status} when this was written" if running else str(view.status)
    rows = [
        ("Environment", _text(view.environment)),
        ("Runbook", _text(view.runbook)),
        ("Run", _code(view.id)),
        ("Drill", _text(f"{view.drill['id']}: {view.drill['title']}") if view.kind == "drill" else ""),
        ("Status", status),
        ("By", _text(view.holder)),
        ("Started", view.started),
        ("Finished", view.finished),
        ("Plan", _code(f"sha256:{view.plan_digest}") if view.plan_digest else ""),
        ("Kept inputs", _code(f"sha256:{view.inputs}") if view.inputs else ""),
        ("Resumed", count(view.resumed, "time") if view.resumed else ""),
    ]
    title = _text(view.title or view.runbook)
    return [f"# {record_name(view)}: {title} on {_text(view.environment)}", "", *_table(("", ""), _filled(rows)), ""]


def record_name(view: RunView) -> str:
    """What this document is."""
    return "Drill record" if view.kind == "drill" else "Deployment record"


def _result(view: RunView) -> list[str]:
    """Of a drill: what it measured, beside the targets, and how the recovery's time is made up."""
    rows = [(_text(m.what), _text(m.got), m.target, "met" if m.met else "missed") for m in drills.measures(view)]
    spent = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in drills.parts(view))
    table = _table(("", "Measured", "Target", ""), rows) if rows else []
    made_up = ["", f"Time to recover: {spent}."] if spent else []
    ending = [_text(line) for line in drills.ending_lines(view)] if view.kind == "drill" else []
    return [*ending, *([""] if table and ending else []), *table, *made_up]


def _phases(view: RunView) -> list[str]:
    rows = []
    for phase in tally.phases(view):
        time = duration(phase.seconds) if phase.seconds else ""
        state = "passed" if phase.finished else "failed" if phase.broken else "open" if phase.begun else "not begun"
        steps = f"{phase.done} of {len(phase.steps)}"
        rows.append((str(phase.number), _text(phase.title), state, steps, str(phase.changed), time))
    return _table(("", "Phase", "", "Steps done", "Changed", "Time"), rows) if rows else []


def _failure(view: RunView) -> list[str]:
    if not view.failure:
        return []
    said = [f"> {line.translate(_MARKUP)}  " for line in clean_lines(view.failure)]
    undone = [s for s in view.steps.values() if s.status in (StepStatus.UNDONE, StepStatus.UNDO_FAILED)]
    rows = [(_code(s.id), str(s.status), _text(s.undo_detail)) for s in undone]
    table = ["", *_table(("Step", "", "Taken back"), rows)] if rows else []
    return [f"{_code(view.failed_step)} failed:", "", *said, *table]


def _changes(view: RunView) -> list[str]:
    """Every step that began to act, also when it was taken back: `Status` tells whether it stands."""
    rows = [
        (_code(s.id), _text(s.name), str(s.verb), str(s.fidelity), str(s.status), _objects(s), _text(s.summary))
        for s in view.steps.values()
        if s.intents
    ]
    if not rows:
        return [f"Nothing was changed; {count(tally.unchanged(view), 'step')} found as declared."]
    return _table(("Step", "Name", "What", "Planned as", "Status", "Objects", "Outcome"), rows)


def _checks(view: RunView) -> list[str]:
    rows = [
        (_code(s.id), _text(c.check), "passed" if c.ok else "failed", _saw(c.saw, c.proved_at), c.at)
        for s in view.steps.values()
        for c in s.checks.values()
    ]
    passed = sum(c.ok for c in tally.checks(view))
    if not rows:
        return []
    return [f"{passed} of {count(len(rows), 'check')} passed.", "", *_table(("Step", "Check", "", "Saw", "At"), rows)]


def _saw(saw: str, proved_at: str) -> str:
    return f"{_text(saw)} (proved at {proved_at})" if proved_at else _text(saw)


def _evidence(view: RunView) -> list[str]:
    rows = [
        (_code(s.id), _text(s.action), "<br>".join(f"{_text(k)}: {_text(v)}" for k, v in flat(s.evidence)))
        for s in view.steps.values()
        if s.evidence
    ]
    return _table(("Step", "Event", "Left"), rows) if rows else []


def _readiness(told: Beside) -> list[str]:
    if told.readiness is None:
        return []
    head = f"{verdict(told.readiness)}. Judged at {told.readiness.at}."
    rows = [tuple(_text(cell) for cell in row) for row in readiness_rows(told.readiness)]
    return [head, "", *_table(("", "", "Criterion", "Evidence, or what is missing"), rows)]


def _drills(told: Beside) -> list[str]:
    rows = [tuple(_text(cell) for cell in drill_row(view)) for view in told.drills]
    return _table(("Drill", "When", "Lost", "Recovered in", ""), rows) if rows else []


def _people(view: RunView) -> list[str]:
    rows = [(_text(hand.who), _text(hand.what), _text(hand.at)) for hand in people(view)]
    return _table(("Who", "What", "When"), rows) if rows else []


def _residue(view: RunView) -> list[str]:
    rows = [(_code(s.id), ", ".join(_text(o) for o in s.change.residue)) for s in tally.with_residue(view) if s.change]
    if not rows:
        return []
    return ["A rollback of this run leaves these as they are.", "", *_table(("Step", "Objects"), rows)]


def _barriers(view: RunView) -> list[str]:
    return [f"- {_code(s.id)}: {_text(s.change.irreversible)}" for s in tally.without_way_back(view) if s.change]


def _verifying(view: RunView) -> list[str]:
    commands = [
        ("runbook history", "verifies the chain, as whatever opens the journal does"),
        (f"runbook show {clean(view.id)}", "the run as the journal tells it, to its end"),
        (f"runbook verify {clean(view.environment)}", "runs the checks again"),
    ]
    return [
        f"This record is derived from the journal up to event {view.sequence}, whose hash is",
        "",
        f"    {view.head}",
        "",
        "Each event's hash covers the one before, so the journal that holds this hash holds this history unchanged:",
        "",
        *columns(commands, indent="    ", gap="    "),
    ]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _filled(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [row for row in rows if row[1]]


def _objects(step: StepView) -> str:
    names = list(step.change.objects) if step.change else []
    shown = [_text(o) for o in names[:_OBJECTS]]
    return ", ".join([*shown, f"and {len(names) - _OBJECTS} more"] if len(names) > _OBJECTS else shown)


def flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested evidence as `recap.host.ok: 3`; what is empty says nothing."""
    for key, value in sorted(data.items()):
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif value not in ("", None):
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _text(text: object) -> str:
    """One line in which nothing is markup: names and messages come from outside."""
    return clean(str(text)).translate(_MARKUP)


def _code(text: str) -> str:
    """A name in a code span; a backtick or bar in it would end the span or the cell."""
    plain = clean(text)
    return f"`{plain}`" if plain and not set(plain) & {"`", "|"} else _text(text)
