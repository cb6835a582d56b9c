"""A step with its templates rendered and its parameters validated: what planning and running work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.core.action import CheckSpec
from engine.core.model import Step


@dataclass(frozen=True, slots=True)
class Resolved:
    """`params` is the action's pydantic model. `skip`: `when` was false, `reason` says with which values."""

    params: Any
    verify: tuple[CheckSpec, ...] = ()
    unless: tuple[CheckSpec, ...] = ()
    undo: Any = None
    skip: bool = False
    reason: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)


class Resolver(Protocol):
    """Renders and validates one step with the environment's variables and what earlier steps registered."""

    def resolve(self, step: Step, registered: Mapping[str, Any]) -> Resolved:
        """NotYetError when a name is registered by a step that has not run; FilesError when the result is invalid."""
