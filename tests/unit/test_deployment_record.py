"""The deployment record: one golden document per way a run can end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.core.change import Verb
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
