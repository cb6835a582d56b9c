"""`promql`: what Prometheus knows: a query's value, its targets, its rules."""

from __future__ import annotations

import json
from typing import Any, ClassVar
from urllib.parse import urlencode

from pydantic import Field, model_validator

from engine.checks.looking import Expected, Served, finding_of, shorten
from engine.core.action import Context, Finding
from engine.core.ports import Cluster
from engine.core.services import Http
from engine.errors import PermanentError, TemporaryError


class PromqlParams(Served, Expected):
    """One or more looks at one Prometheus; all must be right."""

    query: str = Field(
        default="", description="Instant query; each of its values must be as expected, and there must be one."
    )
    targets_up: bool = Field(default=False, description="True: every active target must be up.")
    rule_loaded: str = Field(
        default="", description="Name of an alert or recording rule that must be loaded and healthy."
    )

    @model_validator(mode="after")
    def _complete(self) -> PromqlParams:
        if not (self.query or self.targets_up or self.rule_loaded):
            raise ValueError("wants `query`, `targets_up` or `rule_loaded`")
        return self


class PromqlCheck:
    """Asks Prometheus's HTTP API."""

    key: ClassVar[str] = "promql"
    Params: ClassVar[type] = PromqlParams

    def __init__(self, http: Http, cluster: Cluster) -> None:
        self._http = http
        self._cluster = cluster

    def run(self, params: PromqlParams, ctx: Context) -> Finding:
        return finding_of(lambda: self._look(params, ctx))

    def _look(self, params: PromqlParams, ctx: Context) -> Finding:
        findings = []
        if params.query:
            findings.append(self._query(params, ctx))
        if params.targets_up:
            findings.append(self._targets(params, ctx))
        if params.rule_loaded:
            findings.append(self._rule(params, ctx))
        return Finding(all(f.ok for f in findings), "; ".join(f.saw for f in findings))

    def _query(self, params: PromqlParams, ctx: Context) -> Finding:
        answer = self._get(params, f"/api/v1/query?{urlencode({'query': params.query})}", ctx)
        result = answer["result"]
        samples = [result[1]] if answer["resultType"] in ("scalar", "string") else [s["value"][1] for s in result]
        if not samples:
            return Finding(False, "the query gives nothing")
        findings = [params.judge(sample) for sample in samples]
        wrong = [f for f in findings if not f.ok]
        return Finding(not wrong, ", ".join(f.saw for f in (wrong or findings)[:5]))

    def _targets(self, params: PromqlParams, ctx: Context) -> Finding:
        active = self._get(params, "/api/v1/targets?state=active", ctx)["activeTargets"]
        down = [t for t in active if t["health"] != "up"]
        if down or not active:
            named = ", ".join(
                f"{t['scrapeUrl']} {t['health']} ({shorten(t.get('lastError') or 'no answer yet')})" for t in down
            )
            return Finding(False, f"{len(active) - len(down)} of {len(active)} targets up: {named or 'there is none'}")
        return Finding(True, f"{len(active)} of {len(active)} targets up")

    def _rule(self, params: PromqlParams, ctx: Context) -> Finding:
        groups = self._get(params, "/api/v1/rules", ctx)["groups"]
        rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
        rule = rules.get(params.rule_loaded)
        if rule is None:
            return Finding(False, f"rule {params.rule_loaded} is not among the {len(rules)} loaded")
        # A rule that was loaded a moment ago has health `unknown` until its first evaluation.
        return Finding(rule["health"] == "ok", f"rule {params.rule_loaded} loaded, health {rule['health']}")

    def _get(self, params: PromqlParams, path: str, ctx: Context) -> Any:
        with params.place(self._cluster) as place:
            answer = self._http.request("GET", params.base + path, connect_to=place, deadline=ctx.deadline)
        try:
            document = json.loads(answer.body)
        except ValueError:
            raise TemporaryError(f"Prometheus answered {answer.status} without JSON: {shorten(answer.body)}") from None
        if document.get("status") != "success":
            raise PermanentError(f"Prometheus answered {answer.status}: {shorten(str(document.get('error')))}")
        return document["data"]
