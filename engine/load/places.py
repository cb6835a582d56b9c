"""An environment's own files: judged before Ansible reads them, and where each of its variables is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ValidationError

from engine.core.action import EXTRA_VARIABLES
from engine.errors import Diagnostic, FilesError, NotYetError, Position
from engine.load import yaml
from engine.load.document import Document, Route
from engine.load.render import Scope, TemplateError
from engine.load.tree import contents
from engine.load.validation import told

_SUFFIXES = frozenset({".yml", ".yaml", ".json"})
_VARIABLES = frozenset({"group_vars", "host_vars"})
_ENCRYPTED = b"$ANSIBLE_VAULT"


def inventory_documents(root: Path, folder: Path) -> list[Document]:
    """Every YAML file of an inventory. FilesError with every mistake in them: Ansible takes a key that is given twice.

    Left to Ansible are scripts, INI files, and files that are encrypted as a whole.
    """
    documents: list[Document] = []
    problems: list[Diagnostic] = []
    shown = PurePosixPath(folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder))
    for name, content, executable in contents(folder, root):
        path = PurePosixPath(name)
        of_variables = path.parts[0] in _VARIABLES
        is_yaml = path.suffix in _SUFFIXES or (of_variables and not path.suffix)
        if not is_yaml or (executable and not of_variables) or content.startswith(_ENCRYPTED):
            continue
        try:
            documents.append(yaml.parse(content, str(shown / path), ansible=True))
        except FilesError as error:
            problems += error.diagnostics
    if problems:
        raise FilesError(problems)
    return documents


@dataclass(frozen=True, slots=True)
class Places:
    """Where variables are written. `folder` is the inventory, as a diagnostic names it."""

    folder: str
    documents: Sequence[Document]
    variables: Mapping[str, Any]
    """As Ansible has them, then `-e`: which of several places counts is the one with this value."""
    own: Document | None = None
    """The runbook's `runbook.yml`: its `vars` hold where the inventory says nothing."""

    def problem(self, name: str, inside: Route, message: str) -> Diagnostic:
        """A mistake in a variable; `inside` leads on into its value."""
        if name in self.variables.get(EXTRA_VARIABLES, {}):
            return Diagnostic(Position("-e", 1, 1), message)
        found = self._found(name)
        if found is None:
            return Diagnostic(Position(f"{self.folder}/hosts.yml", 1, 1), message)
        document, route = found
        return document.problem((*route, *inside), message)

    def _found(self, name: str) -> tuple[Document, Route] | None:
        candidates = [(rank, d, route) for d in self.documents for rank, route in self._written(d, name)]
        same = [c for c in candidates if str(_value(c[1].data, c[2])) == str(self.variables.get(name))]
        best = max(same or candidates, key=lambda c: c[0], default=None)
        if best is not None:
            return best[1], best[2]
        return (self.own, ("vars", name)) if self.own and ("vars", name) in self.own.keys else None

    def _written(self, document: Document, name: str) -> Iterator[tuple[int, Route]]:
        """The places in a file, with how strong Ansible holds them: all hosts, a group, a host."""
        path = PurePosixPath(document.file).relative_to(self.folder)
        kind = path.parts[0]
        for route in document.keys:
            if route[-1] != name:
                continue
            if kind in _VARIABLES and len(route) == 1:
                whose = PurePosixPath(path.parts[1]).stem
                yield 3 if kind == "host_vars" else 1 if whose == "all" else 2, route
            elif kind not in _VARIABLES and "vars" in route[-2:-1]:
                yield 0, route
            elif kind not in _VARIABLES and "hosts" in route[-3:-2]:
                yield 3, route


def settings_problems(
    root: Path,
    runbook: Path,
    environment: str,
    variables: Mapping[str, Any],
    scope: Scope,
    model: type[BaseModel] | None,
) -> list[Diagnostic]:
    """What is wrong with the variables that the engine itself reads, each at its place in the inventory, else in the
    `runbook.yml` of that folder. Nothing without an environment or a model."""
    folder = f"inventories/{environment}"
    if model is None or not environment or not (root / folder).is_dir():
        return []
    try:
        own = yaml.read(root, runbook / "runbook.yml")
    except FilesError:
        own = None
    places = Places(folder, inventory_documents(root, root / folder), variables, own)
    values: dict[str, Any] = {}
    problems: list[Diagnostic] = []
    for name in model.model_fields:
        if name not in scope.names:
            continue
        try:
            values[name] = scope.get(name)
        except NotYetError:
            continue
        except TemplateError as error:
            problems += [places.problem(name, (), p.message) for p in error.problems]
    try:
        model.model_validate(values)
    except ValidationError as error:
        for route, _key, message in told(error, model, values, what="the environment"):
            named = [str(route[0])] if route else [n for n in re.findall(r"\w+", message) if n in values]
            shown = message.removeprefix("the environment ")
            problems.append(places.problem(named[0] if named else "", route[1:], shown))
    return problems


def _value(data: Any, route: Route) -> Any:
    for part in route:
        data = data[part]
    return data
