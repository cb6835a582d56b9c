"""`approval`: a person says yes before the run goes on. Who, when, and to which plan is in the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from engine.actions.event import JournaledEvent
from engine.core.action import Context
from engine.core.change import Outcome
from engine.core.ports import Asker, Evidence
from engine.errors import RefusedError


class ApprovalParams(BaseModel):
    """One question to a person."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1, description="What is asked, to be answered with yes or no.")
    role: str = Field(default="", description="Who should answer. Shown and recorded; nothing enforces it.")


class ApprovalAction(JournaledEvent):
    """Evidence, not enforcement, where a person holds the deploy credentials themselves."""

    key: ClassVar[str] = "approval"
    Params: ClassVar[type] = ApprovalParams
    leaves: ClassVar[frozenset[str]] = frozenset({"by", "at"})

    def __init__(self, asker: Asker, evidence: Evidence, plan_digest: Callable[[Context], str]) -> None:
        """`plan_digest` gives the digest of the plan that the run carries out."""
        super().__init__(evidence)
        self._asker = asker
        self._plan_digest = plan_digest

    def name(self, params: ApprovalParams, ctx: Context) -> str:
        return f"approval {ctx.step}"

    def describe(self, params: ApprovalParams) -> str:
        return f"{params.role} answers: {params.question}" if params.role else params.question

    def proof(self, found: Mapping[str, Any]) -> str:
        return f"approved by {found['by']} at {found['at']}"

    def happen(self, params: ApprovalParams, ctx: Context) -> Outcome:
        question = f"{params.question} ({params.role})" if params.role else params.question
        ctx.progress(f"{question} Type yes or no, then Enter")  # a live display would draw over a bare prompt
        answer = self._asker.ask(question)
        if answer is None:
            raise RefusedError(
                f"{ctx.step}: nobody can be asked here: {question}\n"
                "  answer it    runbook resume   (at a terminal, without --no-input)"
            )
        if not answer.yes:
            raise RefusedError(f"{ctx.step}: {answer.by} did not approve: {question}")
        evidence = {"by": answer.by, "at": answer.at, "plan": self._plan_digest(ctx), "question": params.question}
        if params.role:
            evidence["role"] = params.role
        return Outcome(summary=f"approved by {answer.by}", evidence=evidence)
