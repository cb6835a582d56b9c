"""The engine is killed at random moments of a deploy that changes a dozen objects; `resume` gets to the same end.

RUNBOOK_KILLS says how often (default 5), RUNBOOK_SEED repeats a failure.
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import deployed
from tests.e2e.lab import Lab, objects_in
from tests.e2e.project import RECORDS, Project
from tests.e2e.test_05_broken_image import GOOD, MISSING, VALUES

pytestmark = pytest.mark.cluster

KILLS = int(os.environ.get("RUNBOOK_KILLS", "5"))
SEED = int(os.environ.get("RUNBOOK_SEED", "0")) or random.randrange(1, 2**32)
EVENTS = ("base/first-dump", "documentation/deployment-record")
PAKIT = "core/pakit"


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """The same deploy with nobody in its way: how many events it has, and where it ends."""

    project: Project
    events: int
    before_pakit: int
    declared: dict


@pytest.fixture(scope="module")
def undisturbed(_platform, lab: Lab, tmp_path_factory) -> Undisturbed:
    """In a checkout whose two events are due each time."""
    deployed(_platform.project)
    declared = lab.at_rest(lab.declared)
    project = _platform.project.copy(tmp_path_factory.mktemp("killed") / "checkout", journal=True)
    for file in ("03-base.yml", "08-documentation.yml"):
        project.edit(f"runbooks/belizechain/phases/{file}", "fresh: 24h", "fresh: 1s")
    spoil(lab)
    done = project.runbook("deploy", "local", "--no-input", "--json")
    assert done.exit == 0, done
    assert done.run["changed"] >= 7
    print(f"seed {SEED}; undisturbed in {done.run['seconds']:.1f} s, {done.run['changed']} steps changed")
    events = project.events(done.run["id"])
    begun = next(n for n, (kind, step, _) in enumerate(events) if (kind, step) == ("step-started", PAKIT))
    assert lab.at_rest(lab.declared) == declared
    return Undisturbed(project, len(events), begun, declared)


def spoil(lab: Lab) -> None:
    """Drift in every phase that has objects: scaled, deleted, labelled."""
    belizechain = ("-n", "belizechain")
    lab.kubectl("label", "--overwrite", "namespace/monitoring", "pod-security.kubernetes.io/enforce=baseline")
    lab.kubectl(*belizechain, "delete", "networkpolicy/allow-dns")
    lab.kubectl(*belizechain, "delete", "configmap/redis", "poddisruptionbudget/chain")
    lab.kubectl(*belizechain, "scale", "statefulset/pakit", "--replicas=0")
    lab.kubectl(*belizechain, "delete", "authorizationpolicy/pakit")
    lab.kubectl("-n", "monitoring", "delete", "service/prometheus")


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_anywhere_it_ends_where_the_undisturbed_run_does(undisturbed, platform, lab, number, tmp_path):
    chance = random.Random(f"{SEED}/{number}")
    project = undisturbed.project
    # The first dies after its run has begun and before its step `pakit`, whose values are then edited.
    edit = number == 0
    moment = chance.randrange(1, undisturbed.before_pakit) if edit else chance.randrange(undisturbed.events - 1)
    spoil(lab)
    dumps, records = objects_in("belizechain-backups", "belizechain/"), set((project.root / RECORDS).glob("*.md"))

    run = killed(project, moment, chance.uniform(0, 0.3), tmp_path / "log")
    print(f"seed {SEED}, kill {number}: at event {moment} of {undisturbed.events}, run {run or 'not begun'}")
    if edit:
        assert run
        with edited(project):
            recovered(project, run)
            (waiting,) = (c for c in project.plan() if c["step"] not in EVENTS)
            assert waiting["step"] == PAKIT, "the edit waits for the next deploy"
    else:
        run = recovered(project, run)

    happened_once(project, run)
    new = objects_in("belizechain-backups", "belizechain/") - dumps
    # A dump whose manifest a kill kept from being written is taken again under its own name.
    assert sorted(key.partition(".")[2] for key in new) == ["dump.age", "manifest.json", "proof.json"]
    assert len(set((project.root / RECORDS).glob("*.md")) - records) == 1
    assert lab.at_rest(lab.declared) == undisturbed.declared
    assert platform.plan() == []


@contextmanager
def edited(project: Project) -> Iterator[None]:
    """The working tree asks for an image that does not exist."""
    project.edit(VALUES, GOOD, MISSING)
    try:
        yield
    finally:
        project.edit(VALUES, MISSING, GOOD)


def recovered(project: Project, run: str) -> str:
    """Do what a person does after a crash: resume, and where nothing had begun, deploy. The run that ended."""
    done = project.runbook("resume", "local", "--no-input", "--json")
    assert done.exit == 0, done
    if run:
        assert done.run is None or (done.run["id"], done.run["status"]) == (run, "succeeded")
        return run
    assert done.run is None, "nothing was begun, so there is nothing to go on with"
    done = project.runbook("deploy", "local", "--no-input", "--json")
    assert done.exit == 0, done
    return done.run["id"]


def killed(project: Project, moment: int, later: float, log) -> str:
    """Begin a deploy and SIGKILL the engine once its run has that many events. The run's id, empty when none began."""
    before = project.sequence()
    process = project.start("deploy", "local", "--no-input", log=log)
    try:
        if moment:
            project.await_run(process, before, moment)
        time.sleep(later)  # the moment is meant to be anywhere, not at a write of the journal
    finally:
        process.send_signal(signal.SIGKILL)
        code = process.wait(timeout=60)
    assert code in (-signal.SIGKILL, 0), log.read_text()  # 0: the last moments were too late
    return project.begun_after(before)


def happened_once(project: Project, run: str) -> None:
    """What must not be done twice was done once, and what was begun was ended."""
    events = project.events(run)
    outcomes = [step for kind, step, _ in events if kind == "outcome"]
    assert sorted(outcomes) == sorted(set(outcomes)), "one outcome for each step"
    assert set(EVENTS) <= set(outcomes)
    finished = [step for kind, step, data in events if kind == "step-finished" and data["status"] == "changed"]
    assert set(finished) == set(outcomes)
    assert not [step for kind, step, _ in events if kind in ("undone", "rollback-started")]
