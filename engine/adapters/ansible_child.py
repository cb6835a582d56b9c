"""Runs one playbook through ansible-runner, in a process of its own, and tells what happens as JSON lines.

Started by adapters/ansible.py as a child like any other, so that the lock, the control group, the deadline and the
pipes are the launcher's; the engine never forks with its threads running and never loads Ansible. When the engine is
killed this process goes on: it sees the playbook through and removes its private folder, so it also makes it.

Reads one JSON document: `private` (a folder still to be made, on tmpfs), `playbook`, `inventory`, `variables`, `limit`,
`tags`, `check`, `env`. Writes {"event": "task" | "changed" | "failed" | "text" | "total" | "stats" | "end", …} lines.
Needs nothing of the engine but the file beside it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

LAUNCH = Path(__file__).with_name("launch_child.py")
COUNT_AFTER = 10.0  # seconds: only a playbook that takes longer is worth the 0.7 s of counting its tasks


def main() -> int:
    order = json.load(sys.stdin)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    private = Path(order["private"])
    folder = make_private(private)
    try:
        return play(order, private, stopped)
    finally:
        shutil.rmtree(private, ignore_errors=True)
        os.close(folder)


def make_private(private: Path) -> int:
    """The folder, held by a lock on itself: a sweep of leftovers takes only what nobody holds."""
    while True:
        private.mkdir(mode=0o700)
        descriptor = os.open(private, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BlockingIOError:
            pass  # being swept this very moment: make it again
        os.close(descriptor)


def play(order: dict[str, Any], private: Path, stopped: threading.Event) -> int:
    from ansible_runner.config.runner import RunnerConfig
    from ansible_runner.runner import Runner

    write_inputs(order, private)
    config = RunnerConfig(
        private_data_dir=str(private),
        playbook=order["playbook"],
        inventory=order["inventory"],
        limit=order["limit"] or None,
        tags=",".join(order["tags"]) or None,
        cmdline="--check --diff" if order["check"] else None,
    )
    config.prepare()
    ansible = [sys.executable, "-I", "-m", "ansible", "playbook", *config.command[1:]]
    lock = os.environ["RUNBOOK_CHILD_LOCK"]
    # Ansible holds the lock itself: should only this process be killed, a resume still waits for the playbook.
    config.command = [sys.executable, "-I", "-S", str(LAUNCH), lock, "", *ansible]
    config.env.pop("RUNBOOK_CHILD_LOCK", None)
    count = threading.Timer(COUNT_AFTER, count_tasks, [ansible, dict(config.env), config.cwd])
    count.daemon = True
    count.start()
    status, code = Runner(config, event_handler=tell, cancel_callback=stopped.is_set).run()
    count.cancel()
    say("end", status=status, code=code)
    return 0


def write_inputs(order: dict[str, Any], private: Path) -> None:
    """Variables and environment as files: arguments are visible to everybody in `ps`."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Text that looks like a template is a value, and stays one."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        template = any(mark in value for mark in ("{{", "{%", "{#"))
        return dumper.represent_scalar("!unsafe" if template else "tag:yaml.org,2002:str", value)

    Dumper.add_representer(str, text)
    config = private / "ansible.cfg"
    home = private / "home"
    files = {
        "env/extravars": yaml.dump(order["variables"], Dumper=Dumper, allow_unicode=True),
        "env/envvars": json.dumps(order["env"] | {"ANSIBLE_HOME": str(home), "ANSIBLE_CONFIG": str(config)}),
        "env/settings": json.dumps({"suppress_output_file": True, "suppress_ansible_output": True}),
        "ansible.cfg": "",  # named by ANSIBLE_CONFIG, so that none is picked up from anywhere
    }
    (private / "env").mkdir(mode=0o700)
    home.mkdir(mode=0o700)
    for name, content in files.items():
        with open(os.open(private / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)


def tell(event: dict[str, Any]) -> bool:
    """Translate one of ansible-runner's events. False: it is not written to a file."""
    data = event.get("event_data") or {}
    task, host = data.get("task") or "", data.get("host") or ""
    match event["event"]:
        case "playbook_on_task_start" | "playbook_on_handler_task_start":
            say("task", name=f"{data['role']}: {task}" if data.get("role") else task)
        case "runner_on_ok" if (data.get("res") or {}).get("changed"):
            say("changed", name=task, host=host)
        case "runner_on_failed" if not data.get("ignore_errors"):
            say("failed", name=task, host=host, message=failure(data.get("res") or {}))
        case "runner_on_unreachable":
            say("failed", name=task, host=host, message="unreachable: " + failure(data.get("res") or {}))
        case "playbook_on_stats":
            kinds = ("ok", "changed", "failures", "dark", "skipped", "rescued")
            say("stats", **{kind: data.get(kind) or {} for kind in kinds})
        case "verbose" if event.get("stdout", "").strip():
            say("text", line=event["stdout"])
    return False


def failure(result: dict[str, Any]) -> str:
    """What a person needs of a failed result: its message and the end of what the program said."""
    items = [item for item in result.get("results") or [] if item.get("failed")]
    if items:
        return failure(items[0])
    parts = [str(result.get("msg") or result.get("censored") or "").strip()]
    for stream in ("stderr", "module_stderr", "stdout", "module_stdout"):
        said = str(result.get(stream) or "").strip()
        if said and said not in parts[0]:
            parts.append("\n".join(said.splitlines()[-10:])[-2000:])
            break
    return "\n".join(part for part in parts if part) or "no message"


def count_tasks(ansible: list[str], env: dict[str, str], cwd: str) -> None:
    listing = subprocess.run(
        [*ansible, "--list-tasks"],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    tasks = [line for line in listing.stdout.splitlines() if line.startswith("      ") and "\tTAGS: [" in line]
    say("total", tasks=len(tasks))


_telling = threading.Lock()


def say(event: str, **data: object) -> None:
    """One line to the engine; when it is gone nobody needs to know, and the playbook goes on."""
    try:
        with _telling:
            sys.stdout.write(json.dumps({"event": event, **data}) + "\n")
            sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this process


if __name__ == "__main__":
    sys.exit(main())
