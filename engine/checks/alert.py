"""`alert`: a test alert that Alertmanager must deliver, and its end too. Sent for real: whoever is on call gets it.

Two witnesses. Alertmanager's own counters say that each integration accepted the message, which can be asked anywhere.
Where a receiver can be asked itself (an emulator, a mailbox with an API), it must hold the message.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import quote

from pydantic import Field

from engine.checks.looking import CheckModel, Served, finding_of, shorten
from engine.core.action import Context, Finding
from engine.core.ports import Cluster
from engine.core.services import Http
from engine.errors import PermanentError, RunbookError, TemporaryError

TOKEN = "runbook_test"  # noqa: S105  # the label that tells one test from another
_PAUSE = 0.5  # seconds between two looks
_COUNTER = re.compile(r'^(alertmanager_notifications(?:_failed)?_total)\{[^}]*integration="(\w+)"[^}]*\} (\S+)$', re.M)
_Counts = Mapping[tuple[str, str], float]


class Receiver(CheckModel):
    """One that can be asked what it got."""

    name: str = Field(min_length=1, description="What to call it.")
    url: str = Field(
        pattern=r"^https?://", description="Answers with what it got; {token} in it stands for the test's own word."
    )
    ca: str = Field(default="", description="CA file that must have signed its certificate; empty: the system's.")
    firing: str = Field(default="FIRING", description="Text that tells a message about a firing alert.")
    resolved: str = Field(default="RESOLVED", description="Text that tells one about its end.")


class AlertParams(Served):
    """What is sent, and where it must arrive."""

    labels: dict[str, str] = Field(min_length=1, description="Labels of the test alert; they choose its route.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Its annotations.")
    integrations: list[str] = Field(
        min_length=1, description="Integrations (`email`, `slack`, `pagerduty`, …) that must each deliver it."
    )
    receivers: list[Receiver] = Field(default_factory=list, description="Receivers that can be asked themselves.")
    seconds: float = Field(
        default=120, gt=0, le=3600, description="How long each way may take: more than the route's group_interval."
    )


class AlertCheck:
    """Sends, waits until it arrived everywhere, resolves, waits again. It ends the alert also when it fails."""

    key: ClassVar[str] = "alert"
    Params: ClassVar[type] = AlertParams

    def __init__(self, http: Http, cluster: Cluster) -> None:
        self._http = http
        self._cluster = cluster

    def run(self, params: AlertParams, ctx: Context) -> Finding:
        return finding_of(lambda: self._look(params, ctx))

    def _look(self, params: AlertParams, ctx: Context) -> Finding:
        token = f"t{secrets.token_hex(6)}"
        with params.place(self._cluster) as place:
            test = _Test(params, token, self._http, place, ctx)
            started, before = datetime.now(UTC), test.counts()
            resolved = False
            try:
                test.send(started, started + timedelta(seconds=2 * params.seconds + 60))
                fired = test.await_delivery(before, "firing")
                if fired.ok:
                    between = test.counts()
                    test.send(started, datetime.now(UTC))
                    resolved = True
                    ended = test.await_delivery(between, "resolved")
                    return Finding(ended.ok, f"{fired.saw}; {ended.saw}", final=not ended.ok)
                return Finding(False, fired.saw, final=True)
            finally:
                if not resolved:
                    test.end_quietly(started)


class _Test:
    """One test alert on its way."""

    def __init__(
        self, params: AlertParams, token: str, http: Http, place: tuple[str, int] | None, ctx: Context
    ) -> None:
        self._params, self._token, self._http, self._place, self._ctx = params, token, http, place, ctx

    def send(self, starts: datetime, ends: datetime) -> None:
        """Alertmanager's API v2. PermanentError when it refuses the alert."""
        alert = {
            "labels": {**self._params.labels, TOKEN: self._token},
            "annotations": self._params.annotations,
            "startsAt": starts.isoformat(),
            "endsAt": ends.isoformat(),
        }
        url = f"{self._params.base}/api/v2/alerts"
        answer = self._http.request("POST", url, connect_to=self._place, body=[alert], deadline=self._ctx.deadline)
        if answer.status >= 500:
            raise TemporaryError(f"Alertmanager answered {answer.status}: {shorten(answer.body)}")
        if answer.status != 200:
            raise PermanentError(f"Alertmanager answered {answer.status}: {shorten(answer.body)}")

    def end_quietly(self, started: datetime) -> None:
        """What failed must not stay on anybody's screen; it ends by itself when this is not heard."""
        try:
            self.send(started, datetime.now(UTC))
        except RunbookError as error:
            self._ctx.progress(f"the test alert could not be ended, it ends by itself: {error}")

    def counts(self) -> _Counts:
        """Notifications so far, by counter and integration."""
        url = f"{self._params.base}/metrics"
        answer = self._http.request("GET", url, connect_to=self._place, deadline=self._ctx.deadline)
        return totals(answer.body)

    def await_delivery(self, before: _Counts, what: str) -> Finding:
        """Until every integration counted one more and every receiver holds it; what is missing when time is up."""
        began = datetime.now(UTC)
        end = began + timedelta(seconds=self._params.seconds)
        while True:
            missing = [*self._uncounted(before), *self._not_received(what)]
            took = (datetime.now(UTC) - began).total_seconds()
            if not missing:
                told = (
                    f" and held by {', '.join(r.name for r in self._params.receivers)}"
                    if self._params.receivers
                    else ""
                )
                return Finding(
                    True, f"{what}: delivered by {', '.join(self._params.integrations)}{told} in {took:.1f} s"
                )
            if datetime.now(UTC) >= end or not self._ctx.deadline.remaining():
                return Finding(False, f"{what}: after {took:.0f} s {'; '.join(missing)}")
            self._ctx.deadline.check(f"waiting for the test alert ({what}): {'; '.join(missing)}")
            self._ctx.progress(f"test alert {what}: {'; '.join(missing)}")
            self._ctx.deadline.wait(_PAUSE)

    def _uncounted(self, before: _Counts) -> Iterable[str]:
        now = self.counts()
        for name in self._params.integrations:
            sent, failed = (
                now.get((counter, name), 0) - before.get((counter, name), 0)
                for counter in ("alertmanager_notifications_total", "alertmanager_notifications_failed_total")
            )
            if failed > 0:
                yield f"{name} failed: Alertmanager's log says why"
            elif sent < 1:
                yield f"{name} has sent nothing"

    def _not_received(self, what: str) -> Iterable[str]:
        for receiver in self._params.receivers:
            url = receiver.url.replace("{token}", quote(self._token, safe=""))
            ca = str(self._ctx.inputs.path(receiver.ca)) if receiver.ca else ""
            answer = self._http.request("GET", url, ca=ca, deadline=self._ctx.deadline)
            marker = receiver.firing if what == "firing" else receiver.resolved
            if answer.status != 200:
                yield f"{receiver.name} answered {answer.status}"
            elif not holds(answer.body, self._token, marker):
                yield f"{receiver.name} does not have it"


def totals(text: str) -> _Counts:
    """Alertmanager's counters of notifications, summed over what else they are labelled with."""
    sums: dict[tuple[str, str], float] = {}
    for counter, integration, value in _COUNTER.findall(text):
        sums[counter, integration] = sums.get((counter, integration), 0.0) + float(value)
    return sums


def holds(body: str, token: str, marker: str) -> bool:
    """Whether one message holds both; the body is a JSON list of messages, or anything else as one."""
    try:
        document: Any = json.loads(body)
    except ValueError:
        document = body
    messages = document if isinstance(document, list) else [document]
    return any(token in text and marker in text for text in (json.dumps(m) for m in messages))
