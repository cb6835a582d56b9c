"""The deployment record: one golden document per way a run can end."""

from __future__ import annotations

import json
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest

from engine.core.change import Verb
from engine.core.drill import LOSS
from engine.core.evidence import Beside, Criterion, Found, Judged, Proof, ProofKind, Readiness, Standing
from engine.core.history import StepView
from engine.errors import Position
from engine.report.documents import record_document
from engine.report.html import render_html
from engine.report.record import render
from tests.fakes.story import STEPS, Story, failed, half_way, idle, made, succeeded

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("story", [succeeded, failed, idle, half_way])
def test_golden(story):
    """Set GOLDEN_WRITE to write the expected texts anew; read the difference before you commit it."""
    path = GOLDEN / f"deployment-record-{story.__name__.replace('_', '-')}" / "expected.md"
    text = render(story().view)
    if os.environ.get("GOLDEN_WRITE"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("story", [succeeded, failed])
@pytest.mark.parametrize("suffix", ["html", "json"])
def test_golden_of_other_formats(story, suffix):
    view = story().view
    text = render_html(view) if suffix == "html" else json.dumps(record_document(view), indent=2) + "\n"
    path = GOLDEN / f"deployment-record-{story.__name__}" / f"expected.{suffix}"
    if os.environ.get("GOLDEN_WRITE"):
        path.write_text(text)
    assert text == path.read_text()


def test_readiness_and_drills_stand_beside_the_run():
    """Every form tells them, escaped; a record without them has neither heading."""
    place = Position("readiness.yml", 1, 1)
    held = Proof(ProofKind.CHECK, "core/pakit", "http")
    lacking = Proof(ProofKind.ATTESTATION, "audit")
    go = Judged(
        Criterion("a", "Tested <b>", (held,), place), (Found(held, Standing.HOLDS, "200", "7f3c", "2026-11-24"),)
    )
    no_go = Judged(Criterion("b", "Audit | failed", (lacking,), place), (Found(lacking, Standing.MISSING, "nobody"),))
    drill = Story("d1", kind="drill").start([]).view
    drill.drill = {"id": "volume-lost"}
    result = {"lost": 2, "acknowledged": 412, "rpo_seconds": 1.5, "rto_seconds": 48.2, "misses": ["late"]}
    result["targets"] = {"rpo": 900.0, "rto": 1800.0}
    drill.steps = {LOSS: StepView(LOSS, "judge", "Loss", "loss", evidence=result)}
    told = Beside(Readiness("local", "shop", "2026-11-24T14:02:00+00:00", (go,), (no_go,)), (drill,))
    view = succeeded().view
    text, page, document = render(view, told), render_html(view, told), record_document(view, told)
    assert "✗ NO-GO   0 of 1 go criteria not met, 1 of 1 no-go criteria not ruled out" in text
    assert "| ✓ | go | Tested \\<b> | check http of core/pakit (run 7f3c, 2026-11-24) |" in text
    assert "| ✗ | no-go | Audit \\| failed | attestation audit missing: nobody |" in text
    lost, took = "2 of 412 writes, 1.5 s (target 900 s)", "48.2 s (target 1800 s)"
    assert f"| {lost} | {took} | late |" in text
    assert "Tested &lt;b&gt;" in page
    assert lost in page
    assert took in page
    assert "<b>" not in page.replace("<b>✗ NO-GO", "").split("<h2>Readiness")[1].split("<h2>Drills")[0]
    assert document["readiness"]["ready"] is False
    assert document["drills"] == [{"run": "d1", "drill": "volume-lost", **result}]
    for alone in (render(view), render_html(view)):
        assert "Readiness" not in alone
        assert "Drills" not in alone


class _Seen(HTMLParser):
    """Every tag with its attributes, as a browser would read the document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def test_html_escapes_what_comes_from_outside():
    evil = "\"'><script>alert(1)</script><img src=//evil/x onerror=alert(1)>\x1b[2J{{ 7*7 }}"
    story = Story(environment=evil).start([made(s, Verb.NONE, reason=evil) for s, *_ in STEPS])
    story.done(STEPS[0][0], 1, summary=evil, **{evil: evil}).check(STEPS[0][0], evil, evil, proved_at=evil)
    story.fail(STEPS[1][0], evil)
    text = render_html(story.end("failed", 5).view)
    seen = _Seen(text)
    assert not {"script", "img", "iframe", "link", "object"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name in {"src", "href"}]
    assert "\x1b" not in text
    assert "{{ 7*7 }}" in text, "shown as it came, never rendered"


def test_html_asks_for_nothing_outside():
    text = render_html(succeeded().view)
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in text


def test_every_form_names_plan_head_people_and_what_checks_saw():
    view = succeeded().view
    for text in (render(view), render_html(view), json.dumps(record_document(view))):
        for fact in (view.plan_digest, view.head, view.holder, "2 of 2 replicas are available"):
            assert fact in text


def test_nothing_from_outside_is_markup():
    changes = [made(s, Verb.NONE) for s, *_ in STEPS[1:]]
    changes.append(made(STEPS[0][0], Verb.RUN, object="a|b <script>alert(1)</script>", irreversible="[x](http://evil)"))
    story = Story().start(changes)
    story.done(STEPS[0][0], 1, summary="ok | **bold** `code`\n# title", note="<img src=x>\x1b[2J")
    text = render(story.view)
    assert "<script" not in text.replace("\\<script", "")
    assert "<img" not in text.replace("\\<img", "")
    assert "\x1b" not in text
    assert "](http" not in text.replace("\\[x](http", "")
    assert "\n# title" not in text
    rows = [line for line in text.splitlines() if line.startswith("| `infrastructure/cluster`")]
    assert {row.replace("\\|", "").count("|") for row in rows} <= {3, 4, 6, 8}


def test_barriers_and_residue_of_what_ran_are_named():
    changes = [made(s, Verb.NONE) for s, *_ in STEPS[2:]]
    changes += [
        made(STEPS[0][0], Verb.RUN, irreversible="the disk is formatted"),
        made(STEPS[1][0], Verb.CREATE, undo_to=None, object="PersistentVolumeClaim shop/data"),
    ]
    story = Story().start(changes)
    assert "No way back" not in render(story.view), "it did not run yet"
    story.done(STEPS[0][0], 1).done(STEPS[1][0], 1)
    text = render(story.view)
    assert "- `infrastructure/cluster`: the disk is formatted" in text
    assert "| `infrastructure/namespaces` | PersistentVolumeClaim shop/data |" in text


def test_the_head_is_the_journals():
    story = succeeded()
    assert story.events[-1].hash in render(story.view)
