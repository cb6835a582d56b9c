"""Joins what readiness is judged on: criteria, the journal, files, and attestations with their signatures verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.action import Deadline
from engine.core.attestation import NAMESPACE, Attestation, attestations
from engine.core.checklist import Checklist
from engine.core.events import Event, EventType
from engine.core.evidence import (
    Beside,
    Criteria,
    Criterion,
    Holdings,
    Proof,
    ProofKind,
    Readiness,
    judge,
    newest_drills,
)
from engine.core.history import RunView, runs
from engine.errors import PermanentError, RefusedError, UsageError
from engine.load.document import guess, listed
from engine.load.format import duration
from engine.load.proofs import outside
from engine.load.readiness import has_readiness, load_readiness, read_readiness
from engine.load.runbook import LoadedRunbook, read_runbook
from engine.registry import ACTION_TYPES, CHECK_TYPES, EVENTS

if TYPE_CHECKING:
    from engine.core.signatures import Signatures

SIGNERS = "allowed_signers"
_PATIENCE = 30.0  # seconds for one call of ssh-keygen


def readiness(root: Path, environment: str, runbook: str | None, events: Sequence[Event]) -> Readiness:
    """GO or NO-GO by the journal as it is now. UsageError, FilesError."""
    from engine import wiring

    loaded = wiring.load(root, runbook, environment)
    criteria = load_readiness(root, loaded)
    return judge(criteria, _holdings(root, environment, loaded, criteria, events, datetime.now(UTC)))


def beside(root: Path, view: RunView, events: Sequence[Event], now: datetime) -> Beside:
    """What a record of a run tells beside it: all that the journal held until the environment's next deploy.

    Criteria are those of the run's kept inputs; without them there is no readiness to tell of.
    """
    upto, at = _until_next_deploy(view, events, now)
    found = newest_drills(list(runs(upto).values()), view.environment)
    kept = _kept(root, view)
    if kept is None:
        return Beside(None, found)
    loaded, criteria = kept
    return Beside(judge(criteria, _holdings(root, view.environment, loaded, criteria, upto, at)), found)


def record_forms(root: Path, view: RunView, events: Sequence[Event], now: datetime) -> Mapping[str, str]:
    """The deployment record by suffix: Markdown, one HTML file that asks for nothing outside it, JSON."""
    from engine.report.documents import record_document
    from engine.report.html import render_html
    from engine.report.record import render

    told = beside(root, view, events, now)
    document = json.dumps(record_document(view, told), indent=2, ensure_ascii=False) + "\n"
    return {"md": render(view, told), "html": render_html(view, told), "json": document}


def checklist(root: Path, runbook: str | None) -> Checklist:
    """The runbook's checklist. UsageError, FilesError."""
    from engine import wiring
    from engine.load.checklist import load_checklist

    loaded = wiring.load(root, runbook, None)
    attestable = load_readiness(root, loaded).attestable if has_readiness(loaded) else {}
    return load_checklist(root, loaded, attestable)


def attest(
    root: Path,
    environment: str,
    runbook: str | None,
    name: str,
    *,
    statement: str,
    by: str,
    valid_for: str,
    file: Path | None,
    key: Path,
) -> Attestation:
    """Sign a statement and journal it. `name`: an attestation, or a criterion that one shows.

    UsageError for what cannot be stated or is missing, RefusedError when the key is nobody's who may sign.
    """
    from engine import wiring

    loaded = wiring.load(root, runbook, environment)
    criteria = load_readiness(root, loaded)
    subject = criteria.attestable[_subject(criteria, name)]
    if not statement.strip():
        raise UsageError("a statement needs words: --statement 'who found what, when'")
    signers = _allowed_signers(root, environment)
    signatures = _signatures(root, environment)
    now = datetime.now(UTC).replace(microsecond=0)
    evidence, digest = _evidence(root, file) if file else ("", "")
    unsigned = Attestation(
        environment=environment,
        runbook=loaded.runbook.name,
        subject=subject.id,
        statement=statement.strip(),
        by=by or _principal(signatures, signers, key, environment),
        at=now.isoformat(),
        until=(now + _term(valid_for, subject.valid_for, subject.id)).isoformat(),
        file=evidence,
        sha256=digest,
    )
    signature = signatures.sign(unsigned.document(), key=key, namespace=NAMESPACE, deadline=Deadline(_PATIENCE))
    made = replace(unsigned, signature=signature)
    if wrong := _untrue(made, signatures, signers, now):
        raise RefusedError(f"{wrong}\n{_how_to_allow(environment, made.by)}\nNothing was journaled.")
    journal = wiring.open_journal(root)
    try:
        journal.append(EventType.ATTESTED, "", "", made.to_json())
    finally:
        journal.close()
    return made


