#!/usr/bin/env python3
"""Takes out of this machine what the lab put into it; prints what it removed. Safe to run again, after any crash.

clean_lab.py LAB_DIR BRIDGE POD_CIDR

Its processes are gone by now (processes.py stop). Only what is the lab's: mounts that lie in LAB_DIR, devices with an
address of POD_CIDR, and the rules, sets and groups that carry the names of Kubernetes' components.
"""

import contextlib
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

LAB, BRIDGE, POD_CIDR = Path(sys.argv[1]), sys.argv[2], ipaddress.ip_network(sys.argv[3])
CGROUPS = Path("/sys/fs/cgroup")
NETNS = Path("/run/netns")
OUR_RULES = re.compile(r"KUBE-|CNI-|kube-router")
OUR_SETS = re.compile(r"(inet6:)?KUBE-|kube-router")


def main() -> None:
    unmount()
    remove_devices()
    remove_rules()
    remove_cgroups()
    remove_files()


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
    for made in (logs, Path("/var/lib/kubelet"), Path("/usr/libexec/kubernetes")):
        remove_empty(made)
    if not Path("/run/containerd/containerd.sock").exists():  # else the system's own containerd lives there
        remove_empty(Path("/run/containerd"))


def remove_empty(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()


def run(argv: list[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:  # e.g. never installed: then there is nothing of it
        return subprocess.CompletedProcess(argv, 127, "", str(error))


if __name__ == "__main__":
    main()
