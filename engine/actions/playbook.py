"""`playbook`: an Ansible playbook. NONE without starting Ansible while nothing it is made of has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from engine.actions.playbook_tree import parts_of
from engine.core.action import EXTRA_VARIABLES, CheckSpec, Context, Finding, Kind
from engine.core.change import (
    ABSENT,
    Change,
    Delta,
    DiffLine,
    Fidelity,
    Fingerprint,
    Outcome,
    Preimage,
    Reading,
    State,
    Verb,
)
from engine.core.events import digest_of
from engine.core.model import ObjectId
from engine.core.processes import PlaybookRecords, Playbooks, PlayResult
from engine.core.redaction import MASK, Secret
from engine.errors import CancelledError, NotYetError, PermanentError, RunbookError, TemporaryError

_LOOK_EVERY = 2.0  # seconds, while what was just set up comes up
_INTERRUPTED = Fingerprint(unfinished="interrupted")


class PlaybookParams(BaseModel):
    """One playbook, on the environment's inventory."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        description="The playbook, relative to the runbook's folder or the project's root.",
        json_schema_extra={"runbook-file": True},
    )
    vars: dict[str, Any] = Field(default_factory=dict, description="Extra variables; their values are never rendered.")
    limit: str = Field(default="", description="Only these hosts: an Ansible pattern.")
    tags: list[str] = Field(default_factory=list, description="Only tasks with one of these tags.")


