#!/usr/bin/env python3
"""Starts, repairs or stops the lab's processes; prints what it did, nothing when there was nothing to do.

processes.py start LAB_DIR VENV BIN    supervisor with every daemon but kubelet, until containerd answers
processes.py node  LAB_DIR VENV BIN    kubelet, until the API server is ready
processes.py stop  LAB_DIR VENV BIN    pods, daemons, supervisor and what they left; works after a crash too
"""

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LAB, VENV, BIN = (Path(a) for a in sys.argv[2:5])
# A clean environment and directory: nothing of the starter (its variables, its secrets) stays with the daemons.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": pwd.getpwuid(os.getuid()).pw_dir,
    "LANG": "C.UTF-8",
}
SCRIPTS = (f"{LAB}/config/provisioner.py", f"{VENV}/bin/moto_server", f"{VENV}/bin/supervisord")
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kube-router")
DAEMONS = {f"{BIN}/{name}" for name in NAMES}
SOCKET = LAB / "containerd/containerd.sock"


def main() -> None:
    {"start": start, "node": node, "stop": stop}[sys.argv[1]]()


def start() -> None:
    if not supervisorctl("pid"):
        # Supervisor is gone, its children may not be (it was killed): stop them, but keep the shims and so the pods.
        kill(daemons())
        for stale in ("supervisor.sock", "supervisord.pid"):
            (LAB / stale).unlink(missing_ok=True)
        launch()
        wait_for("supervisor", 20, lambda: supervisorctl("pid"), LAB / "log/tini.log")
    print((supervisorctl("update") or "").lstrip(), end="")
    # "update" starts what is new or changed; a daemon that gave up (FATAL) or was stopped by hand is started here
    for name, state in states().items():
        if state in {"FATAL", "STOPPED", "EXITED"} and name != "kubelet":
            print(supervisorctl("start", name), end="")
    version = ["ctr", "-a", str(SOCKET), "version"]
    wait_for("containerd", 60, lambda: run(version), LAB / "log/containerd.log")


def node() -> None:
    ready = [str(BIN / "kubectl"), "--kubeconfig", str(LAB / "pki/admin.kubeconfig"), "get", "--raw", "/readyz"]
    wait_for("the API server", 90, lambda: run(ready), LAB / "log/kube-apiserver.log")
    if states().get("kubelet") not in {"RUNNING", "STARTING"}:
        print(supervisorctl("start", "kubelet"), end="")


def stop() -> None:
    if not LAB.exists():
        return
    if supervisorctl("pid"):
        supervisorctl("stop", "all")  # all at once; one by one takes half a minute
        supervisorctl("start", "containerd")
    else:
        kill(daemons())
        launch_containerd()
    remove_pods()
    kill(daemons(), patience=15 if supervisorctl("shutdown") else 0)
    kill([pid for pid, argv in processes() if "containerd-shim" in argv[0] and str(SOCKET) in argv])


def remove_pods() -> None:
    """Through the runtime, so that the network plugins take their own rules and addresses out. kubelet is down by now,
    else it would start them again."""
    crictl = [str(BIN / "crictl"), "-r", f"unix://{SOCKET}", "-i", f"unix://{SOCKET}"]
    end = time.monotonic() + 20
    while (listed := run([*crictl, "pods", "-q"])) is None and time.monotonic() < end:
        time.sleep(0.2)
    pods = (listed or "").split()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pod: run([*crictl, "rmp", "-f", pod]), pods))
    if pods:
        print(f"removed {len(pods)} pods")


def launch_containerd() -> None:
    """Without supervisor, only to take the pods down."""
    if (LAB / "config/containerd.toml").exists():
        with (LAB / "log/containerd-stop.log").open("wb") as log:
            argv = ["containerd", "-c", str(LAB / "config/containerd.toml")]
            subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRONMENT)


def launch() -> None:
    """In a session of its own, in the root cgroups, with no file of ours open: it outlives whoever starts it.

    tini is its parent and takes over the containerd shims, which would be zombies for a while under some PID 1s.
    """
    log = os.open(LAB / "log/tini.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    argv = ["tini", "-s", "--", str(VENV / "bin/supervisord"), "-c", str(LAB / "supervisord.conf")]
    child = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=True, cwd="/", env=ENVIRONMENT,
        start_new_session=True, umask=0o022,
    )  # fmt: skip
    for procs in [Path("/sys/fs/cgroup/cgroup.procs"), *Path("/sys/fs/cgroup").glob("*/cgroup.procs")]:
        # only the roots (depth 1 is a root with cgroup v1, a slice with v2)
        if procs.parent == Path("/sys/fs/cgroup") or procs.parent.is_mount():
            with contextlib.suppress(OSError):
                procs.write_text(str(child.pid))
    print("started supervisor", child.pid)


def states() -> dict[str, str]:
    # "supervisorctl status" exits 3 when anything does not run, and still prints all
    lines = run([*ctl(), "status"], any_code=True) or ""
    return {fields[0]: fields[1] for fields in map(str.split, lines.splitlines()) if len(fields) > 1}


def ctl() -> list[str]:
    return [str(VENV / "bin/supervisorctl"), "-c", str(LAB / "supervisord.conf")]


def supervisorctl(*args: str) -> str | None:
    return run([*ctl(), *args])


def run(argv: list[str], *, any_code: bool = False) -> str | None:
    """Standard output, or None when it failed."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=ENVIRONMENT, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return (done.stdout or " ") if any_code or done.returncode == 0 else None


def wait_for(what: str, seconds: float, ready: Callable[[], object], log: Path) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            tail = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
            sys.exit(f"{what} did not answer within {seconds:.0f} s. The end of {log}:\n" + "\n".join(tail))
        time.sleep(0.2)


def daemons() -> list[int]:
    return [pid for pid, argv in processes() if is_daemon(argv)]


def is_daemon(argv: list[str]) -> bool:
    """A daemon of this lab. Never a containerd shim, nor a kubectl or a runbook that merely names one of its files."""
    program = Path(argv[0]).name
    if program.startswith("python"):
        return len(argv) > 1 and argv[1] in SCRIPTS
    if program in ("containerd", "tini"):
        return any(a in (f"{LAB}/config/containerd.toml", f"{LAB}/supervisord.conf") for a in argv)
    return argv[0] in DAEMONS


def processes() -> list[tuple[int, list[str]]]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if argv[0]:
                found.append((int(entry.name), argv))
    return found


def kill(pids: list[int], patience: float = 0) -> None:
    """These only: those that do not end by themselves within `patience` seconds get TERM, after ten more KILL."""
    wait_until_gone(pids, patience)
    for signum, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        for pid in filter(alive, pids):
            print(f"{signum.name} {pid}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        wait_until_gone(pids, seconds)


def wait_until_gone(pids: list[int], seconds: float) -> None:
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    main()
