"""What steps and checks name that another step makes: secrets, buckets. One that nobody makes is probably mistyped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, RootModel

from engine.core.model import Step
from engine.errors import Diagnostic
from engine.load.document import Route, guess
from engine.load.render import is_template
from engine.load.runbook import LoadedRunbook
from engine.load.validation import models_in

MAKES = "runbook-makes"
"""A field of a Params model with this in its `json_schema_extra` names what the step makes: `secret`, `bucket`."""
NAMES = "runbook-names"
"""The same of what must be there already, or be made by another step."""
PROVES = "runbook-proves"
"""The same of what a check shows to be there, whoever made it: told only when it is nearly what a step makes."""


@dataclass(frozen=True, slots=True)
class _Named:
    mark: str
    kind: str
    name: str
    step: Step
    route: Route


def unknown_names(
    loaded: LoadedRunbook,
    rendered: Sequence[tuple[Step, Mapping[str, Any]]],
    actions: Mapping[str, type],
    checks: Mapping[str, type],
) -> Iterator[Diagnostic]:
    """A warning for each secret and bucket that is named and that no step makes. `rendered`: each step with its keys as
    far as they can be rendered. Of what the runbook makes none of, all are somebody else's."""
    found = [n for step, data in rendered for n in _of_step(step, data, actions, checks)]
    made = {kind: {n.name for n in found if (n.mark, n.kind) == (MAKES, kind)} for kind in {n.kind for n in found}}
    for named in found:
        known = made[named.kind]
        if named.mark == MAKES or not known or named.name in known or is_template(named.name):
            continue
        near = guess(named.name, known)
        if named.mark == PROVES and not near:
            continue
        message = f'no step makes the {named.kind} "{named.name}"{near}: it must be there already'
        source = loaded.sources[named.step.id]
        yield source.document.problem((*source.route, *named.route), message, severity="warning")


def _of_step(
    step: Step, data: Mapping[str, Any], actions: Mapping[str, type], checks: Mapping[str, type]
) -> Iterator[_Named]:
    for key, value in data.items():
        if key == step.action and not _is_list_of_checks(actions[key]):
            for mark, kind, route, name in _marked(actions[key], value, (key,)):
                yield _Named(mark, kind, name, step, route)
        elif isinstance(value, list):
            for index, entry in enumerate(value):
                for family in entry.keys() & checks.keys() if isinstance(entry, Mapping) else ():
                    for mark, kind, route, name in _marked(checks[family], entry[family], (key, index, family)):
                        yield _Named(mark, kind, name, step, route)


def _is_list_of_checks(model: Any) -> bool:
    return isinstance(model, type) and issubclass(model, RootModel)


def _marked(model: Any, data: Any, route: Route) -> Iterator[tuple[str, str, Route, str]]:
    """Mark, kind, way and text of every marked field that is given, also within other models."""
    if not (isinstance(model, type) and issubclass(model, BaseModel) and isinstance(data, Mapping)):
        return
    for name, info in model.model_fields.items():
        key = info.alias or name
        if key not in data:
            continue
        value = data[key]
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        for mark in (MAKES, NAMES, PROVES) if isinstance(value, str) and value else ():
            if mark in extra:
                yield mark, str(extra[mark]), (*route, key), value
        for inner in models_in(info.annotation):
            yield from _marked(inner, value, (*route, key))
