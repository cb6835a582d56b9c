"""One step of each action on real parts, killed at journal writes and while its children work; resumed; compared.

Which writes is drawn anew each time; the seed is in every failure. RUNBOOK_SEED draws the same again.
"""

from __future__ import annotations

import os
import random
import signal
import uuid
from collections.abc import Callable, Iterator

import pyrage
import pytest

from tests.contract import database_pod, services
from tests.contract.cluster import connect, namespace
from tests.crash.project import Project
from tests.fakes.signing import make_key

pytestmark = pytest.mark.cluster
DRAWN = 6
SEED = os.environ.get("RUNBOOK_SEED") or uuid.uuid4().hex[:8]
HARMFUL_TWICE = {"commands": 1, "dumps": 1, "approvals": 1, "records": 1}
Make = Callable[[str], Project]


@pytest.fixture(scope="module")
def make(tmp_path_factory) -> Iterator[Make]:
    """New projects on the same real parts."""
    cluster, unique, made = connect("lab-admin"), uuid.uuid4().hex[:6], []
    identity = pyrage.x25519.Identity.generate()
    with (
        services.bao() as bao,
        services.moto() as s3,
        database_pod.running(connect()) as database,
        namespace(cluster) as place,
    ):

        def new(word: str) -> Project:
            folder = tmp_path_factory.mktemp(word)
            project = Project(folder, f"crash-{unique}-{word}", place, database, bao, s3)
            key = folder / "identity"
            key.write_text(str(identity))
            project.write(str(identity.to_public()), key, make_key(folder))
            made.append(project)
            return project

        try:
            yield new
        finally:
            for project in made:
                project.remove()


@pytest.fixture(scope="module")
def undisturbed(make) -> Project:
    """Deployed once without a disturbance, and again: then nothing changes."""
    project = make("whole")
    first = project.run("deploy", project.name)
    assert first.code == 0, first.text
    world, written = project.world(), len(project.events())
    assert world.items() >= HARMFUL_TWICE.items()
    again = project.run("deploy", project.name)
    assert (again.code, "nothing to change" in again.text) == (0, True), again.text
    assert project.world() == world
    print(f"{written} journal writes")
    return project


def survive(project: Project, undisturbed: Project, when: str, at: str, *given: str) -> None:
    """Die, go on until it is done, and end as the undisturbed run did."""
    words = f"killed {when} {at}, seed {SEED}"
    killed = project.run("deploy", project.name, *given, when=when, at=at)
    assert killed.code == -signal.SIGKILL, f"{words}: it ended with {killed.code}: {killed.text}"
    events = project.events()
    if not events:
        done = project.run("deploy", project.name)
    elif "run-finished" in {kind for kind, _ in events}:
        done = killed
    else:
        done = project.run("resume", project.name, "--no-input")
    if done.code == 4:
        done = settle(project, done.text, words)
    if done is not killed:
        assert done.code == 0, f"{words}: {done.text}"
    world = project.world()
    assert world == undisturbed.world(), words
    assert world.items() >= HARMFUL_TWICE.items(), words


def settle(project: Project, text: str, words: str):
    """What a person does with a command in doubt: looks, then says what was seen. Nothing happened meanwhile."""
    assert "two/once" in text, f"{words}: {text}"
    assert "sh was started before the crash" in text, f"{words}: {text}"
    assert "--done two/once" in text, f"{words}: {text}"
    happened = project.world()["commands"]
    again = project.run("resume", project.name, "--no-input")
    assert again.code == 4, f"{words}: {again.text}"
    assert project.world()["commands"] == happened, words
    return project.run("resume", project.name, "--no-input", "--done" if happened else "--again", "two/once")


@pytest.mark.parametrize("turn", range(DRAWN))
def test_killed_at_a_drawn_write_of_the_journal(make, undisturbed, turn):
    total = undisturbed.events().index(("run-finished", "")) + 1
    places = [(when, n) for n in range(1, total + 1) for when in ("before", "after")]
    when, at = random.Random(SEED).sample(places, DRAWN)[turn]
    print(f"{when} write {at} of {total}, seed {SEED}")
    survive(make(f"drawn{turn}"), undisturbed, when, str(at))


@pytest.mark.parametrize("step", ["one/bucket", "two/web", "two/dump", "two/once", "two/agreed", "two/written"])
def test_killed_between_the_effect_and_its_outcome(make, undisturbed, step):
    at = undisturbed.events().index(("outcome", step)) + 1
    survive(make(step.partition("/")[2]), undisturbed, "before", str(at))


def test_killed_between_the_intent_and_the_effect_of_a_command(make, undisturbed):
    at = undisturbed.events().index(("intent", "two/once")) + 1
    survive(make("intent"), undisturbed, "after", str(at))


@pytest.mark.parametrize("child", ["ansible_child.py", " upgrade ", "commanded"])
def test_killed_while_a_child_works_which_lives_on(make, undisturbed, child):
    word = {"ansible_child.py": "play", " upgrade ": "helm", "commanded": "child"}[child]
    lasting = ("-e", "lasting=8") if word == "child" else ()  # longer than it takes to resume: that must wait
    survive(make(word), undisturbed, "child", child, *lasting)
