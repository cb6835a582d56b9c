"""`release`: a Helm release. Helm renders and applies; what would change the API server says, object by object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from engine.actions.chart import DEPLOYED, Rendered, chart_version, kept, recorded, rendered
from engine.actions.objects import delta_of, fidelity_of, holds_data, sealed, state_of, verb_of
from engine.actions.rollout import wait_ready
from engine.core.action import CheckSpec, Context, Kind
from engine.core.change import ABSENT, Change, Delta, Fingerprint, Outcome, Preimage, Reading, State, Verb
from engine.core.look import after, fingerprint, owned
from engine.core.model import ObjectId
from engine.core.names import namespace
from engine.core.ports import Cluster, Helm, Look, Manifest, Reference, ReleaseRecord
from engine.errors import PermanentError, RefusedError, UsageError

MANAGER = "helm"
Namespace = Annotated[str, AfterValidator(namespace)]
_PRESENT = Fingerprint("present")


class ReleaseParams(BaseModel):
    """A chart and its values."""

    model_config = ConfigDict(extra="forbid")

    chart: str = Field(description="A chart's folder or archive.", json_schema_extra={"runbook-file": True})
    name: str | None = Field(default=None, description="Name of the release; default: the step's id.")
    namespace: Namespace = Field(description="Namespace of the release; it must exist.")
    values: list[str] = Field(
        default_factory=list, description="Values files; a later one wins.", json_schema_extra={"runbook-file": True}
    )
    files: dict[str, str] = Field(
        default_factory=dict,
        description="Values that are a text file, or a folder's files by name: KEY or KEY.KEY to its path.",
        json_schema_extra={"runbook-file": True},
    )
    set: dict[str, Any] = Field(default_factory=dict, description="Values over those of the files, nested as in them.")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What `read` found."""

    new: Rendered
    records: Sequence[ReleaseRecord]
    old: Rendered | None
    """Of the last revision that was deployed."""
    looks: Mapping[ObjectId, Look]
    dropped: Mapping[ObjectId, Look]
    """Objects of the deployed revision that are no longer rendered and will be deleted."""
    upgrade: bool


