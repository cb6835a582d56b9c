"""From one entry under `steps:` to the steps it stands for: one, or one per turn of its loop."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from engine.core.model import Step, StepId
from engine.errors import Diagnostic, NotYetError
from engine.load.document import Document, Route, guess, listed
from engine.load.format import KEYWORDS, Keywords, slug
from engine.load.render import Scope, TemplateError, condition_mistakes, mistakes, render, render_known, undeclared
from engine.load.validation import diagnostics

_FORBIDDEN_IN_KEY = frozenset("[]/ \t\n")
MAX_TURNS = 1000
"""Of one loop: each is a step, and every later step waits for all of them."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a step is written: the way to its entry. `looped`: its `vars` hold the item of its turn."""

    document: Document
    route: Route
    looped: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `steps:`, read. `steps` are its turns; `needs` as written, still to be resolved."""

    id: str
    source: Source
    steps: tuple[Step, ...]
    needs: tuple[str, ...] | None


@dataclass(slots=True)
class StepReader:
    """Reads the steps of one phase; mistakes collect in `problems`."""

    document: Document
    phase: str
    actions: Collection[str]
    families: Collection[str]
    scope: Scope
    problems: list[Diagnostic] = field(default_factory=list)
    unnamed: bool = False
    """A step's id could not be made out: it may be the one that others need."""

    def read(self, data: Mapping[str, Any], route: Route) -> Entry | None:
        """None when it is too wrong to go on with; `problems` says why."""
        action = self._action(data, route)
        keywords = self._keywords(data, route)
        step_id = self._id(keywords, data, route)
        if action is None:
            return None
        self._conditions(keywords, route)
        self._templates(data, route)
        for name in ("verify", "unless"):
            self.problems += check_problems(getattr(keywords, name), self.document, (*route, name), self.families)
        turns = self._turns(keywords, route)
        steps = tuple(self._step(step_id, action, data, keywords, route, turn) for turn in turns)
        needs = None if keywords.needs is None else tuple(keywords.needs)
        return Entry(step_id, Source(self.document, route, keywords.loop is not None), steps, needs)

    def _action(self, data: Mapping[str, Any], route: Route) -> str | None:
        named = [key for key in data if key in self.actions]
        unknown = [key for key in data if key not in self.actions and key not in KEYWORDS]
        for key in unknown:
            near = guess(key, {*self.actions, *KEYWORDS})
            self._problem((*route, key), f'unknown key "{key}" in a step{near}', key=True)
        if len(named) == 1:
            return named[0]
        if named:
            for key in named[1:]:
                self._problem(
                    (*route, key), f'a second action: "{named[0]}" is there already, a step has one', key=True
                )
        elif not unknown:
            self._problem(route, f"a step names one action (known: {listed(self.actions)})")
        return None

    def _keywords(self, data: Mapping[str, Any], route: Route) -> Keywords:
        """The step's keywords, without those that are wrong."""
        given = {key: value for key, value in data.items() if key in KEYWORDS}
        try:
            return Keywords.model_validate(given)
        except ValidationError as error:
            self.problems += diagnostics(error, self.document, route, Keywords, given, what="the step")
            wrong = {e["loc"][0] for e in error.errors()}
            return Keywords.model_validate({key: value for key, value in given.items() if key not in wrong})

    def _id(self, keywords: Keywords, data: Mapping[str, Any], route: Route) -> str:
        """The step's id; a stand-in when there is none, so that the rest of the step is looked at too."""
        if keywords.id:
            return keywords.id
        made = slug(keywords.name or "") if "{" not in (keywords.name or "") else ""
        if made and "id" not in data:
            return made
        self.unnamed = True
        if "id" not in data and ("name" not in data or keywords.name):
            self._problem(route, 'a step needs an "id" or a "name" to make one from')
        return f"step-{route[-1]}"

    def _conditions(self, keywords: Keywords, route: Route) -> None:
        if not isinstance(keywords.when, str | list):
            return
        many = isinstance(keywords.when, list)
        for index, text in enumerate(keywords.when if isinstance(keywords.when, list) else [keywords.when]):
            place: Route = (*route, "when", index) if many else (*route, "when")
            for problem in condition_mistakes(text):
                self._problem(place, f"when: {problem.message}", needle=problem.needle)

    def _templates(self, data: Mapping[str, Any], route: Route) -> None:
        for problem in mistakes({key: value for key, value in data.items() if key != "when"}):
            self._problem((*route, *problem.route), problem.message, needle=problem.needle)

    def _turns(self, keywords: Keywords, route: Route) -> list[tuple[str, Any]]:
        """Key and item of every turn; one turn with an empty key when there is no loop."""
        if keywords.register_ and keywords.sensitive:
            self._problem(
                (*route, "register"), '"register" in a "sensitive" step: what it puts out is kept nowhere', key=True
            )
        if keywords.loop is None:
            if keywords.key is not None:
                self._problem((*route, "key"), '"key" belongs to a "loop"', key=True)
            return [("", None)]
        if keywords.key is None:
            self._problem(
                (*route, "loop"), 'a loop needs "key": what tells its turns apart, a field of the item', key=True
            )
            return []
        if keywords.register_:
            self._problem((*route, "register"), '"register" in a loop: every turn would overwrite the last', key=True)
        items = self._items(keywords.loop, route)
        if len(items) > MAX_TURNS:
            self._problem((*route, "loop"), f"a loop of {len(items)} turns: at most {MAX_TURNS} are possible")
            return []
        turns: dict[str, Any] = {}
        for index, item in enumerate(items):
            place: Route = (*route, "loop", index) if isinstance(keywords.loop, list) else (*route, "loop")
            name = self._turn_key(keywords.key, item, route)
            if name is None:
                break
            if name in turns:
                self._problem(place, f'two turns of the loop have the key "{name}"')
            turns[name] = item
        return list(turns.items())

    def _items(self, loop: list[Any] | str, route: Route) -> list[Any]:
        try:
            items = render(loop, self.scope)
        except NotYetError:
            self._problem(
                (*route, "loop"), "a loop over what a step registers is not possible: its turns must be known"
            )
            return []
        except TemplateError as error:
            known = {(p.route, p.needle) for p in mistakes(loop)}
            for problem in error.problems:
                if (problem.route, problem.needle) not in known:
                    place = (*route, "loop", *problem.route)
                    self._problem(place, problem.message, needle=problem.needle)
            return []
        if not isinstance(items, list):
            self._problem((*route, "loop"), "a loop should be a list, or one template that gives a list")
            return []
        return items

    def _turn_key(self, key: str, item: Any, route: Route) -> str | None:
        if "{{" in key:
            try:
                value = render(key, self._with_item(item))
            except (TemplateError, NotYetError) as error:
                self._problem((*route, "key"), f"key: {error}")
                return None
        elif key == "item":
            value = item
        elif isinstance(item, Mapping) and key in item:
            value = item[key]
        else:
            known = f" (fields: {listed(item)})" if isinstance(item, Mapping) else ': write "{{ item }}"'
            self._problem((*route, "key"), f'the items of the loop have no field "{key}"{known}')
            return None
        if isinstance(value, dict | list | bool | None) or not str(value) or _FORBIDDEN_IN_KEY & set(str(value)):
            self._problem((*route, "key"), "a key should be a short text without spaces, slashes and brackets")
            return None
        return str(value)

    def _step(
        self, step_id: str, action: str, data: Mapping[str, Any], words: Keywords, route: Route, turn: tuple[str, Any]
    ) -> Step:
        key, item = turn
        name = words.name or step_id
        if words.loop is not None:
            name = self._turn_name(name, key, item)
        return Step(
            id=StepId(f"{self.phase}/{step_id}[{key}]" if key else f"{self.phase}/{step_id}"),
            phase=self.phase,
            name=name,
            action=action,
            params=data[action],
            position=self.document.mark(route).position,
            when=_condition(words.when),
            vars={**words.vars, "item": item} if words.loop is not None else words.vars,
            register=words.register_,
            tags=frozenset(words.tags),
            timeout=words.timeout,
            retries=words.retries,
            delay=words.delay,
            verify=tuple(words.verify),
            unless=tuple(words.unless),
            fresh=words.fresh,
            undo=words.undo,
            irreversible=words.irreversible,
            on_failure=words.on_failure,
            sensitive=words.sensitive,
        )

    def _turn_name(self, name: str, key: str, item: Any) -> str:
        if "item" not in undeclared(name):
            return f"{name} ({key})"
        try:
            return str(render_known(name, self._with_item(item)))
        except TemplateError:
            return f"{name} ({key})"  # `mistakes` and the resolver tell of it

    def _with_item(self, item: Any) -> Scope:
        return Scope(self.scope.variables, {**self.scope.values, "item": item}, self.scope.pending)

    def _problem(self, route: Route, message: str, *, key: bool = False, needle: str = "") -> None:
        self.problems.append(self.document.problem(route, message, key=key, needle=needle))


