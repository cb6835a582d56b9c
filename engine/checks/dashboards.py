"""`dashboards`: every query of every panel in a folder of Grafana dashboards gives data, asked of Prometheus itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

from pydantic import Field

from engine.checks.looking import Served, finding_of, shorten
from engine.core.action import Context, Finding
from engine.core.ports import Cluster
from engine.core.services import Http
from engine.errors import PermanentError, TemporaryError

_NAMED = 5  # queries without data that a finding names
# What Grafana puts in for its own variables; a range that holds several scrapes.
_BUILT_IN = {
    "__interval": "1m", "__rate_interval": "2m", "__range": "15m",
    "__interval_ms": "60000", "__range_s": "900", "__range_ms": "900000",
}  # fmt: skip
_VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$([A-Za-z_]\w*)|\[\[(\w+)\]\]")  # not the $1 of label_replace


class DashboardsParams(Served):
    """A folder of dashboards and the Prometheus they show."""

    folder: str = Field(min_length=1, description="Folder of dashboards, a JSON file each.")
    variables: dict[str, str] = Field(
        default_factory=dict, description="Values of the dashboards' own variables; else their `current` value."
    )


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one panel."""

    dashboard: str
    panel: str
    expression: str

    def __str__(self) -> str:
        return f"{self.dashboard}, panel '{self.panel}': {self.expression}"


class DashboardsCheck:
    """Asks each query once, as Grafana would."""

    key: ClassVar[str] = "dashboards"
    Params: ClassVar[type] = DashboardsParams

    def __init__(self, http: Http, cluster: Cluster) -> None:
        self._http = http
        self._cluster = cluster

    def run(self, params: DashboardsParams, ctx: Context) -> Finding:
        return finding_of(lambda: self._look(params, ctx))

    def _look(self, params: DashboardsParams, ctx: Context) -> Finding:
        files = sorted(ctx.inputs.path(params.folder).glob("*.json"))
        found = [query for file in files for query in queries(file, params.variables)]
        if not found:
            raise PermanentError(f"{params.folder}: no dashboard with a query in it")
        wrong = []
        with params.place(self._cluster) as place:
            for query in found:
                ctx.deadline.check(f"{self.key}: asking for {query.dashboard}")
                trouble = self._trouble(params, query, place, ctx)
                if trouble:
                    wrong.append(f"{query}: {trouble}")
        if wrong:
            more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
            return Finding(False, f"{len(wrong)} of {len(found)} queries: {'; '.join(wrong[:_NAMED])}{more}")
        return Finding(True, f"{len(files)} dashboards, all {len(found)} queries give data")

    def _trouble(self, params: DashboardsParams, query: Query, place: tuple[str, int] | None, ctx: Context) -> str:
        """What is wrong with a query's answer; empty: it gives data."""
        url = f"{params.base}/api/v1/query?{urlencode({'query': query.expression})}"
        answer = self._http.request("GET", url, connect_to=place, deadline=ctx.deadline)
        try:
            document = json.loads(answer.body)
        except ValueError:
            raise TemporaryError(f"Prometheus answered {answer.status} without JSON: {shorten(answer.body)}") from None
        if document.get("status") != "success":
            return f"Prometheus says {shorten(str(document.get('error')))}"
        return "" if document["data"]["result"] else "gives nothing"


def queries(file: Path, variables: Mapping[str, str]) -> Iterator[Query]:
    """The queries of a dashboard's panels, those inside rows too. PermanentError for what is no dashboard."""
    try:
        dashboard = json.loads(file.read_text())
        title, panels = dashboard["title"], list(_panels(dashboard))
    except (ValueError, KeyError, TypeError) as error:
        raise PermanentError(f"{file.name} is not a Grafana dashboard: {error!r}") from error
    own = {v["name"]: _current(v) for v in dashboard.get("templating", {}).get("list", [])}
    values = {**_BUILT_IN, **own, **variables}
    for panel in panels:
        for target in panel.get("targets", []):
            if target.get("expr"):
                name = f"{file.name} ({title})"
                yield Query(name, panel.get("title", "?"), _filled(target["expr"], values, f"{name}: {panel['title']}"))


def _panels(parent: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for panel in parent.get("panels", []):
        yield panel
        yield from _panels(panel)


def _current(variable: Mapping[str, Any]) -> str:
    value = variable.get("current", {}).get("value", variable.get("query", ""))
    return (
        "|".join(value) if isinstance(value, list) else str(value).replace("$__all", variable.get("allValue") or ".*")
    )


def _filled(expression: str, values: Mapping[str, str], where: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = next(g for g in match.groups() if g)
        if name not in values:
            raise PermanentError(f"{where}: nothing says what ${name} is")
        return values[name]

    return _VARIABLE.sub(value, expression)
