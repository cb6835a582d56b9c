#!/usr/bin/env python3
"""Says in one sentence why the lab can not run on this machine, and what to do instead; exits 1 then. Changes nothing.

Reads its specification from standard input: see tasks/main.yml.
"""

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

INSTEAD = (
    "Nothing was changed. To use a cluster you have (kind, k3d, a test cluster), set `cluster: existing`, `kubeconfig` "
    "and its contexts in inventories/local/group_vars/all.yml."
)
LISTEN = "0A"


def main() -> None:
    spec = json.load(sys.stdin)
    reasons = [reason for check in (system, root, tools, ports, network, disk, memory) for reason in check(spec)]
    if reasons:
        print(f"The local cluster can not be built here: {'; '.join(reasons)}. {INSTEAD}")
        sys.exit(1)


def system(_: dict) -> Iterator[str]:
    release = Path("/etc/os-release")
    fields = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', release.read_text(), re.MULTILINE)) if release.exists() else {}
    name = fields.get("PRETTY_NAME", platform.system())
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        yield f"it needs Linux on x86_64, and this is {name} on {platform.machine()}"
    elif fields.get("ID") != "debian" or fields.get("VERSION_ID") != "12":
        yield f"it needs Debian 12, whose packages it is made of, and this is {name}"


def root(_: dict) -> Iterator[str]:
    if os.geteuid() != 0:
        yield "it needs root (network devices, mounts, cgroups), and this is not root"


def tools(spec: dict) -> Iterator[str]:
    if not shutil.which("go"):
        if not Path(spec["lab_bin"], "kube-apiserver").exists():  # built programs need no compiler
            yield f"Go {spec['go']} or newer is not on PATH"
        return
    version = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < tuple(int(n) for n in spec["go"].split(".")):
        yield f"it needs Go {spec['go']} or newer, and this is {version}"


def ports(spec: dict) -> Iterator[str]:
    if os.geteuid() != 0:
        return  # whose a port is, only root can see
    holders = {port: inode for port, inode in listening() if port in spec["ports"]}
    owners = owners_of(set(holders.values())) if holders else {}
    for port, inode in sorted(holders.items()):
        pid, argv = owners.get(inode, (0, []))
        ours = f"{spec['lab_dir']}/", f"{spec['lab_venv']}/bin/moto_server"
        if not any(o in argument for argument in argv for o in ours):
            who = f"{Path(argv[0]).name} (process {pid})" if argv else "another process"
            yield f"port {port} is taken by {who}"


def listening() -> Iterator[tuple[int, str]]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN:
                    yield int(fields[1].rsplit(":", 1)[1], 16), fields[9]


def owners_of(inodes: set[str]) -> dict[str, tuple[int, list[str]]]:
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    held = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor))
                    if held and held[1] in inodes:
                        argv = (process / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
                        found[held[1]] = int(process.name), argv
    return found


def network(spec: dict) -> Iterator[str]:
    """The lab's address must not be somebody else's."""
    listed = subprocess.run(["ip", "-j", "-4", "address"], capture_output=True, text=True, check=False)
    for link in json.loads(listed.stdout or "[]"):
        addresses = [a["local"] for a in link.get("addr_info", [])]
        if link["ifname"] != spec["bridge"] and spec["address"] in addresses:
            yield f"address {spec['address']} belongs to {link['ifname']}"


def disk(spec: dict) -> Iterator[str]:
    """Per file system: two directories on one add up."""
    needed: dict[int, list] = {}
    for directory, gib in spec["disk_gib"].items():
        if Path(directory).exists() and any(Path(directory).iterdir()):
            continue  # it was built before
        place = next(p for p in [Path(directory), *Path(directory).parents] if p.exists())
        entry = needed.setdefault(place.stat().st_dev, [place, 0])
        entry[1] += gib
    for place, gib in needed.values():
        free = shutil.disk_usage(place).free / 2**30
        if free < gib:
            yield f"{place} has {free:.1f} GiB free and the lab needs {gib}"


def memory(spec: dict) -> Iterator[str]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if total < spec["memory_gib"] * 0.9:
        yield f"it needs {spec['memory_gib']} GiB of memory, and there are {total:.1f}"


if __name__ == "__main__":
    main()
