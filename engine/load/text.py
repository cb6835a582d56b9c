"""Whole files as templates: a manifest's text with the step's variables in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from jinja2 import TemplateSyntaxError

from engine.errors import Diagnostic, FilesError, NotYetError, Position
from engine.load.document import Document, Mark
from engine.load.render import Scope, TemplateError, needed, translated
from engine.load.sandbox import compiled_file


def render_file(text: str, variables: Mapping[str, Any], name: str, pending: Collection[str] = ()) -> str:
    """The text of file `name` rendered; values are never rendered again.

    FilesError at the place of a mistake; NotYetError when a name in `pending` (registered by a step that has not run)
    has no value yet.
    """
    if "{{" not in text and "{%" not in text and "{#" not in text:
        return text
    scope = Scope(values=variables, pending=pending)
    try:
        template = compiled_file(text)
        return str(template.evaluate(needed(template.names, scope)))
    except NotYetError:
        raise
    except Exception as error:
        told = translated(error, name, scope, ())
        raise FilesError([_diagnostic(text, name, told, error)]) from error


def _diagnostic(text: str, name: str, told: TemplateError, error: Exception) -> Diagnostic:
    """Where the part of the text it is about stands first within a template; else the line Jinja names."""
    problem = told.problems[0]
    document = Document(name, None, tuple(text.splitlines()))
    line = error.lineno if isinstance(error, TemplateSyntaxError) and not problem.needle else 0
    mark = Mark(Position(name, max(1, line), 1), 1)
    for number, content in enumerate(document.lines, 1) if problem.needle else ():
        opened = min((at for sign in ("{{", "{%") if (at := content.find(sign)) >= 0), default=-1)
        column = content.find(problem.needle, opened)
        if 0 <= opened < column:
            mark = Mark(Position(name, number, column + 1), len(problem.needle))
            break
    return document.at_mark(mark, problem.message)
