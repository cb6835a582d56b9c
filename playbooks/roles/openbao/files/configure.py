"""Run a script in OpenBao's pod with a root token that lives no longer: configure.py RECOVERY EXEC... <SCRIPT.

The token is the one of the initialisation, if the last run did not get as far as revoking it, else a new one made with
the recovery key. It reaches the pod on stdin and is in no command line, environment of ours, or file but RECOVERY.
Prints what the script prints: one line for each thing it changed.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

# Reads the token from the first line, then runs the rest of stdin, or its own arguments.
WITH_TOKEN = 'IFS= read -r BAO_TOKEN; export BAO_TOKEN; exec "$@"'


def main() -> None:
    """Configure, revoke, forget."""
    recovery, command, script = Path(sys.argv[1]), sys.argv[2:], sys.stdin.read()
    kept = json.loads(recovery.read_text())
    token = kept.get("root_token") or ""
    if not token or not alive(command, token):
        token = new_root_token(command, kept["recovery_keys_b64"][0])
        keep(recovery, kept | {"root_token": token})   # should we die now, the next run uses and revokes it
    print(run(command, ["sh", "-eu", "-c", WITH_TOKEN, "-", "sh", "-eu", "-s"], f"{token}\n{script}"), end="")
    run(command, ["sh", "-c", WITH_TOKEN, "-", "bao", "token", "revoke", "-self"], f"{token}\n")
    keep(recovery, {name: value for name, value in kept.items() if name != "root_token"})


def alive(command: list[str], token: str) -> bool:
    """Whether OpenBao still knows the token."""
    lookup = [*command, "sh", "-c", WITH_TOKEN, "-", "bao", "token", "lookup", "-format=json"]
    return subprocess.run(lookup, input=f"{token}\n", text=True, capture_output=True, check=False).returncode == 0


def new_root_token(command: list[str], key: str) -> str:
    """Make a root token with the recovery key ("Generate root tokens using unseal keys", OpenBao's documentation)."""
    run(command, ["bao", "operator", "generate-root", "-cancel"])
    begun = json.loads(run(command, ["bao", "operator", "generate-root", "-init", "-format=json"]))
    step = ["bao", "operator", "generate-root", "-format=json", f"-nonce={begun['nonce']}", "-"]
    encoded = json.loads(run(command, step, key))["encoded_token"]
    mask = begun["otp"].encode()
    return bytes(a ^ b for a, b in zip(base64.b64decode(encoded + "=="), mask, strict=False)).decode()


def run(command: list[str], rest: list[str], stdin: str = "") -> str:
    """Run one command in the pod; a failure ends us with its own words, which never contain the token."""
    done = subprocess.run([*command, *rest], input=stdin, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(rest[-3:])}: {done.stderr.strip()[-2000:]}")
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