def _holdings(
    root: Path,
    environment: str,
    loaded: LoadedRunbook,
    criteria: Criteria,
    events: Sequence[Event],
    now: datetime,
) -> Holdings:
    stated = attestations(events, environment, loaded.runbook.name)
    return Holdings(
        environment=environment,
        runbook=loaded.runbook.name,
        now=now,
        runs=list(runs(events).values()),
        events=EVENTS,
        files={p.name: _file_trouble(root, p.name) for p in _proofs(criteria) if p.kind is ProofKind.FILE},
        attestations=stated,
        untrue=_all_untrue(root, environment, stated),
    )


def _proofs(criteria: Criteria) -> list[Proof]:
    return [p for c in (*criteria.go, *criteria.no_go) for p in c.proofs]


def _kept(root: Path, view: RunView) -> tuple[LoadedRunbook, Criteria] | None:
    from engine import wiring
    from engine.load.inputs import KeptInputs

    try:
        inputs = KeptInputs.open(root / wiring.STATE, view.inputs)
    except (UsageError, PermanentError):
        return None
    loaded, _ = read_runbook(inputs.tree, view.runbook, ACTION_TYPES, CHECK_TYPES, inputs.variables)
    if not has_readiness(loaded):
        return None
    criteria, _ = read_readiness(inputs.tree, loaded)
    return (loaded, criteria) if criteria else None


def _until_next_deploy(view: RunView, events: Sequence[Event], now: datetime) -> tuple[list[Event], datetime]:
    begun = next((e.sequence for e in events if e.run == view.id), 0)
    for index, event in enumerate(events):
        if event.sequence <= begun or event.type is not EventType.RUN_STARTED:
            continue
        if event.data["kind"] == "deploy" and event.data["environment"] == view.environment:
            return list(events[:index]), datetime.fromisoformat(event.at)
    return list(events), now


def _file_trouble(root: Path, name: str) -> str:
    if wrong := outside(root, name):
        return wrong
    try:
        return "" if (root / name).stat().st_size else "is empty"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


# --- Attestations -----------------------------------------------------------------------------------------------------


def _subject(criteria: Criteria, name: str) -> str:
    """The attestation that is meant. UsageError says what shows a criterion that nobody can state."""
    if name in criteria.attestable:
        return name
    of = {c.id: c for c in (*criteria.go, *criteria.no_go)}
    if name in of:
        return _only_attestation(of[name])
    known = [*criteria.attestable, *(n for n, c in of.items() if _attested(c))]
    raise UsageError(f'nothing "{name}" can be stated{guess(name, known)} (there is: {listed(criteria.attestable)})')


def _only_attestation(criterion: Criterion) -> str:
    found = _attested(criterion)
    if not found:
        shown = ", ".join(str(p) for p in criterion.proofs)
        raise UsageError(f'"{criterion.id}" cannot be stated: the journal must show it ({shown})')
    if len(found) > 1:
        raise UsageError(f'"{criterion.id}" needs several statements: name one of {listed(found)}')
    return found[0]


def _attested(criterion: Criterion) -> list[str]:
    return [p.name for p in criterion.proofs if p.kind is ProofKind.ATTESTATION]


