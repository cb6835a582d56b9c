"""One step made ready: its templates rendered, its parameters and checks validated, mistakes told at their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from engine.core.action import CheckSpec
from engine.core.model import Step
from engine.core.resolved import Resolved
from engine.errors import Diagnostic, FilesError, NotYetError
from engine.load.document import Route, listed
from engine.load.format import duration
from engine.load.render import (
    Scope,
    TemplateError,
    condition,
    condition_names,
    is_template,
    render,
    render_known,
)
from engine.load.runbook import LoadedRunbook
from engine.load.steps import Source, check_problems
from engine.load.validation import diagnostics

CHECK_ACTION = "check"
"""The one action the format itself knows: its parameters are a list of checks, as in `verify`."""


class Resolver:
    """Renders and validates the steps of one loaded runbook. Implements `core.resolved.Resolver`."""

    def __init__(
        self,
        loaded: LoadedRunbook,
        actions: Mapping[str, type],
        checks: Mapping[str, type],
        undo: Mapping[str, Any] | None = None,
    ) -> None:
        """`undo`: what the `undo:` of an action's step may be; not judged when it is not given."""
        self._loaded, self._actions, self._checks, self._undo_types = loaded, actions, checks, undo
        self._settled: tuple[Any, dict[str, Any]] | None = None

    def resolve(self, step: Step, registered: Mapping[str, Any]) -> Resolved:
        """NotYetError when a name is registered by a step that has not run; FilesError when the result is invalid."""
        scope = self._scope(step, registered)
        reason = self._skipped(step, scope)
        if reason:
            return Resolved(params=None, skip=True, reason=reason)
        work = _Work(self._loaded.sources[step.id], scope)
        params = work.rendered(step.params, (step.action,))
        verify = work.rendered(list(step.verify), ("verify",))
        unless = work.rendered(list(step.unless), ("unless",))
        undo = work.rendered(step.undo, ("undo",))
        work.finish()
        model = self._params(work, step, params)
        self._undo(work, step, undo)
        specs = self._specs(work, verify, ("verify",))
        conditions = self._specs(work, unless, ("unless",))
        work.finish()
        return Resolved(
            params=model,
            verify=specs,
            unless=conditions,
            undo=undo,
            variables=self._variables(step, registered, scope),
        )

    def validate(self, step: Step) -> list[Diagnostic]:
        """What can be said of a step before any has run: values that need what a step registers count as right."""
        scope = self._scope(step, {})
        work = _Work(self._loaded.sources[step.id], scope, lenient=True)
        try:
            reason = self._skipped(step, scope)
        except NotYetError:
            reason = ""
        except FilesError as error:
            return list(error.diagnostics)
        work.raw = bool(reason)
        params = work.rendered(step.params, (step.action,))
        verify = work.rendered(list(step.verify), ("verify",))
        unless = work.rendered(list(step.unless), ("unless",))
        undo = work.rendered(step.undo, ("undo",))
        if not work.problems:
            self._undo(work, step, undo)
            self._params(work, step, params)
            self._specs(work, verify, ("verify",))
            self._specs(work, unless, ("unless",))
        return work.problems

    def partly(self, step: Step) -> Any:
        """The step's parameters with what can be rendered before any step has run; as written when that fails."""
        return self.parts(step)[step.action]

    def parts(self, step: Step) -> dict[str, Any]:
        """The same of its action, `verify` and `unless`, by key."""
        written = {step.action: step.params, "verify": list(step.verify), "unless": list(step.unless)}
        try:
            scope = self._scope(step, {})
            return written if self._skipped(step, scope) else dict(render_known(written, scope))
        except (FilesError, TemplateError, NotYetError):
            return written

    def _scope(self, step: Step, registered: Mapping[str, Any]) -> Scope:
        base = self._loaded.scope
        if not step.vars and not registered:
            return base
        looped = self._loaded.sources[step.id].looped
        item = {"item": step.vars["item"]} if looped else {}
        values = {name: value for name, value in registered.items() if name not in step.vars}
        pending = frozenset(base.pending) - step.vars.keys()
        return Scope({**base.variables, **step.vars}, {**values, **item}, pending)

    def _skipped(self, step: Step, scope: Scope) -> str:
        """Why `when` leaves the step out, with the values it looked at; empty when it does not."""
        if step.when is None:
            return ""
        source = self._loaded.sources[step.id]
        try:
            if condition(step.when, scope):
                return ""
        except TemplateError as error:
            route = (*source.route, "when")
            found = [source.document.problem(route, f"when: {p.message}", needle=p.needle) for p in error.problems]
            raise FilesError(found) from error
        shown = [
            f"{name} is {scope.get(name)}"
            for name in sorted(condition_names(step.when))
            if name in scope.variables and isinstance(scope.get(name), str | int | float | bool)
        ]
        return f"when {step.when}" + (f" ({', '.join(shown)})" if shown else "")

    def _params(self, work: _Work, step: Step, data: Any) -> Any:
        if step.action == CHECK_ACTION:
            specs = self._specs(work, data, (step.action,))
            if work.problems:
                return None
            read = ({"fresh": spec.fresh} for spec in specs)  # not the text, which may be a template still
            data = [{**entry, **more} if "fresh" in entry else entry for entry, more in zip(data, read, strict=True)]
        return work.validated(self._actions[step.action], data, (step.action,), step.action)

    def _undo(self, work: _Work, step: Step, undo: Any) -> None:
        """Judge the way back its author wrote; the action gets it as it is written."""
        if undo is None or self._undo_types is None:
            return
        if step.action in self._undo_types:
            work.validated(self._undo_types[step.action], undo, ("undo",), "undo")
            return
        known = listed(self._undo_types)
        message = f'"{step.action}" takes no undo (only: {known}): leave it out, or say `irreversible: why`'
        work.problems.append(work.source.document.problem((*work.source.route, "undo"), message, key=True))

    def _specs(self, work: _Work, entries: Any, route: Route) -> tuple[CheckSpec, ...]:
        problems = check_problems(entries, work.source.document, (*work.source.route, *route), self._checks)
        work.problems += problems
        if problems:
            return ()
        specs = []
        for index, entry in enumerate(entries):
            family = next(key for key in entry if key in self._checks)
            fresh = work.fresh(entry.get("fresh"), (*route, index, "fresh"))
            params = work.validated(self._checks[family], entry[family], (*route, index, family), family)
            specs.append(CheckSpec(family, params, fresh))
        return tuple(specs)

    def _variables(self, step: Step, registered: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
        """Everything that can be rendered for the step; the same for all steps without variables of their own."""
        if step.vars:
            return scope.settled()
        settled = self._settled  # read once: steps are planned by several threads
        if settled is None or settled[0] != registered:
            settled = self._settled = (dict(registered), scope.settled())
        return settled[1]


class _Work:
    """Rendering and validating parts of one step; mistakes collect in `problems`."""

    def __init__(self, source: Source, scope: Scope, *, lenient: bool = False) -> None:
        self.source, self._scope, self._lenient = source, scope, lenient
        self.raw = False
        """Do not render at all: the step is left out here, its variables may not even exist."""
        self.problems: list[Diagnostic] = []

    def rendered(self, tree: Any, route: Route) -> Any:
        if self.raw:
            return tree
        try:
            return render_known(tree, self._scope) if self._lenient else render(tree, self._scope)
        except TemplateError as error:
            self.problems += [
                self.source.document.problem((*self.source.route, *route, *p.route), p.message, needle=p.needle)
                for p in error.problems
            ]
            return tree

    def validated(self, model: Any, data: Any, route: Route, what: str) -> Any:
        is_model = isinstance(model, type) and issubclass(model, BaseModel)
        try:
            return model.model_validate(data) if is_model else TypeAdapter(model).validate_python(data)
        except ValidationError as error:
            at = (*self.source.route, *route)
            found = diagnostics(error, self.source.document, at, model, data, what=what, lenient=self._lenient)
            self.problems += found
            return None

    def fresh(self, text: Any, route: Route) -> Any:
        if text is None or (self._lenient and is_template(text)):
            return None
        try:
            return duration(text)
        except ValueError as error:
            self.problems.append(self.source.document.problem((*self.source.route, *route), f"fresh {error}"))
            return None

    def finish(self) -> None:
        if self.problems:
            raise FilesError(self.problems)
