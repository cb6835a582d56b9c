"""Two at once: the second is refused, in the same directory by the lease, elsewhere by the environment's record."""

import getpass
import signal
import socket
import time

import pytest

from tests.e2e.test_04_drift import scale

pytestmark = pytest.mark.cluster


@pytest.fixture
def halted(platform, lab, tmp_path):
    """A deploy that stands still in the middle: its run's id, and its process. It goes on, and ends, afterwards."""
    scale(lab, 0)
    before = platform.sequence()
    process = platform.start("deploy", "local", "--no-input", log=tmp_path / "first.log")
    run = platform.await_run(process, before, 3)
    stop(process, platform)
    assert process.poll() is None, (tmp_path / "first.log").read_text()
    try:
        yield run, process
    finally:
        process.send_signal(signal.SIGCONT)
        code = process.wait(timeout=600)
    assert code == 0, (tmp_path / "first.log").read_text()
    assert platform.plan() == []


def stop(process, platform) -> None:
    """Between two writes of its journal: what is stopped inside of one keeps every other reader of it out."""
    process.send_signal(signal.SIGSTOP)
    while process.poll() is None and not platform.journal_is_free():
        process.send_signal(signal.SIGCONT)
        time.sleep(0.01)  # for it to finish the write
        process.send_signal(signal.SIGSTOP)


def test_a_second_deploy_is_refused_and_told_who_holds_the_environment(halted, platform, lab, tmp_path):
    run, process = halted
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    other = platform.copy(tmp_path / "elsewhere", journal=False)
    since = lab.now()

    elsewhere = other.runbook("deploy", "local", "--no-input", "--json")
    assert elsewhere.exit == 4, elsewhere
    assert f"held by run {run}" in elsewhere.error
    assert who in elsewhere.error
    assert "runbook adopt local" in elsewhere.error
    assert other.runbook("history", "local", "--json").document["runs"] == []

    here = platform.runbook("deploy", "local", "--no-input", "--json")
    assert here.exit == 4, here
    assert run in here.error
    assert f"{who}, pid {process.pid}" in here.error

    for text in (other.runbook("deploy", "local", "--no-input"), platform.runbook("deploy", "local", "--no-input")):
        assert text.exit == 4
        assert f"held by run {run}" in text.stderr + text.stdout
    assert [w for w in lab.writes("runbook-deployer", since) if "serviceaccounts/token" not in w] == []

    (state,) = platform.runbook("status", "local", "--json").document["environments"]
    assert (state["held"], state["status"], state["run"]["id"]) == (True, "running", run)
    assert other.runbook("plan", "local", "--json").exit == 0, "looking is free"
