"""`make clean-lab` leaves the machine as it was before the cluster: processes, mounts, devices, rules, groups, state.

It removes the cluster of this machine and what is deployed on it, so it only runs when asked to, with
RUNBOOK_CLEAN_LAB=1, and as a process of its own: other tests hold things on the cluster until they end.
It builds the cluster again at the end, with what is in the cache.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
OURS = ("KUBE-", "CNI-", "kube-router")

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.skipif(
        not os.environ.get("RUNBOOK_CLEAN_LAB"), reason="RUNBOOK_CLEAN_LAB is not set: it removes the cluster"
    ),
]


def play(playbook: str) -> str:
    argv = [str(ANSIBLE), "-i", str(ROOT / "inventories/local"), str(ROOT / "playbooks" / playbook)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=1800, cwd="/")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def changed(output: str) -> int:
    recap = re.search(r"changed=(\d+)", output)
    assert recap
    return int(recap[1])


def variables() -> dict:
    argv = [str(ANSIBLE.with_name("ansible-inventory")), "-i", str(ROOT / "inventories/local"), "--host", "localhost"]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def lines(*argv: str) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def snapshot(lab: str) -> dict[str, set[str]]:
    """Everything the lab could have left behind, as sets that can be compared."""
    return {
        "processes": lab_processes(lab),
        "mounts": {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()},
        "network namespaces": {p.name for p in Path("/run/netns").glob("*")},
        "links": {line.split(": ")[1] for line in lines("ip", "-o", "link", "show")},
        "addresses": {" ".join(line.split()[1:4]) for line in lines("ip", "-o", "address", "show")},
        "routes": set(lines("ip", "route", "show", "table", "all")),
        "nft": {re.sub(r"counter packets \d+ bytes \d+", "counter", line) for line in lines("nft", "list", "ruleset")},
        "chains": {
            line for tool in ("iptables-save", "ip6tables-save") for line in lines(tool) if any(o in line for o in OURS)
        },
        "sets": set(lines("ipset", "list", "-n")),
        "cgroups": {
            str(p) for p in Path("/sys/fs/cgroup").glob("**/") if "kube" in p.name or p.name.startswith("lab-")
        },
        "state": {p for p in (lab, "/run/istio-cni", "/run/ztunnel", "/var/lib/kubelet") if Path(p).exists()},
        "forwarding": {Path("/proc/sys/net/ipv4/ip_forward").read_text()},
    }


def lab_processes(lab: str) -> set[str]:
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{lab}/" in command and re.match(r"\S*(containerd|etcd|kube|tini|python|supervisord)", command):
            found.add(command)
    return found


def test_clean_lab_leaves_nothing_and_the_cluster_comes_back():
    lab = variables()["lab_dir"]
    play("clean-lab.yml")
    before = snapshot(lab)
    assert before["processes"] == set()
    assert before["state"] == set()

    play("cluster.yml")
    up = snapshot(lab)
    assert up["processes"]
    assert up["mounts"] > before["mounts"]
    assert up["chains"]

    assert changed(play("clean-lab.yml")) == 2
    assert snapshot(lab) == before
    assert changed(play("clean-lab.yml")) == 0, "a second time there is nothing to remove"

    play("cluster.yml")
    assert changed(play("cluster.yml")) == 0


@pytest.fixture
def taken_port():
    """Something else listens on the API server's port."""
    import socket

    with socket.create_server(("127.0.0.1", 6443)) as server:
        yield server


def test_a_taken_port_is_named_and_nothing_is_made(taken_port):
    play("clean-lab.yml")
    lab = variables()["lab_dir"]
    before = snapshot(lab)
    argv = [str(ANSIBLE), "-i", str(ROOT / "inventories/local"), str(ROOT / "playbooks/cluster.yml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    after = snapshot(lab)
    play_again_without_the_port(taken_port)
    assert done.returncode != 0
    assert "port 6443 is taken by" in done.stdout
    assert "cluster: existing" in done.stdout
    assert after == before


def play_again_without_the_port(server) -> None:
    server.close()
    play("cluster.yml")