class ReleaseAction:
    """Each rendered object is one object, the release record another (`helm/NAMESPACE/NAME`), each CRD of `crds/` one
    whose presence alone counts.

    Undo is a rollback to the deployed revision, or for a first install an uninstall that keeps what
    `helm.sh/resource-policy: keep` marks. What was drifted is not drifted again: undo reaches the recorded revision.
    """

    key: ClassVar[str] = "release"
    kind: ClassVar[Kind] = Kind.STATE
    Params: ClassVar[type] = ReleaseParams

    def __init__(self, helm: Helm, cluster: Cluster) -> None:
        self._helm = helm
        self._cluster = cluster

    def read(self, params: ReleaseParams, ctx: Context) -> Reading:
        name = _name(params, ctx)
        records = self._helm.records(params.namespace, name)
        deployed = next((r for r in records if r.status == DEPLOYED), None)
        new = self._render(params, ctx, upgrade=deployed is not None)
        old = recorded(deployed, name, params.namespace, self._cluster) if deployed else None
        looks = self._look(new.objects)
        gone = {o: m for o, m in old.objects.items() if o not in new.objects and not kept(m)} if old else {}
        dropped = self._look(gone, dry_run=False)
        crds = self._look(new.crds, dry_run=False)
        state = {o: state_of(look, MANAGER, ctx) for o, look in looks.items()}
        state |= {o: fingerprint(look.live, owned(look.live, MANAGER)) for o, look in dropped.items()}
        state |= {o: _PRESENT if look.live else ABSENT for o, look in crds.items()}
        state[_record_id(params, ctx)] = self._record_state(records, old, name, params.namespace)
        return Reading(state, _Seen(new, records, old, looks, dropped, upgrade=deployed is not None))

    def plan(self, params: ReleaseParams, now: Reading, ctx: Context) -> Change:
        seen: _Seen = now.detail
        self._refuse_pending(seen, params, ctx)
        deltas = {o: delta_of(look, now.state[o], MANAGER, undo_to=now.state[o]) for o, look in seen.looks.items()}
        deltas |= {o: Delta(now.state[o], ABSENT, undo_to=now.state[o]) for o in seen.dropped}
        deltas |= {o: Delta(now.state[o], _PRESENT, undo_to=None) for o in seen.new.crds}
        record = _record_id(params, ctx)
        deltas[record] = Delta(now.state[record], seen.new.record(), undo_to=now.state[record])
        verb = verb_of(deltas.values())
        irreversible, notes = None, []
        if verb is not Verb.NONE:
            self._require_stable(params, ctx, seen)
            ways = self._ways_back(params, ctx, seen)
            deltas = {o: Delta(d.before, d.after, d.diff, ways.get(o, d.undo_to)) for o, d in deltas.items()}
            irreversible = None if seen.old else _loses(seen.new.objects)
            notes = [f"drift not restored by undo: {o}" for o, d in deltas.items() if any(li.note for li in d.diff)]
        fidelity, reason = fidelity_of(list(seen.looks.values()), [*seen.new.objects.values(), *seen.new.crds.values()])
        return Change(
            step=ctx.step,
            verb=verb,
            fidelity=fidelity,
            objects=deltas,
            irreversible=irreversible,
            reason="; ".join([reason] * bool(reason) + notes),
            envelope=sealed(self._cluster.masked, seen.new.objects.values()) | {"chart": seen.new.digest},
            facts={"render": seen.new.digest, "upgrade": seen.upgrade, "chart": seen.new.chart},
        )

    def capture(self, params: ReleaseParams, change: Change, now: Reading, ctx: Context) -> Preimage:
        """Helm keeps the old revision itself; its number is enough. 0: there was none."""
        deployed = next((r.revision for r in now.detail.records if r.status == DEPLOYED), 0)
        return Preimage({"revision": deployed})

    def apply(self, params: ReleaseParams, change: Change, ctx: Context) -> Outcome:
        name = _name(params, ctx)
        new = self._render(params, ctx, upgrade=change.facts["upgrade"])
        if new.digest != change.facts["render"]:
            raise RefusedError(f"{ctx.step}: chart {params.chart} renders differently than planned. Not applied.")
        if not (ctx.resuming and self._in_place(params, change, ctx)):
            self._free(name, params.namespace)
            for crd in self._missing(new.crds):
                self._cluster.apply(crd, manager=MANAGER)
            ctx.progress(f"helm upgrade {name}")
            chart = ctx.inputs.path(params.chart)
            self._helm.upgrade(name, params.namespace, chart, _values(params, ctx), deadline=ctx.deadline)
        wait_ready(self._cluster, [Reference.of(m) for m in new.objects.values()], ctx)
        newest = next(iter(self._helm.records(params.namespace, name)), None)
        return Outcome(f"{new.chart}, revision {newest.revision if newest else '?'}")

    def read_back(self, params: ReleaseParams, change: Change, preimage: Preimage, ctx: Context) -> State:
        state = dict(self.read(params, ctx).state)
        old = self._revision(params, preimage, ctx)
        for name, look in self._look(old.objects if old else {}).items():
            back = state_of(look, MANAGER, ctx)
            if name in change.objects and (back == change.objects[name].undo_to or name not in state):
                state[name] = back
        return state

    def undo(self, params: ReleaseParams, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        name, namespace = _name(params, ctx), params.namespace
        old = self._revision(params, preimage, ctx)
        if old is not None:
            revision = preimage.references["revision"]
            self._free(name, namespace)
            ctx.progress(f"helm rollback {name} to revision {revision}")
            self._helm.rollback(name, namespace, revision, deadline=ctx.deadline)
            wait_ready(self._cluster, [Reference.of(m) for m in old.objects.values()], ctx)
            return Outcome(f"back to revision {revision}")
        ctx.progress(f"helm uninstall {name}")
        self._helm.uninstall(name, namespace, deadline=ctx.deadline)
        # Helm does not wait, and knows nothing of a release whose record a crash lost.
        new = self._render(params, ctx, upgrade=change.facts["upgrade"])
        for manifest in reversed(list(new.objects.values())):
            if not kept(manifest):
                self._cluster.delete(Reference.of(manifest), ctx.deadline)
        return Outcome("uninstalled")

    def checks(self, params: ReleaseParams) -> Sequence[CheckSpec]:
        return ()

    # --- Reading ------------------------------------------------------------------------------------------------

    def _render(self, params: ReleaseParams, ctx: Context, *, upgrade: bool) -> Rendered:
        name, chart = _name(params, ctx), ctx.inputs.path(params.chart)
        text = self._helm.render(
            name, params.namespace, chart, _values(params, ctx), upgrade=upgrade, deadline=ctx.deadline
        )
        return rendered(text, chart_version(chart), name, params.namespace, self._cluster)

    def _look(self, objects: Mapping[ObjectId, Manifest], *, dry_run: bool = True) -> dict[ObjectId, Look]:
        looks = self._cluster.look(list(objects.values()), manager=MANAGER, dry_run=dry_run) if objects else []
        return dict(zip(objects, looks, strict=True))

    def _record_state(
        self, records: Sequence[ReleaseRecord], old: Rendered | None, name: str, namespace: str
    ) -> Fingerprint:
        """Of the newest record. One that is under way is unfinished; so is a failed one, until it is mended."""
        if not records:
            return ABSENT
        newest = records[0]
        if _under_way(newest):
            return Fingerprint("", f"{newest.status}:{newest.revision}")
        if newest.status == DEPLOYED and old is not None:
            return old.record()
        there = recorded(newest, name, namespace, self._cluster)
        failed = f"failed:{newest.revision}" if newest.status == "failed" else ""
        return there.record(newest.status, failed)

    def _revision(self, params: ReleaseParams, preimage: Preimage, ctx: Context) -> Rendered | None:
        """The revision to go back to; None when there was none."""
        revision, name = preimage.references.get("revision", 0), _name(params, ctx)
        if not revision:
            return None
        found = next((r for r in self._helm.records(params.namespace, name) if r.revision == revision), None)
        if found is None:
            raise PermanentError(f"release {params.namespace}/{name}: Helm no longer has revision {revision}")
        return recorded(found, name, params.namespace, self._cluster)

    # --- Planning -----------------------------------------------------------------------------------------------

    def _refuse_pending(self, seen: _Seen, params: ReleaseParams, ctx: Context) -> None:
        if not ctx.resuming and seen.records and _under_way(seen.records[0]):
            where, newest = f"{params.namespace}/{_name(params, ctx)}", seen.records[0]
            raise RefusedError(
                f"release {where}: revision {newest.revision} is {newest.status}, and not by this run. "
                f"When nobody is at it: helm rollback {_name(params, ctx)} -n {params.namespace}. Nothing was changed."
            )

    def _require_stable(self, params: ReleaseParams, ctx: Context, seen: _Seen) -> None:
        again = self._render(params, ctx, upgrade=seen.upgrade)
        if again.digest != seen.new.digest:
            differing = [o for o, m in again.objects.items() if seen.new.objects.get(o) != m]
            raise UsageError(
                f"chart {params.chart} renders differently each time ({', '.join(differing)}): "
                "give it the random values it makes up, from the secret store"
            )

    def _ways_back(self, params: ReleaseParams, ctx: Context, seen: _Seen) -> dict[ObjectId, Fingerprint | None]:
        """Object -> what undo reaches: the deployed revision's form of it, else absence, else (None) it stays."""
        ways: dict[ObjectId, Fingerprint | None] = {o: None if kept(m) else ABSENT for o, m in seen.new.objects.items()}
        record = _record_id(params, ctx)
        if seen.old is None:
            return ways | {record: ABSENT}
        for name, look in self._look(seen.old.objects).items():
            if look.dry is not None:
                ways[name] = after(look.dry, MANAGER)
        return ways | {record: seen.old.record()}

    # --- Acting -------------------------------------------------------------------------------------------------

    def _in_place(self, params: ReleaseParams, change: Change, ctx: Context) -> bool:
        """Whether Helm's part was done before a crash, so that only waiting is left."""
        live = self.read(params, ctx).state
        return all(
            d.after is not None and live.get(o, ABSENT).digest == d.after.digest for o, d in change.objects.items()
        )

    def _free(self, name: str, namespace: str) -> None:
        """Helm refuses to touch a release that is under way. Ours was, and its helm is dead: forget that revision."""
        for record in self._helm.records(namespace, name)[:1]:
            if _under_way(record):
                self._helm.forget(name, namespace, record.revision)

    def _missing(self, crds: Mapping[ObjectId, Manifest]) -> list[Manifest]:
        """CRDs that are not there; Helm makes them at a first install only."""
        return [crds[o] for o, look in self._look(crds, dry_run=False).items() if look.live is None]


def _name(params: ReleaseParams, ctx: Context) -> str:
    return params.name or ctx.step.partition("/")[2].partition("[")[0]


def _record_id(params: ReleaseParams, ctx: Context) -> ObjectId:
    return ObjectId(f"helm/{params.namespace}/{_name(params, ctx)}")


def _under_way(record: ReleaseRecord) -> bool:
    return record.status.startswith("pending-") or record.status == "uninstalling"


def _loses(objects: Mapping[ObjectId, Manifest]) -> str | None:
    """Why an uninstall would destroy data."""
    lost = [o for o, m in objects.items() if holds_data(Reference.of(m)) and not kept(m)]
    return f"an uninstall would delete {', '.join(lost)}: mark it helm.sh/resource-policy: keep" if lost else None


def _values(params: ReleaseParams, ctx: Context) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for file in params.values:
        found = yaml.safe_load(ctx.inputs.path(file).read_text()) or {}
        if not isinstance(found, dict):
            raise UsageError(f"{file}: values must be a mapping")
        values = _merged(values, found)
    for key, file in params.files.items():
        nested: Any = _text(ctx.inputs.path(file), file)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        values = _merged(values, nested)
    return _merged(values, params.set)


def _text(path: Path, name: str) -> str | dict[str, str]:
    """A file's text, or the texts of a folder's own files by their names. UsageError when one is no text."""
    try:
        if not path.is_dir():
            return path.read_text(encoding="utf-8")
        return {p.name: p.read_text(encoding="utf-8") for p in sorted(path.iterdir()) if p.is_file()}
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not UTF-8 text, which a value must be") from error


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Helm's merge: mappings go together, anything else is replaced."""
    both = dict(under)
    for key, value in over.items():
        mine = both.get(key)
        both[key] = _merged(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return both
