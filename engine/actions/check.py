"""`check`: a step that only looks. It changes nothing; the executor runs its checks as it runs any step's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from pydantic import BaseModel, RootModel, ValidationError

from engine.core.action import CheckSpec, Context, Kind
from engine.core.change import Change, Fidelity, Outcome, Preimage, Reading, State, Verb
from engine.errors import UsageError


class CheckParams(RootModel[list[dict[str, Any]]]):
    """A list of checks, each one key (its family) with that family's parameters, and perhaps `fresh`."""


class CheckAction:
    """`families` maps a check's YAML key to its pydantic model of parameters."""

    key: ClassVar[str] = "check"
    kind: ClassVar[Kind] = Kind.STATE
    Params: ClassVar[type] = CheckParams

    def __init__(self, families: Mapping[str, type[BaseModel]]) -> None:
        self._families = families

    def read(self, params: CheckParams, ctx: Context) -> Reading:
        return Reading({})

    def plan(self, params: CheckParams, now: Reading, ctx: Context) -> Change:
        """Always NONE. Parameters that do not fit are found here, not in the middle of a run."""
        count = len(self.checks(params))
        reason = f"{count} check{'s' if count != 1 else ''}"
        return Change(step=ctx.step, verb=Verb.NONE, fidelity=Fidelity.EXACT, reason=reason)

    def capture(self, params: CheckParams, change: Change, now: Reading, ctx: Context) -> Preimage:
        return Preimage()

    def apply(self, params: CheckParams, change: Change, ctx: Context) -> Outcome:
        return Outcome()

    def read_back(self, params: CheckParams, change: Change, preimage: Preimage, ctx: Context) -> State:
        return {}

    def undo(self, params: CheckParams, change: Change, preimage: Preimage, ctx: Context) -> Outcome:
        return Outcome()

    def checks(self, params: CheckParams) -> Sequence[CheckSpec]:
        """The items as CheckSpecs. Raises UsageError naming the item, the family and what does not fit."""
        return [self._spec(number, item) for number, item in enumerate(params.root, start=1)]

    def _spec(self, number: int, item: Mapping[str, Any]) -> CheckSpec:
        names = [key for key in item if key != "fresh"]
        if len(names) != 1:
            raise UsageError(
                f"check {number}: wants exactly one family beside `fresh`, has {', '.join(names) or 'none'}"
            )
        family = names[0]
        if family not in self._families:
            raise UsageError(f"check {number}: no family '{family}' (there are: {', '.join(sorted(self._families))})")
        try:
            params = self._families[family].model_validate(item[family])
        except ValidationError as error:
            wrong = sorted({".".join(map(str, e["loc"])) or "its value" for e in error.errors()})
            raise UsageError(f"check {number}, {family}: {', '.join(wrong)} is not as it should be") from None
        fresh = item.get("fresh")
        if fresh is not None and not isinstance(fresh, timedelta):
            raise UsageError(f"check {number}, {family}: fresh wants a duration like 24h")
        return CheckSpec(family, params, fresh)
