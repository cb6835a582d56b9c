"""The deployed platform, for tests that are run one after the other, in the order of their files' names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.lab import Lab
from tests.e2e.project import ROOT, Done, Project

_HELD_SECONDS = 900.0


@dataclass(slots=True)
class _Platform:
    project: Project
    sound: bool = False
    """Nothing has touched it since it was deployed, and no test has failed on it."""


@pytest.fixture(scope="session")
def lab() -> Lab:
    found = Lab.of_the_inventory()
    if os.geteuid() != 0 or not found.kubeconfig.is_file():
        why = "no local cluster: `make lab`, as root"
        if "cluster" in os.environ.get("RUNBOOK_REQUIRE", ""):
            pytest.fail(why)
        pytest.skip(why)
    return found


@pytest.fixture(scope="session")
def _platform(lab: Lab) -> _Platform:
    return _Platform(Project(ROOT))


@pytest.fixture
def platform(_platform: _Platform, request: pytest.FixtureRequest) -> Iterator[Project]:
    """The checkout, with the platform deployed as it says; deployed anew when a test before this one failed."""
    if not _platform.sound:
        deployed(_platform.project)
    _platform.sound = False
    failures = request.session.testsfailed
    yield _platform.project
    _platform.sound = request.session.testsfailed == failures


def deployed(project: Project, environment: str = "local") -> None:
    """Deploy whatever the state: nothing there, drift, a run that somebody left unfinished or still carries out."""
    limit = time.monotonic() + _HELD_SECONDS
    while True:
        done = _resumed(project, environment)
        if done.exit != 4:
            assert done.exit == 0, done
            return
        assert "is held by" in done.error, done
        assert time.monotonic() < limit, done
        time.sleep(2)  # between two looks whether the other run has ended


def _resumed(project: Project, environment: str) -> Done:
    """What the last deploy said; exit 4 when another one is under way."""
    (state,) = project.runbook("status", environment, "--json").document["environments"]
    if state["held"]:
        return project.runbook("deploy", environment, "--no-input", "--json")
    if state["status"] in ("interrupted", "stopped"):
        project.runbook("resume", environment, "--no-input", "--json")
    return project.runbook("deploy", environment, "--no-input", "--json")
