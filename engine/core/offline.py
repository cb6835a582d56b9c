"""A plan that was made without asking any system, as data. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.core.change import Change
from engine.core.model import StepId
from engine.core.planning import Plan
from engine.core.ports import Manifest
from engine.errors import UsageError


@dataclass(frozen=True, slots=True)
class OfflinePlan:
    """A plan as if nothing were there, and what was looked at to make it."""

    plan: Plan
    kubernetes: str
    """The version that was rendered and judged for."""
    judged: int
    """How many objects were judged."""
    not_rendered: Mapping[StepId, str] = field(default_factory=dict)
    """Step -> why it could not be rendered."""
    unjudged: Sequence[str] = ()
    """Custom resources whose definition is in a chart that could not be rendered."""
    installs_differently: Mapping[str, str] = field(default_factory=dict)
    """Release -> template that asks whether it is an upgrade: never unchanged in a real plan."""
    declared: Mapping[str, Manifest] = field(default_factory=dict)
    """Object's name -> the object, as rendered."""

    @property
    def barriers(self) -> list[Change]:
        """Steps with no way back, in order."""
        return [c for c in self.plan.wanted if c.irreversible]


class ObjectsError(UsageError):
    """Objects that are not as their schemas say, all at once. Nothing was asked, nothing touched."""

    def __init__(self, mistakes: Sequence[str], kubernetes: str) -> None:
        self.mistakes = tuple(mistakes)
        many = f"{len(mistakes)} mistake{'' if len(mistakes) == 1 else 's'}"
        super().__init__(
            "\n".join([*mistakes, f"{many} in the objects for Kubernetes {kubernetes}. Nothing was touched."])
        )
