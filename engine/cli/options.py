"""The options and arguments that commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.output import Output


def environment_names() -> list[str]:
    """The environments of the project around the working directory, for completion and `status`. Reads names only."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        inventories = folder / "inventories"
        if inventories.is_dir():
            return sorted(p.name for p in inventories.iterdir() if p.is_dir() and not p.name.startswith("."))
    return []


def _complete(incomplete: str) -> list[str]:
    return [name for name in environment_names() if name.startswith(incomplete)]


_ENVIRONMENT = "One of the folders under inventories/."

Environment = Annotated[str, typer.Argument(metavar="ENV", help=_ENVIRONMENT, autocompletion=_complete)]
MaybeEnvironment = Annotated[str, typer.Argument(metavar="ENV", help=_ENVIRONMENT, autocompletion=_complete)]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, as `runbook history` shows it.")]
StepName = Annotated[str, typer.Argument(metavar="STEP", help="A step's id, with or without its phase.")]
MaybeRun = Annotated[str, typer.Argument(metavar="RUN", help="A run's id; default: the environment's last.")]

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output; see docs/commands.md.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every check, every step, and tracebacks.")]
NoColour = Annotated[bool, typer.Option("--no-color", help="No colours; NO_COLOR in the environment does the same.")]

Extra = Annotated[
    list[str] | None,
    typer.Option("--extra-vars", "-e", metavar="K=V", help="A variable over the inventory's; may be repeated."),
]
RunbookName = Annotated[str, typer.Option("--runbook", metavar="NAME", help="Which of the project's runbooks.")]
NoInput = Annotated[bool, typer.Option("--no-input", help="Never ask; refuse (exit 4) what needs an answer.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to what would be asked.")]


def speaking(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that every command has; it gets them as its first argument, `output`."""
    shared = {"as_json": Json, "verbose": Verbose, "no_colour": NoColour}
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "output"]

    @functools.wraps(command)
    def run(*, as_json: bool, verbose: bool, no_colour: bool, **arguments: Any) -> int:
        return command(Output(as_json, verbose, no_colour), **arguments)

    # What the CLI library reads, instead of the signature above.
    added = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=shared[n]) for n in shared]
    run.__dict__["__signature__"] = inspect.Signature([*own, *added], return_annotation=int)
    run.__annotations__ = {p.name: p.annotation for p in (*own, *added)}
    return run