def _term(text: str, most: timedelta, subject: str) -> timedelta:
    if not text:
        return most
    try:
        found = duration(text)
    except ValueError as error:
        raise UsageError(f"--valid-for {text}: {error}") from error
    if not timedelta(0) < found <= most:
        raise UsageError(f"--valid-for {text}: a statement on {subject} counts at most {most.days} days")
    return found


def _evidence(root: Path, file: Path) -> tuple[str, str]:
    """The file's name within the project and its SHA-256. UsageError."""
    path = file.resolve()
    if not path.is_relative_to(root.resolve()):
        raise UsageError(f"--file {file}: evidence must be inside the project, so that it is kept with it")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--file {file}: {error.strerror}") from error
    if not content:
        raise UsageError(f"--file {file}: is empty")
    return path.relative_to(root.resolve()).as_posix(), hashlib.sha256(content).hexdigest()


def _principal(signatures: Signatures, signers: str, key: Path, environment: str) -> str:
    """Whose key it is by the file. RefusedError when nobody's, UsageError when it may be one of several."""
    deadline = Deadline(_PATIENCE)
    probe = signatures.sign(b"", key=key, namespace=NAMESPACE, deadline=deadline)
    found = signatures.principals(probe, allowed_signers=signers, deadline=deadline)
    names = [n for n in ",".join(found).split(",") if n]
    if not names:
        raise RefusedError(
            f"the key {key} is nobody's in inventories/{environment}/{SIGNERS}.\n"
            f"{_how_to_allow(environment, 'NAME')}\nNothing was journaled."
        )
    if len(names) > 1 or set(names[0]) & set("*?!"):
        raise UsageError(f"the key {key} may be {', '.join(names)}: say which with --by")
    return names[0]


def _how_to_allow(environment: str, name: str) -> str:
    return (
        f'  allow a key   a line in inventories/{environment}/{SIGNERS}:  {name} namespaces="{NAMESPACE}" '
        "ssh-ed25519 AAAA… (from the key's .pub)"
    )


def _allowed_signers(root: Path, environment: str) -> str:
    """UsageError when there is no such file, with how to write it."""
    path = root / "inventories" / environment / SIGNERS
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise UsageError(
            f"inventories/{environment}/{SIGNERS} {why}: it says whose signatures count here.\n"
            f"{_how_to_allow(environment, 'NAME')}"
        ) from error


def _signatures(root: Path, environment: str) -> Signatures:
    from engine import wiring
    from engine.adapters.launcher import ProcessLauncher
    from engine.adapters.ssh_signature import SshSignatures
    from engine.core.redaction import Redactor

    return SshSignatures(ProcessLauncher(root / wiring.STATE, Redactor(), environment))


def _all_untrue(root: Path, environment: str, stated: Sequence[Attestation]) -> Mapping[Attestation, str]:
    """Which do not hold, and why: the signature, who may sign now, and the evidence as it is now."""
    if not stated:
        return {}
    try:
        signers = _allowed_signers(root, environment)
    except UsageError as error:
        return {a: str(error).partition(":")[0] for a in stated}
    signatures = _signatures(root, environment)
    return {
        a: _untrue(a, signatures, signers, datetime.fromisoformat(a.journaled)) or _altered(root, a) for a in stated
    }


def _untrue(said: Attestation, signatures: Signatures, signers: str, at: datetime) -> str:
    try:
        signatures.verify(
            said.document(),
            said.signature,
            allowed_signers=signers,
            principal=said.by,
            namespace=NAMESPACE,
            deadline=Deadline(_PATIENCE),
            at=at,
        )
    except PermanentError as error:
        return str(error)
    return ""


def _altered(root: Path, said: Attestation) -> str:
    if not said.file:
        return ""
    try:
        content = (root / said.file).read_bytes()
    except OSError as error:
        return f"its evidence {said.file} cannot be read ({error.strerror})"
    return "" if hashlib.sha256(content).hexdigest() == said.sha256 else f"its evidence {said.file} was altered"