def check_problems(entries: Any, document: Document, route: Route, families: Collection[str]) -> list[Diagnostic]:
    """What is wrong with the form of a list of checks: each is `{family: parameters}`, `fresh:` may stand beside."""
    problems = []
    if not isinstance(entries, list):
        return [document.problem(route, "should be a list of checks")]
    for index, entry in enumerate(entries):
        here: Route = (*route, index)
        if not isinstance(entry, Mapping):
            problems.append(document.problem(here, "a check should be `family: parameters`"))
            continue
        named = [key for key in entry if key in families]
        unknown = [key for key in entry if key not in families and key != "fresh"]
        for key in unknown:
            near = guess(key, {*families, "fresh"}) or f" (known: {listed(families)})"
            problems.append(document.problem((*here, key), f'no check "{key}"{near}', key=True))
        if len(named) > 1:
            message = f'a second check: "{named[0]}" is there already, an entry has one'
            problems.append(document.problem((*here, named[1]), message, key=True))
        elif not named and not unknown:
            problems.append(document.problem(here, f"a check names its family (known: {listed(families)})"))
    return problems


def _condition(when: bool | str | list[str] | None) -> str | None:
    if when is None:
        return None
    if isinstance(when, bool):
        return "true" if when else "false"
    return when if isinstance(when, str) else " and ".join(f"({part})" for part in when)
