#!/usr/bin/env python3
"""Removes the lab from this machine; prints what it removed. Safe to run again, and after a crash at any point.

    clean_lab.py LAB_DIR VENV BIN BRIDGE POD_CIDR

Only what is the lab's: processes and mounts that lie in LAB_DIR, devices with an address of POD_CIDR, and the rules,
sets and groups that carry the names of Kubernetes' components.
"""

import contextlib
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LAB, VENV, BIN = (Path(a) for a in sys.argv[1:4])
BRIDGE, POD_CIDR = sys.argv[4], ipaddress.ip_network(sys.argv[5])
SOCKET = LAB / "containerd/containerd.sock"
CGROUPS = Path("/sys/fs/cgroup")
NETNS = Path("/run/netns")
DAEMONS = {
    f"{BIN}/{name}"
    for name in [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kube-router",
    ]
}
SCRIPTS = {f"{LAB}/config/provisioner.py", f"{VENV}/bin/moto_server", f"{VENV}/bin/supervisord"}
OUR_RULES = re.compile(r"KUBE-|CNI-|kube-router")
OUR_SETS = re.compile(r"(inet6:)?KUBE-|kube-router")


def main() -> None:
    if LAB.exists():
        stop_daemons()
        remove_pods()
        stop_all()
    unmount()
    remove_devices()
    remove_rules()
    remove_cgroups()
    remove_files()


# --- processes -----------------------------------------------------------------------------------------------------


def stop_daemons() -> None:
    """All of them, then containerd alone, which has to take the pods down. With kubelet up they would come again."""
    if supervisorctl("pid"):
        supervisorctl("stop", "all")  # all at once; one by one takes half a minute
        supervisorctl("start", "containerd")
        return
    kill(lab_processes())
    if (LAB / "config/containerd.toml").exists():
        with (LAB / "log/containerd-clean.log").open("wb") as log:
            argv = ["containerd", "-c", str(LAB / "config/containerd.toml")]
            subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def remove_pods() -> None:
    """Through the runtime, so that the network plugins take their own rules and addresses out."""
    crictl = [str(BIN / "crictl"), "-r", f"unix://{SOCKET}", "-i", f"unix://{SOCKET}"]
    end = time.monotonic() + 20
    while (listed := run([*crictl, "pods", "-q"])).returncode and time.monotonic() < end:
        time.sleep(0.2)
    pods = listed.stdout.split()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pod: run([*crictl, "rmp", "-f", pod]), pods))
    if pods:
        print(f"removed {len(pods)} pods")


def stop_all() -> None:
    supervisorctl("shutdown")
    end = time.monotonic() + 15
    while lab_processes() and time.monotonic() < end:
        time.sleep(0.1)
    kill(lab_processes())
    kill(shims())


def lab_processes() -> list[int]:
    return [pid for pid, argv in processes() if is_daemon(argv)]


def is_daemon(argv: list[str]) -> bool:
    program = Path(argv[0]).name
    if program.startswith("python"):
        return len(argv) > 1 and argv[1] in SCRIPTS
    if program in ("containerd", "tini"):
        return bool({f"{LAB}/config/containerd.toml", f"{LAB}/supervisord.conf"} & set(argv))
    return argv[0] in DAEMONS


def shims() -> list[int]:
    return [pid for pid, argv in processes() if "containerd-shim" in argv[0] and str(SOCKET) in argv]


def processes() -> list[tuple[int, list[str]]]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if argv[0]:
                found.append((int(entry.name), argv))
    return found