class PlaybookAction:
    """What the last success was made of is recorded per step; `unless` checks look whether it still holds.

    The author writes the way back: `undo:` with a playbook of its own. Without one its effects are residue.
    """

    key: ClassVar[str] = "playbook"
    kind: ClassVar[Kind] = Kind.STATE
    Params: ClassVar[type] = PlaybookParams
    Undo: ClassVar[Any] = str | PlaybookParams
    """What `undo:` may be: a playbook's path, or the same parameters as the step's."""

    def __init__(
        self,
        playbooks: Playbooks,
        records: PlaybookRecords,
        look: Callable[[CheckSpec, Context], Finding],
        environment: str,
        inventory: str,
        target: Callable[[], str] = lambda: "",
    ) -> None:
        """`look` runs one check once; `inventory` is the environment's inventory folder as `ctx.inputs` names it.

        `target` tells which cluster the environment is (its uid; empty while it does not answer): what a playbook
        did to one that is gone says nothing about its successor.
        """
        self._playbooks = playbooks
        self._records = records
        self._look = look
        self._environment = environment
        self._inventory = inventory
        self._target = target

    def read(self, params: PlaybookParams, ctx: Context) -> Reading:
        """The record, and what the `unless` checks say when it is of today's files and variables.

        NotYetError when its cluster does not answer and no check can look: an earlier step brings it back.
        """
        parts = self._parts(params, ctx)
        wanted, record = digest_of(parts), self._records.read(ctx.step) or {}
        seen, why = _recorded(record), ""
        if seen == _done(wanted):
            why = self._drift(ctx) or self._moved(record, ctx)
            seen = Fingerprint(f"drifted:{wanted}") if why else seen
        detail = {"parts": parts, "was": record.get("parts", {}), "why": why}
        return Reading({} if seen.absent else {self._object(params): seen}, detail)

    def plan(self, params: PlaybookParams, now: Reading, ctx: Context) -> Change:
        parts, why = now.detail["parts"], now.detail["why"]
        name = self._object(params)
        before, after = now.state.get(name, ABSENT), _done(digest_of(parts))
        if before == after:
            delta = Delta(before, after, (), ABSENT if ctx.undo_params else None)
            looked = f", {len(ctx.unless)} check(s) looked" if ctx.unless else ""
            return Change(
                step=ctx.step,
                verb=Verb.NONE,
                fidelity=Fidelity.PREDICTED if ctx.unless else Fidelity.ASSUMED,
                objects={name: delta},
                reason=f"files, variables and hosts are those of the last success{looked}",
            )
        diff = _diff(now.detail["was"], parts)
        if why:
            diff = (*diff, DiffLine("still holds", "yes", "no", note=why))
        return Change(
            step=ctx.step,
            verb=Verb.RUN,
            fidelity=Fidelity.OPAQUE,
            objects={name: Delta(before, after, diff, ABSENT if ctx.undo_params else None)},
            reason="interrupted before, so it runs again" if before == _INTERRUPTED else "",
        )

    def capture(self, params: PlaybookParams, change: Change, now: Reading, ctx: Context) -> Preimage:
        return Preimage()

    def apply(self, params: PlaybookParams, change: Change, ctx: Context) -> Outcome:
        """Run it, then wait until the `unless` checks pass: they are what tells that it is done."""
        parts = self._parts(params, ctx)
        # From here to the end the host is neither what the last record says nor what this one will.
        self._records.write(ctx.step, {"interrupted": True, "parts": parts})
        result = self._play(params, ctx)
        while why := self._drift(ctx):
            ctx.deadline.check(f"{ctx.step}: the playbook ended well, but {why}")
            ctx.progress(f"waiting: {why}")
            ctx.deadline.wait(_LOOK_EVERY)
        record = {"digest": digest_of(parts), "parts": parts, "at": ctx.now.isoformat(), "target": self._target()}
        self._records.write(ctx.step, record)
        return Outcome(summary=_summary(result), evidence={"recap": {h: dict(c) for h, c in result.recap.items()}})

    def read_back(self, params: PlaybookParams, change: Change, preimage: Preimage, ctx: Context) -> State:
        """By the record alone: a check that fails meanwhile does not make it somebody else's."""
        seen = _recorded(self._records.read(ctx.step) or {})
        return {} if seen.absent else {self._object(params): seen}

    def undo(self, params: PlaybookParams, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        """Run the author's undo playbook: a path, or the same parameters as the step's."""
        if not ctx.undo_params:
            return Outcome(summary="stays: the playbook has no undo")
        given = ctx.undo_params
        back = PlaybookParams.model_validate({"path": given} if isinstance(given, str) else given)
        result = self._play(back, ctx)
        self._records.remove(ctx.step)
        return Outcome(summary=f"{back.path}: {_summary(result)}")

    def checks(self, params: PlaybookParams) -> Sequence[CheckSpec]:
        return ()

    def _play(self, params: PlaybookParams, ctx: Context) -> PlayResult:
        result = self._playbooks.run(
            ctx.inputs.path(params.path),
            ctx.inputs.path(self._inventory),
            _variables(params, ctx),
            limit=params.limit,
            tags=params.tags,
            progress=ctx.progress,
            deadline=ctx.deadline,
        )
        if result.ok:
            return result
        away = any(counts.get("unreachable") for counts in result.recap.values())
        raise (TemporaryError if away else PermanentError)(f"{ctx.step}: {params.path}: {result.failure}")

    def _parts(self, params: PlaybookParams, ctx: Context) -> dict[str, str]:
        """Digest of everything that decides what the playbook does, by name."""
        folder = PurePosixPath(params.path).parent
        names = [str(folder / name) for name in parts_of(ctx.inputs.path(params.path))]
        return {
            **{name: ctx.inputs.digest_of(name) for name in names},
            "inventory": ctx.inputs.digest_of(self._inventory),
            "variables": digest_of(_masked(_variables(params, ctx))),
            "selection": digest_of([params.limit, params.tags]),
        }

    def _drift(self, ctx: Context) -> str:
        """Why it is not done although the record says so: the first `unless` check that fails. Empty: it is."""
        for spec in ctx.unless:
            try:
                finding = self._look(spec, ctx)
            except CancelledError:
                raise
            except RunbookError as error:  # what it asks is not there, so it is not as the playbook leaves it
                return f"{spec.describe()}: {str(error).splitlines()[0]}"
            if not finding.ok:
                return f"{spec.describe()}: {finding.saw}"
        return ""

    def _moved(self, record: Mapping[str, Any], ctx: Context) -> str:
        """Why the record does not count: it is of another cluster. Empty: it does."""
        then, now = record.get("target", ""), self._target()
        if then and not now and not ctx.unless:
            raise NotYetError(f"{ctx.step}: done for cluster {then[:8]}, which does not answer")
        return "last done for another cluster" if then and now and then != now else ""

    def _object(self, params: PlaybookParams) -> ObjectId:
        return ObjectId(f"playbook {params.path} on {self._environment}")


def _done(digest: str) -> Fingerprint:
    return Fingerprint(f"done:{digest}")


def _recorded(record: Mapping[str, Any]) -> Fingerprint:
    if record.get("interrupted"):
        return _INTERRUPTED
    return _done(record["digest"]) if record.get("digest") else ABSENT


def _masked(value: Any) -> Any:
    """Without the secrets: a digest of a short one could be guessed. A new value alone does not run it again."""
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, Mapping):
        return {str(k): _masked(v) for k, v in value.items()}
    return [_masked(v) for v in value] if isinstance(value, list | tuple) else value


def _diff(was: Mapping[str, str], parts: Mapping[str, str]) -> tuple[DiffLine, ...]:
    """One line per part that is not as it was; nothing when it never ran."""
    names = [name for name in sorted({*was, *parts}) if was and was.get(name) != parts.get(name)]
    return tuple(DiffLine(name, _short(was.get(name)), _short(parts.get(name))) for name in names)


def _short(digest: str | None) -> str | None:
    return digest[:12] if digest else None


def _summary(result: PlayResult) -> str:
    hosts = len(result.recap)
    return f"{result.changed} changed on {hosts} host{'s' if hosts != 1 else ''}"


def _variables(params: PlaybookParams, ctx: Context) -> dict[str, Any]:
    """The step's variables, and over them the user's `-e`, as Ansible ranks them."""
    return {**params.vars, **ctx.variables.get(EXTRA_VARIABLES, {})}
