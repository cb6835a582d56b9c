"""Stop validators of the StatefulSet `chain` and watch finality: chain_resilience.py KUBECTL VALIDATORS.

KUBECTL is the command with its namespace, as a JSON list. Whatever happens, all validators are started again.
Prints one line for each fact; ends with what was expected and not seen.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable

KUBECTL: list[str] = json.loads(sys.argv[1])
VALIDATORS = int(sys.argv[2])
PATIENCE = 90.0  # seconds for anything that should happen
STILL = 8.0  # seconds in which finality must not move


def main() -> None:
    """The whole drill."""
    try:
        scale(VALIDATORS)
        wait("finality moves with all validators", moves(height(0, "finalized")))
        scale(VALIDATORS - 1)
        wait("finality moves without one", moves(height(0, "finalized")))
        target = height(0, "best")
        scale(VALIDATORS)
        wait("the one that was away has caught up", lambda: height(VALIDATORS - 1, "best") >= target)
        scale(1)
        time.sleep(2)  # a vote that was on its way may still count
        final = height(0, "finalized")
        time.sleep(STILL)
        if (now := height(0, "finalized")) > final:
            sys.exit(f"finality went from {final} to {now} with {VALIDATORS - 1} of {VALIDATORS} validators away")
        print(f"finality stands at {final} with one of {VALIDATORS}")
        scale(VALIDATORS)
        wait("finality moves again", lambda: height(0, "finalized") > final)
    finally:
        scale(VALIDATORS)


def scale(replicas: int) -> None:
    """Have that many validators, and wait until exactly they run."""
    kubectl("scale", "statefulset/chain", f"--replicas={replicas}")
    kubectl("rollout", "status", "statefulset/chain", f"--timeout={PATIENCE:.0f}s")
    for gone in range(replicas, VALIDATORS):
        kubectl("wait", f"pod/chain-{gone}", "--for=delete", f"--timeout={PATIENCE:.0f}s")


def height(validator: int, status: str) -> int:
    """The height of a validator's chain, `best` or `finalized`; -1 while it does not say."""
    try:
        text = kubectl("exec", f"chain-{validator}", "-c", "chain", "--", "curl", "-sm3", "localhost:9944/metrics")
    except subprocess.CalledProcessError:
        return -1
    found = re.search(rf'^substrate_block_height{{status="{status}".*}} (\d+)', text, re.MULTILINE)
    return int(found[1]) if found else -1


def moves(start: int) -> Callable[[], bool]:
    """Whether finality has gone beyond `start`."""
    return lambda: height(0, "finalized") > start


def wait(what: str, seen: Callable[[], bool]) -> None:
    """Until it is seen; say in how many seconds."""
    begin = time.monotonic()
    while not seen():
        if time.monotonic() - begin > PATIENCE:
            sys.exit(f"not seen within {PATIENCE:.0f} s: {what}")
        time.sleep(0.5)
    print(f"{what} ({time.monotonic() - begin:.1f} s)", flush=True)


def kubectl(*arguments: str) -> str:
    """Run kubectl."""
    return subprocess.run([*KUBECTL, *arguments], check=True, text=True, capture_output=True).stdout


if __name__ == "__main__":
    main()
