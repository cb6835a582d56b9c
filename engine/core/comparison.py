"""How two environments of one runbook differ: variables, steps, what the steps come to. Pure; secrets are masked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.core.model import StepId
from engine.core.offline import OfflinePlan

_SENSITIVE = re.compile(r"passw|secret|token|private|credential|access_key|api_?key|recovery", re.IGNORECASE)
_PLAIN = re.compile(r"secret_store|secrets?_(path|name|mount)", re.IGNORECASE)
_MASKED = "hmac:"
HIDDEN = "(not shown)"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same: its name or path, and both values as text. None: not there."""

    path: str
    left: str | None
    right: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that differs between two environments, left and right."""

    left: str
    right: str
    variables: Sequence[Difference] = ()
    only_left: Mapping[StepId, str] = field(default_factory=dict)
    """Step -> why the other leaves it out; empty: it does not have it."""
    only_right: Mapping[StepId, str] = field(default_factory=dict)
    steps: Mapping[StepId, Mapping[str, Sequence[Difference]]] = field(default_factory=dict)
    """Step -> object -> its differences."""
    unknown: Mapping[StepId, str] = field(default_factory=dict)
    """Steps that could not be rendered in one of them, and why: nothing is said of those."""

    @property
    def same(self) -> bool:
        return not (self.variables or self.only_left or self.only_right or self.steps)


def compare(
    left: OfflinePlan, right: OfflinePlan, left_variables: Mapping[str, Any], right_variables: Mapping[str, Any]
) -> Comparison:
    """Two offline plans of one runbook side by side."""
    mine, theirs = left.plan.changes, right.plan.changes
    unknown = {**left.not_rendered, **right.not_rendered}
    steps: dict[StepId, dict[str, Sequence[Difference]]] = {}
    for step in mine:
        if step not in theirs or step in unknown:
            continue
        one, other = _objects(left, step), _objects(right, step)
        found: dict[str, Sequence[Difference]] = {}
        found |= {name: _between(one.get(name), other.get(name)) for name in sorted(one.keys() | other.keys())}
        if kept := {name: lines for name, lines in found.items() if lines}:
            steps[step] = kept
    return Comparison(
        left=left.plan.environment,
        right=right.plan.environment,
        variables=_variables(left_variables, right_variables),
        only_left={s: right.plan.reasons.get(s, "") for s in mine if s not in theirs},
        only_right={s: left.plan.reasons.get(s, "") for s in theirs if s not in mine},
        steps=steps,
        unknown={s: why for s, why in unknown.items() if s in mine and s in theirs},
    )


def _objects(plan: OfflinePlan, step: StepId) -> dict[str, dict[str, Any]]:
    """What a step comes to, object by object: every field of a rendered one, the planned lines of any other."""
    environment = plan.plan.environment
    found: dict[str, dict[str, Any]] = {}
    for name, delta in plan.plan.changes[step].objects.items():
        manifest = plan.declared.get(name)
        if manifest is not None:
            found[str(name)] = dict(_leaves(manifest, ""))
        elif not name.startswith("helm/"):  # a digest of the same objects
            plain = str(name).replace(f" on {environment}", "")
            found[plain] = {"": "there", **{line.path: line.after for line in delta.diff}}
    return found


def _between(left: Mapping[str, Any] | None, right: Mapping[str, Any] | None) -> list[Difference]:
    if left is None or right is None:
        return [Difference("", "there" if left is not None else None, "there" if right is not None else None)]
    lines = []
    for path in sorted(left.keys() | right.keys()):
        if left.get(path, ...) == right.get(path, ...):
            continue
        lines.append(Difference(path, _shown(left, path), _shown(right, path)))
    return lines


def _variables(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Difference]:
    lines = []
    for name in sorted(left.keys() | right.keys()):
        if left.get(name, ...) == right.get(name, ...):
            continue
        hide = bool(_SENSITIVE.search(name)) and not _PLAIN.search(name)
        one, other = (HIDDEN if hide and name in side else _shown(side, name) for side in (left, right))
        lines.append(Difference(name, one, other))
    return lines


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value that holds no other, by its path; items of a list by their name where each has one."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        names = [item.get("name") if isinstance(item, Mapping) else None for item in value]
        named = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{names[index] if named else index}]")
    else:
        yield path, value


def _shown(values: Mapping[str, Any], path: str) -> str | None:
    if path not in values:
        return None
    value = values[path]
    if isinstance(value, str):
        return HIDDEN if value.startswith(_MASKED) else value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
