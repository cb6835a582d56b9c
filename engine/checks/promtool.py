"""`promtool`: rule files that Prometheus's own tool accepts, and whose tests pass. It asks no server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from engine.checks.looking import CheckModel, finding_of, shorten
from engine.core.action import Context, Finding
from engine.core.processes import Launcher
from engine.errors import PermanentError

_SUFFIXES = {".yaml", ".yml"}
_SHOWN = 600  # characters of what promtool says is wrong: a failed test names its alert and both sides


class PromtoolParams(CheckModel):
    """Rules, and tests of them."""

    rules: str = Field(min_length=1, description="A file or folder of rule files, as Prometheus loads them.")
    tests: str = Field(default="", description="A file or folder of `promtool test rules` files; empty: none.")


class PromtoolCheck:
    """Runs promtool, which comes with Prometheus."""

    key: ClassVar[str] = "promtool"
    Params: ClassVar[type] = PromtoolParams

    def __init__(self, launcher: Launcher, program: str) -> None:
        self._launcher = launcher
        self._program = program

    def run(self, params: PromtoolParams, ctx: Context) -> Finding:
        return finding_of(lambda: self._look(params, ctx))

    def _look(self, params: PromtoolParams, ctx: Context) -> Finding:
        rules = _files(ctx.inputs.path(params.rules), params.rules)
        tests = _files(ctx.inputs.path(params.tests), params.tests) if params.tests else []
        for doing, files in (("check", rules), ("test", tests)):
            if not files:
                continue
            done = self._launcher.run(
                [self._program, doing, "rules", *(f.name for f in files)], cwd=files[0].parent, deadline=ctx.deadline
            )
            if done.code:
                said = f"{done.stdout}\n{done.stderr}"
                return Finding(False, f"promtool {doing} rules: {shorten(_wrong(said), _SHOWN)}", final=True)
        names = ", ".join(f.name for f in rules)
        return Finding(True, f"{names}: good{f'; {len(tests)} test files pass' if tests else ''}")


def _files(path: Path, name: str) -> Sequence[Path]:
    """The file itself, or the YAML files right in the folder. PermanentError when there is none."""
    found = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES)
    if not found:
        raise PermanentError(f"{name}: no YAML file in it")
    return found


def _wrong(said: str) -> str:
    """Without the files that are good."""
    lines = said.splitlines()
    start = next((i for i, line in enumerate(lines) if "FAILED" in line), 0)
    return "\n".join(lines[start - 1 if start else 0 :])
