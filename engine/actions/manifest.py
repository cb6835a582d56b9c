"""`manifest`: Kubernetes objects from files, by server-side apply."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.actions.objects import (
    by_name,
    changed,
    delta_of,
    fidelity_of,
    holds_data,
    in_order,
    object_ids,
    parse,
    prepared,
    sealed,
    state_of,
    verb_of,
)
from engine.actions.rollout import wait_ready
from engine.core.action import CheckSpec, Context, Kind
from engine.core.change import ABSENT, Change, Delta, Fidelity, Outcome, Preimage, Reading, State, Verb
from engine.core.look import fingerprint, is_secret, owned, part, union
from engine.core.model import ObjectId
from engine.core.ports import Analyzer, Cluster, Encryption, Look, Manifest, Reference
from engine.errors import PermanentError, RefusedError

MANAGER = "runbook"
_NAMESPACE = "runbook-system"

Render = Callable[[str, Mapping[str, Any], str], str]
"""Text with Jinja templates, variables, name for messages -> text."""


class ManifestParams(BaseModel):
    """Objects in a file or folder."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        description="A YAML file, or a folder of them (*.yml, *.yaml, sorted by name).",
        json_schema_extra={"runbook-file": True},
    )
    vars: dict[str, Any] = Field(default_factory=dict, description="Variables of the templates, over the step's own.")
    analyze: Literal["istio"] | None = Field(
        default=None,
        description="`istio`: have `istioctl analyze` judge them while planning, beside what is on the cluster.",
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What `read` found, by object."""

    manifests: Mapping[ObjectId, Manifest]
    looks: Mapping[ObjectId, Look]
    gone: Mapping[ObjectId, Look]
    """Objects of ours that no file declares any more."""


class ManifestAction:
    """Applies what the files declare, deletes what they declared before, and waits until workloads are ready.

    What belongs to a step is kept in a ConfigMap `runbook-system/inventory-…`, by which an object is found whose file
    was removed. Namespaces, CRDs and volumes are never deleted: they stay, as residue. `scope` (the runbook's name)
    keeps apart the steps of two runbooks on one cluster. `encryption` seals what undo needs of Secrets; `analyzers`
    are those that the parameter `analyze` names.
    """

    key: ClassVar[str] = "manifest"
    kind: ClassVar[Kind] = Kind.STATE
    Params: ClassVar[type] = ManifestParams

    def __init__(
        self,
        cluster: Cluster,
        render: Render,
        *,
        encryption: Encryption | None = None,
        scope: str = "",
        analyzers: Mapping[str, Analyzer] | None = None,
    ) -> None:
        self._cluster = cluster
        self._render = render
        self._encryption = encryption
        self._scope = scope
        self._analyzers = analyzers or {}

    def read(self, params: ManifestParams, ctx: Context) -> Reading:
        manifests = self._manifests(params, ctx)
        looks = self._cluster.look(list(manifests.values()), manager=MANAGER)
        seen = _Seen(manifests, dict(zip(manifests, looks, strict=True)), self._gone(manifests, ctx))
        state = {o: state_of(look, MANAGER, ctx) for o, look in seen.looks.items()}
        state |= {o: fingerprint(look.live, owned(look.live, MANAGER)) for o, look in seen.gone.items()}
        return Reading(state, seen)

    def plan(self, params: ManifestParams, now: Reading, ctx: Context) -> Change:
        seen: _Seen = now.detail
        deltas = {}
        for name, look in seen.looks.items():
            live = now.state[name]
            stays = live.absent and holds_data(look.reference)
            deltas[name] = delta_of(look, live, MANAGER, undo_to=None if stays else live)
        deltas |= {o: Delta(now.state[o], ABSENT, undo_to=now.state[o]) for o in seen.gone}
        fidelity, reason = fidelity_of(list(seen.looks.values()), list(seen.manifests.values()))
        verb = verb_of(deltas.values())
        if params.analyze and verb is not Verb.NONE:
            served = fidelity is not Fidelity.DEFERRED
            if missing := self._judge(params, list(seen.manifests.values()), served, ctx):
                fidelity, reason, deltas = Fidelity.DEFERRED, missing, {}
        return Change(
            step=ctx.step,
            verb=verb,
            fidelity=fidelity,
            objects=deltas,
            reason=reason,
            envelope=sealed(self._cluster.masked, seen.manifests.values()),
            facts={"deleted": {o: _listed(look.reference) for o, look in seen.gone.items()}},
        )

    def capture(self, params: ManifestParams, change: Change, now: Reading, ctx: Context) -> Preimage:
        """Our part of each object that will change, with the tree it was cut by. Secrets go into the sealed blob."""
        plain, secret = {}, {}
        for name, look in {**now.detail.looks, **now.detail.gone}.items():
            if look.live is None or not changed(change.objects[name]):
                continue
            tree = union(owned(look.live, MANAGER), owned(look.dry, MANAGER))
            if not is_secret(look.live):
                plain[name] = {"manifest": part(look.live, tree), "tree": tree}
            elif raw := self._cluster.get(look.reference):
                secret[name] = {"manifest": part(raw, tree), "tree": tree}
        references = {"objects": plain, "inventory": [_listed(r) for r in self._inventory(ctx)]}
        return Preimage(references, self._seal(secret) if secret else "")

    def apply(self, params: ManifestParams, change: Change, ctx: Context) -> Outcome:
        manifests = self._manifests(params, ctx)
        if sealed(self._cluster.masked, manifests.values()) != dict(change.envelope):
            raise RefusedError(
                f"{ctx.step}: {params.path} renders differently from what was planned. It was not applied."
            )
        listed = self._inventory(ctx)
        wanted = [Reference.of(m) for m in manifests.values()]
        # in the order of the files' kinds: a change that was read back from the journal lists its objects by name
        moving = [o for o in manifests if o in change.objects and changed(change.objects[o])]
        self._bring_namespaces(manifests, moving)
        self._list(ctx, [*wanted, *(r for r in listed if r not in wanted)], listed)  # known before it exists
        for name in moving:
            ctx.deadline.check(f"applying {name}")
            self._cluster.apply(manifests[name], manager=MANAGER)
        for reference in reversed([Reference(*r) for r in change.facts["deleted"].values()]):
            self._cluster.delete(reference, ctx.deadline)
        self._list(ctx, wanted, None)
        wait_ready(self._cluster, wanted, ctx)
        return Outcome(f"{len(moving)} of {len(change.objects)} objects")

    def read_back(self, params: ManifestParams, change: Change, preimage: Preimage, ctx: Context) -> State:
        saved = self._saved(preimage)
        references = self._references(params, change, ctx)
        looks = self._cluster.look([_named(r) for r in references.values()], manager=MANAGER, dry_run=False)
        state = {}
        for name, look in zip(references, looks, strict=True):
            state[name] = fingerprint(look.live, owned(look.live, MANAGER))
            if name in saved:
                as_before = fingerprint(look.live, saved[name]["tree"])
                if as_before == change.objects[name].undo_to:
                    state[name] = as_before
            elif not changed(change.objects[name]):
                state[name] = change.objects[name].before  # not ours to take back
        return state

    def undo(self, params: ManifestParams, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        saved = self._saved(preimage)
        restored = in_order([s["manifest"] for s in saved.values()])
        for manifest in restored:
            self._cluster.apply(manifest, manager=MANAGER)
        created = [
            reference
            for name, reference in self._references(params, change, ctx).items()
            if name not in saved and changed(change.objects[name]) and change.objects[name].undo_to == ABSENT
        ]
        for reference in reversed(created):
            self._cluster.delete(reference, ctx.deadline)
        self._list(ctx, [Reference(*r) for r in preimage.references.get("inventory", [])], None)
        wait_ready(self._cluster, [Reference.of(m) for m in restored], ctx)
        return Outcome(f"{len(restored)} restored, {len(created)} removed")

    def checks(self, params: ManifestParams) -> Sequence[CheckSpec]:
        return ()

    def _judge(self, params: ManifestParams, manifests: Sequence[Manifest], live: bool, ctx: Context) -> str:
        """What the objects refer to and is not there; empty: nothing. PermanentError with every other error.

        While kinds are still missing, without the cluster (`live` is false): the step is planned again in its turn.
        """
        objections = self._analyzers[str(params.analyze)].analyze(manifests, live=live, deadline=ctx.deadline)
        for warning in (o for o in objections if not o.error):
            ctx.progress(f"warning: {warning.object}: {warning.text} ({warning.code})")
        errors = [o for o in objections if o.error]
        lines = "; ".join(f"{o.object}: {o.text} ({o.code})" for o in errors)
        if not all(o.missing for o in errors):
            raise PermanentError(f"{params.path}: {lines}")
        return lines and f"{params.path}: {lines}"

    # --- Files --------------------------------------------------------------------------------------------------

    def _manifests(self, params: ManifestParams, ctx: Context) -> dict[ObjectId, Manifest]:
        """What the files declare, in the order to apply it."""
        variables = {**ctx.variables, **params.vars}
        found: list[Manifest] = []
        for file in _files(ctx.inputs.path(params.path)):
            text = self._render(file.read_text(), variables, f"{params.path}/{file.name}")
            found += [prepared(m) for m in parse(text, f"{params.path}/{file.name}")]
        if not found:
            raise PermanentError(f"{params.path}: no object in it")
        return by_name(in_order(found), params.path)

    def _references(self, params: ManifestParams, change: Change, ctx: Context) -> dict[ObjectId, Reference]:
        """Every object of the change, the deleted ones too."""
        declared = {o: Reference.of(m) for o, m in self._manifests(params, ctx).items() if o in change.objects}
        return declared | {ObjectId(o): Reference(*r) for o, r in change.facts["deleted"].items()}

    def _bring_namespaces(self, manifests: Mapping[ObjectId, Manifest], moving: Sequence[ObjectId]) -> None:
        """The inventory's own namespace may be one of the step's."""
        for name in moving:
            manifest = manifests.get(name)
            if manifest and manifest["kind"] == "Namespace" and manifest["metadata"]["name"] == _NAMESPACE:
                self._cluster.apply(manifest, manager=MANAGER)

    # --- Inventory ----------------------------------------------------------------------------------------------

    def _gone(self, manifests: Mapping[ObjectId, Manifest], ctx: Context) -> dict[ObjectId, Look]:
        """What the inventory lists, no file declares, and still carries our ownership."""
        declared = {Reference.of(m) for m in manifests.values()}
        old = [r for r in self._inventory(ctx) if r not in declared and not holds_data(r)]
        looks = self._cluster.look([_named(r) for r in old], manager=MANAGER, dry_run=False) if old else []
        pairs = zip(object_ids(old), looks, strict=True)
        return {o: look for o, look in pairs if owned(look.live, MANAGER) is not None}

    def _inventory(self, ctx: Context) -> list[Reference]:
        found = self._cluster.get(Reference("v1", "ConfigMap", self._inventory_name(ctx), _NAMESPACE))
        return [Reference(*entry) for entry in json.loads(found["data"]["objects"])] if found else []

    def _list(self, ctx: Context, references: Sequence[Reference], known: Sequence[Reference] | None) -> None:
        """Write the inventory, unless it says so already."""
        if known is not None and set(known) == set(references):
            return
        entries = [json.dumps(_listed(r)) for r in references]
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self._inventory_name(ctx),
                "namespace": _NAMESPACE,
                "labels": {"app.kubernetes.io/managed-by": MANAGER},
            },
            "data": {"runbook": self._scope, "step": ctx.step, "objects": "[" + ",\n".join(entries) + "]"},
        }
        self._cluster.apply(manifest, manager=MANAGER)

    def _inventory_name(self, ctx: Context) -> str:
        return "inventory-" + hashlib.sha256(f"{self._scope}/{ctx.step}".encode()).hexdigest()[:16]

    # --- Preimages ----------------------------------------------------------------------------------------------

    def _seal(self, document: Mapping[str, Any]) -> str:
        if self._encryption is None:
            raise PermanentError("a Secret would change, and there is no recipient to encrypt its old value to")
        return self._encryption.seal(json.dumps(document).encode())

    def _saved(self, preimage: Preimage) -> dict[str, Any]:
        saved = dict(preimage.references.get("objects", {}))
        if preimage.blob:
            if self._encryption is None:
                raise PermanentError("a Secret's old value is encrypted, and there is no identity to decrypt it with")
            saved |= json.loads(self._encryption.open(preimage.blob))
        return saved


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    yield from sorted(f for f in path.iterdir() if f.suffix in (".yml", ".yaml"))


def _listed(reference: Reference) -> list[str]:
    return [reference.api_version, reference.kind, reference.name, reference.namespace]


def _named(reference: Reference) -> Manifest:
    meta = {"name": reference.name} | ({"namespace": reference.namespace} if reference.namespace else {})
    return {"apiVersion": reference.api_version, "kind": reference.kind, "metadata": meta}