def kill(pids: list[int]) -> None:
    """TERM, and KILL after ten seconds; these pids only."""
    for signum, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        for pid in filter(alive, pids):
            print(f"{signum.name} {pid}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        end = time.monotonic() + seconds
        while any(map(alive, pids)) and time.monotonic() < end:
            time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# --- mounts, devices -----------------------------------------------------------------------------------------------


def unmount() -> None:
    for point in sorted(mounts(f"{LAB}/"), reverse=True):
        if run(["umount", point]).returncode:
            run(["umount", "-l", point])
        print("unmounted", point)
    # its bind onto itself first, else what lies below stays busy
    while run(["mountpoint", "-q", str(NETNS)]).returncode == 0 and run(["umount", "-l", str(NETNS)]).returncode == 0:
        print("unmounted", NETNS)
    for name in [*NETNS.glob("cni-*"), *NETNS.glob("lab-*")]:
        while run(["umount", str(name)]).returncode == 0:
            pass
        name.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        NETNS.rmdir()


def mounts(prefix: str) -> list[str]:
    fields = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [f[1] for f in fields if f[1].startswith(prefix)]


def remove_devices() -> None:
    """The host's ends of the pods' cables (their routes go with them), and the bridge."""
    for link in json.loads(run(["ip", "-j", "address", "show"]).stdout or "[]"):
        addresses = [ipaddress.ip_address(a["local"]) for a in link.get("addr_info", []) if "local" in a]
        if link["ifname"] == BRIDGE or any(a in POD_CIDR for a in addresses if a.version == POD_CIDR.version):
            run(["ip", "link", "delete", link["ifname"]])
            print("removed device", link["ifname"])


# --- firewall, cgroups ---------------------------------------------------------------------------------------------


def remove_rules() -> None:
    for family in ("ip", "ip6"):
        if run(["nft", "delete", "table", family, "kube-proxy"]).returncode == 0:
            print(f"removed nft table {family} kube-proxy")
    for tool in ("iptables", "ip6tables"):
        saved = run([f"{tool}-save"]).stdout.splitlines(keepends=True)
        kept = [line for line in saved if not OUR_RULES.search(line)]
        if len(kept) != len(saved):
            run([f"{tool}-restore"], stdin="".join(kept))
            print(f"removed {len(saved) - len(kept)} rules and chains of {tool}")
    for name in run(["ipset", "list", "-n"]).stdout.split():
        if OUR_SETS.match(name):
            run(["ipset", "destroy", name])
            print("removed ipset", name)
    remove_empty_tables()


def remove_empty_tables() -> None:
    """Tables that iptables made for the rules above and that hold nothing now but its own empty chains."""
    for line in run(["nft", "list", "tables"]).stdout.splitlines():
        _, family, name = line.split()
        if family not in ("ip", "ip6") or name not in ("filter", "nat", "mangle", "raw", "security"):
            continue
        content = run(["nft", "list", "table", family, name]).stdout
        if not re.search(r"^\s*(?!table|chain|type .*policy accept;|\}|#)\S", content, re.MULTILINE):
            run(["nft", "delete", "table", family, name])
            print(f"removed empty nft table {family} {name}")


def remove_cgroups() -> None:
    for root in sorted([*CGROUPS.glob("kubepods*"), *CGROUPS.glob("*/kubepods*")]):
        for folder, _, _ in os.walk(root, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        print("removed cgroup", root)


def remove_files() -> None:
    forwarding = LAB / "config/ip_forward.before"
    if forwarding.exists():
        Path("/proc/sys/net/ipv4/ip_forward").write_text(forwarding.read_text())
    left = mounts(f"{LAB}/")
    if left:  # a volume could be what is mounted: never delete through a mount
        sys.exit(f"{left[0]} is still mounted. Unmount it and run this again; {LAB} was left as it is.")
    logs = Path("/var/log/containers")
    for link in logs.glob("*.log"):
        if link.is_symlink() and os.readlink(link).startswith(f"{LAB}/"):
            link.unlink()
    for path in (LAB, Path("/run/istio-cni"), Path("/run/ztunnel")):
        if path.exists():
            shutil.rmtree(path)
            print("removed", path)
    Path("/var/lib/kubelet/device-plugins/kubelet.sock").unlink(missing_ok=True)
    for made in (logs, Path("/var/lib/kubelet"), Path("/usr/libexec/kubernetes"), Path("/run/containerd")):
        remove_empty(made)


def remove_empty(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()


def supervisorctl_argv() -> list[str]:
    return [str(VENV / "bin/supervisorctl"), "-c", str(LAB / "supervisord.conf")]


def supervisorctl(*args: str) -> bool:
    return run([*supervisorctl_argv(), *args]).returncode == 0


def run(argv: list[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:  # e.g. never installed: then there is nothing of it
        return subprocess.CompletedProcess(argv, 127, "", str(error))


if __name__ == "__main__":
    main()
