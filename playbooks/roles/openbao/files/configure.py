"""Run a script in OpenBao's pod with a token that lives no longer: configure.py RECOVERY JWT_COMMAND EXEC... <SCRIPT.

The token is the root token of the initialisation, if no run got as far as revoking it. Ever after it is one of the
role `operator`, for which JWT_COMMAND (a JSON list) prints a Kubernetes token. It reaches the pod on stdin, and is in
no command line, no environment of ours and, but for the root token until it is revoked, in no file.
Prints what the script prints: one line for each thing it changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Takes the token from the first line of stdin; the command sees the rest.
LOGGED_IN = 'IFS= read -r BAO_TOKEN; export BAO_TOKEN; exec "$@"'


def main() -> None:
    """Configure, revoke, forget."""
    recovery, jwt_command, command = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    with session(command, recovery, jwt_command) as shell:
        print(shell(sys.stdin.read()), end="")


@contextmanager
def session(command: list[str], recovery: Path, jwt_command: list[str]) -> Iterator[Callable[[str], str]]:
    """What runs one script with the token; revoked and forgotten when all went well, so that a resumed run has it."""
    kept = json.loads(recovery.read_text())
    token = kept.get("root_token") or ""
    if not token or not alive(command, token):
        token = operator_token(jwt_command, command)
    yield lambda script: run(command, ["sh", "-eu", "-c", LOGGED_IN, "-", "sh", "-eu", "-s"], f"{token}\n{script}")
    run(command, ["sh", "-c", LOGGED_IN, "-", "bao", "token", "revoke", "-self"], f"{token}\n")
    if "root_token" in kept:
        keep(recovery, {name: value for name, value in kept.items() if name != "root_token"})


def alive(command: list[str], token: str) -> bool:
    """Whether OpenBao still knows the token."""
    lookup = [*command, "sh", "-c", LOGGED_IN, "-", "bao", "token", "lookup", "-format=json"]
    return subprocess.run(lookup, input=f"{token}\n", text=True, capture_output=True, check=False).returncode == 0


def operator_token(jwt_command: list[str], command: list[str]) -> str:
    """Log in as the role `operator`."""
    jwt = run(jwt_command, [])
    return run(command, ["bao", "write", "-field=token", "auth/kubernetes/login", "role=operator", "jwt=-"], jwt)


def run(command: list[str], rest: list[str], stdin: str = "") -> str:
    """Run one command in the pod; a failure ends us with its own words, which never contain the token."""
    done = subprocess.run([*command, *rest], input=stdin, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(rest or command)[-80:]}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def keep(path: Path, content: dict[str, object]) -> None:
    """Write the file anew, readable by its owner only: whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


if __name__ == "__main__":
    main()
