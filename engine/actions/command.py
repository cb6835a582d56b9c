"""`command`: a program on the machine that runs the engine. For what no other action does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from engine.actions.event import JournaledEvent
from engine.core.action import Context
from engine.core.change import Fidelity, Outcome
from engine.core.ports import Evidence
from engine.core.processes import Launcher
from engine.errors import InDoubtError, PermanentError

_KEPT = 16_000  # characters of standard output that `register` keeps: its end
_SHOWN = 20  # lines of an error that are shown


class CommandParams(BaseModel):
    """One program with its arguments. No shell: nothing in an argument is interpreted."""

    model_config = ConfigDict(extra="forbid")

    argv: list[str] = Field(min_length=1, description="Program and arguments. They are visible in `ps`: no secrets.")
    stdin: str = Field(default="", description="Given to the program as standard input.")
    env: dict[str, str] = Field(default_factory=dict, description="Beside PATH, HOME and LANG, its whole environment.")
    creates: str = Field(default="", description="Absolute path of what it leaves behind. When it is there, it ran.")
    repeatable: bool = Field(
        default=False, description="May run again when a crash left it open whether it had finished."
    )

    @field_validator("argv", "env", "creates")
    @classmethod
    def _passable(cls, value: Any) -> Any:
        """What the system cannot pass on is a mistake here, not a failure in the middle of a run."""
        texts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if any("\0" in text for text in texts):
            raise ValueError("holds a NUL character, which no program can be given")
        if isinstance(value, dict) and any(not name or "=" in name for name in value):
            raise ValueError("a name of the environment must not be empty or hold a =")
        return value

    @field_validator("argv")
    @classmethod
    def _names_a_program(cls, value: list[str]) -> list[str]:
        if not value[0]:
            raise ValueError("should begin with a program; the first word is empty")
        return value

    @field_validator("creates")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if value and "{{" not in value and not value.startswith("/"):
            raise ValueError(f"'{value}' should be an absolute path")
        return value


class CommandAction(JournaledEvent):
    """Once per run, or per `fresh` window, or while what it `creates` is missing."""

    key: ClassVar[str] = "command"
    Params: ClassVar[type] = CommandParams
    fidelity: ClassVar[Fidelity] = Fidelity.OPAQUE

    def __init__(self, launcher: Launcher, evidence: Evidence) -> None:
        super().__init__(evidence)
        self._launcher = launcher

    def name(self, params: CommandParams, ctx: Context) -> str:
        return f"command {ctx.step}"

    def describe(self, params: CommandParams) -> str:
        return Path(params.argv[0]).name

    def find(self, params: CommandParams, ctx: Context) -> Mapping[str, Any] | None:
        """Raises InDoubtError for one that a crash interrupted and that must not simply run again."""
        if params.creates:
            return {"creates": params.creates} if Path(params.creates).exists() else None
        found = super().find(params, ctx)
        if found is None and ctx.resuming and not params.repeatable:
            raise InDoubtError(
                f"{ctx.step}: {params.argv[0]} was started before the crash, and nothing tells whether it finished.\n"
                f"  look at what it changes, then\n"
                f"  it happened   runbook resume ENVIRONMENT --done {ctx.step}\n"
                f"  it did not    runbook resume ENVIRONMENT --again {ctx.step}\n"
                "  (a step that may run twice says `repeatable: true`; one that leaves a file names it with `creates:`)"
            )
        return found

    def proof(self, found: Mapping[str, Any]) -> str:
        return f"{found['creates']} is there" if "creates" in found else super().proof(found)

    def happen(self, params: CommandParams, ctx: Context) -> Outcome:
        program = Path(params.argv[0]).name
        done = self._launcher.run(
            params.argv,
            stdin=params.stdin.encode(),
            env=params.env,
            deadline=ctx.deadline,
            on_line=ctx.progress,
        )
        if done.code:
            said = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-_SHOWN:])
            raise PermanentError(f"{ctx.step}: {program} ended with {done.code}" + (f":\n{said}" if said else ""))
        if params.creates and not Path(params.creates).exists():
            raise PermanentError(f"{ctx.step}: {program} ended well, but {params.creates} is not there")
        return Outcome(
            summary=f"{program} ended with 0",
            outputs={"stdout": done.stdout.strip()[-_KEPT:]},
            evidence={"program": program, "code": done.code},
        )
