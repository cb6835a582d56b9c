"""A world in memory with one STATE and one EVENT action over it: what the engine's own tests run against.

`World.effects` is the independent count: what really happened, written by the world, not by the engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from engine.core.action import CheckSpec, Context, Finding, Kind
from engine.core.change import ABSENT, Change, Delta, DiffLine, Fidelity, Fingerprint, Outcome, Preimage, Reading, Verb
from engine.core.model import ObjectId, Step
from engine.core.resolved import Resolved
from engine.errors import NotYetError, PermanentError, TemporaryError


@dataclass
class World:
    """Things by name, and every effect in order."""

    things: dict[str, str] = field(default_factory=dict)
    events: dict[str, str] = field(default_factory=dict)
    effects: list[tuple[str, str]] = field(default_factory=list)
    broken: dict[str, Exception] = field(default_factory=dict)
    """Thing -> what its next apply raises."""

    def set(self, name: str, value: str | None) -> None:
        self.effects.append(("set", name))
        if value is None:
            self.things.pop(name, None)
        else:
            self.things[name] = value


def fp(value: str | None) -> Fingerprint:
    return ABSENT if value is None else Fingerprint(hashlib.sha256(value.encode()).hexdigest())


class ThingAction:
    """STATE: params {name, value, needs?}. `needs` names a thing that must exist before it can be planned."""

    key: ClassVar[str] = "thing"
    kind: ClassVar[Kind] = Kind.STATE
    Params: ClassVar[type] = dict

    def __init__(self, world: World) -> None:
        self.world = world

    def read(self, params: Mapping[str, Any], ctx: Context) -> Reading:
        needed = params.get("needs")
        if needed and needed not in self.world.things:
            raise NotYetError(f"{needed} does not exist yet")
        return Reading({ObjectId(params["name"]): fp(self.world.things.get(params["name"]))})

    def plan(self, params: Mapping[str, Any], now: Reading, ctx: Context) -> Change:
        name = ObjectId(params["name"])
        before, after = now.state[name], fp(params["value"])
        verb = Verb.NONE if before == after else Verb.CREATE if before.absent else Verb.UPDATE
        undo_to = None if params.get("residue") else before
        diff = () if verb is Verb.NONE else (DiffLine("value", self.world.things.get(name), params["value"]),)
        return Change(ctx.step, verb, Fidelity.EXACT, {name: Delta(before, after, diff, undo_to)})

    def capture(self, params: Mapping[str, Any], change: Change, now: Reading, ctx: Context) -> Preimage:
        return Preimage({"value": self.world.things.get(params["name"])})

    def apply(self, params: Mapping[str, Any], change: Change, ctx: Context) -> Outcome:
        trouble = self.world.broken.get(params["name"])
        if trouble:
            if isinstance(trouble, TemporaryError):
                del self.world.broken[params["name"]]
            raise trouble
        self.world.set(params["name"], params["value"])
        return Outcome(summary="set", outputs={"value": params["value"]})

    def read_back(self, params: Mapping[str, Any], change: Change, preimage: Preimage, ctx: Context) -> Any:
        return {ObjectId(params["name"]): fp(self.world.things.get(params["name"]))}

    def undo(self, params: Mapping[str, Any], change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        if f"undo {params['name']}" in self.world.broken:
            raise PermanentError("cannot be undone here")
        self.world.set(params["name"], preimage.references["value"])
        return Outcome(summary="as before")

    def checks(self, params: Mapping[str, Any]) -> Sequence[CheckSpec]:
        return [CheckSpec("thing", {"name": params["name"], "is": params["value"]})] if params.get("check") else []


class OnceAction:
    """EVENT: harmful twice. Its evidence is in the world, under the key."""

    key: ClassVar[str] = "once"
    kind: ClassVar[Kind] = Kind.EVENT
    Params: ClassVar[type] = dict

    def __init__(self, world: World) -> None:
        self.world = world

    def read(self, params: Mapping[str, Any], ctx: Context) -> Reading:
        if ctx.key is not None:
            done = ctx.key in self.world.events
        else:
            done = ctx.fresh is not None and ctx.step in self.world.events.values()
        return Reading({ObjectId(f"event {ctx.step}"): Fingerprint("done") if done else ABSENT})

    def plan(self, params: Mapping[str, Any], now: Reading, ctx: Context) -> Change:
        (name, before), *_ = now.state.items()
        verb = Verb.RUN if before.absent else Verb.NONE
        return Change(ctx.step, verb, Fidelity.EXACT, {name: Delta(before, Fingerprint("done"), (), None)})

    def capture(self, params: Mapping[str, Any], change: Change, now: Reading, ctx: Context) -> Preimage:
        return Preimage()

    def apply(self, params: Mapping[str, Any], change: Change, ctx: Context) -> Outcome:
        assert ctx.key is not None
        if ctx.key in self.world.events:
            return Outcome(summary="had happened", evidence={"key": ctx.key})
        self.world.effects.append(("once", ctx.key))
        self.world.events[ctx.key] = ctx.step
        return Outcome(summary="happened", evidence={"key": ctx.key})

    def read_back(self, params: Mapping[str, Any], change: Change, preimage: Preimage, ctx: Context) -> Any:
        return {}

    def undo(self, params: Mapping[str, Any], change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        return Outcome()

    def checks(self, params: Mapping[str, Any]) -> Sequence[CheckSpec]:
        return []


class ThingCheck:
    """Passes when the thing has the value."""

    key: ClassVar[str] = "thing"
    Params: ClassVar[type] = dict

    def __init__(self, world: World) -> None:
        self.world = world
        self.looks = 0

    def run(self, params: Mapping[str, Any], ctx: Context) -> Finding:
        self.looks += 1
        seen = self.world.things.get(params["name"])
        return Finding(seen == params["is"], f"{params['name']} is {seen}", final=True)


class PlainResolver:
    """No templates: params as they stand; `when` is the word `never` or nothing."""

    def resolve(self, step: Step, registered: Mapping[str, Any]) -> Resolved:
        if step.when == "never":
            return Resolved(step.params, skip=True, reason="when: never")
        needs = step.params.get("wants") if isinstance(step.params, dict) else None
        if needs and needs not in registered:
            raise NotYetError(f"{needs} is registered by a step that has not run")
        return Resolved(step.params)
