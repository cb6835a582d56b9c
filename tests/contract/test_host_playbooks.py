"""The host playbooks against a host of their own: a Debian in a folder, entered in namespaces of its own.

Ansible reaches it by `ssh`, which here is a script that enters the folder. The roles write files there, nothing else:
the network is another one, and no kernel parameter or service is touched (`*_live: false`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.services import require
from tests.fakes.required import missing

ROOT = Path(__file__).parents[2]
PACKAGES = "python3,openssh-server,auditd,kmod,procps,nftables"
SSH = """#!/bin/sh
for last; do :; done
exec unshare --net --uts --ipc chroot {root} /bin/sh -c "$last"
"""
INVENTORY = """
nodes:
  hosts:
    node:
      ansible_connection: ssh
      ansible_ssh_executable: {ssh}
      ansible_ssh_transfer_method: piped
      ansible_pipelining: true
      ansible_python_interpreter: /usr/bin/python3
      ansible_become: false
      hardening_live: false
      firewall_live: false
      firewall_admins: [192.0.2.0/24]
      firewall_nodes: [198.51.100.0/28]
      firewall_p2p_peers: [203.0.113.7, 203.0.113.8]
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The folder of a Debian, made once."""
    if os.geteuid() != 0:
        missing("root", "a host of its own needs root")
    program = require("mmdebstrap", shutil.which("mmdebstrap"))
    folder = tmp_path_factory.mktemp("host")
    root = folder / "root"
    argv = [program, "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        missing("mmdebstrap", done.stderr[-500:])
    ssh = folder / "ssh"
    ssh.write_text(SSH.format(root=root))
    ssh.chmod(0o700)
    (folder / "hosts.yml").write_text(INVENTORY.format(ssh=ssh))
    return folder


def play(host: Path, playbook: str, *more: str) -> tuple[int, dict[str, int], str]:
    """Exit code, recap and output."""
    argv = [
        Path(sys.executable).parent / "ansible-playbook",
        "-i",
        host / "hosts.yml",
        ROOT / "playbooks" / playbook,
        *more,
    ]
    env = {**os.environ, "ANSIBLE_HOME": str(host / "ansible"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    counts = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", done.stdout.rpartition("PLAY RECAP")[2])}
    return done.returncode, counts, done.stdout + done.stderr


@pytest.fixture(scope="module")
def rules(host):
    """The file of rules on a host whose firewall was set up."""
    code, _, text = play(host, "firewall.yml")
    assert code == 0, text
    return host / "root/etc/nftables.d/runbook.nft"


@pytest.mark.parametrize("playbook", ["hardening.yml", "firewall.yml"])
def test_a_second_run_changes_nothing(host, playbook):
    code, counts, text = play(host, playbook)
    assert code == 0, text
    assert counts["changed"] > 0
    code, counts, text = play(host, playbook)
    assert code == 0, text
    assert counts["changed"] == 0, text
    code, counts, text = play(host, playbook, "--check", "--diff")
    assert code == 0, text
    assert counts["changed"] == 0, text


def test_what_was_hardened(host):
    play(host, "hardening.yml")
    root = host / "root"
    told = subprocess.run(["chroot", root, "/usr/sbin/sshd", "-T"], capture_output=True, text=True, check=True).stdout
    for line in (
        "passwordauthentication no",
        "permitrootlogin without-password",
        "maxauthtries 4",
        "disableforwarding yes",
    ):
        assert line in told
    assert "net.ipv4.tcp_syncookies = 1" in (root / "etc/sysctl.d/60-hardening.conf").read_text()
    assert "-k identity" in (root / "etc/audit/rules.d/60-hardening.rules").read_text()
    assert (root / "etc/shadow").stat().st_mode & 0o777 == 0o640


def test_drift_is_brought_back(host):
    play(host, "hardening.yml")
    (host / "root/etc/sysctl.d/60-hardening.conf").write_text("net.ipv4.tcp_syncookies = 0\n")
    (host / "root/etc/shadow").chmod(0o666)
    _, counts, text = play(host, "hardening.yml")
    assert counts["changed"] == 2, text
    assert (host / "root/etc/shadow").stat().st_mode & 0o777 == 0o640


@pytest.fixture
def net():
    """Runs a command in a network of its own that has the host's rules."""

    def run(script: str) -> subprocess.CompletedProcess[str]:
        argv = ["unshare", "--net", "sh", "-ec", f"ip link set lo up\n{script}"]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    return run


def test_the_rules_load_twice_and_hold_the_allow_list(rules, net):
    done = net(f"nft -f {rules}; nft -f {rules}; nft list table inet runbook")
    assert done.returncode == 0, done.stderr
    assert "203.0.113.7" in done.stdout
    assert "policy drop" in done.stdout
    assert done.stdout.count("chain input") == 1


ASK = "import socket; socket.create_connection(('203.0.113.1', {port}), 1.5, ('{source}', 0))"


@pytest.mark.parametrize(
    ("source", "port", "let_in"),
    [
        ("203.0.113.7", 30333, True),  # on the list
        ("203.0.113.9", 30333, False),
        ("203.0.113.9", 443, True),  # for the world
        ("203.0.113.7", 22, False),  # no admin
    ],
)
def test_who_gets_in(rules, net, source, port, let_in):
    """A neighbour on a cable, in a network of its own, knocks."""
    ask, python = ASK.format(port=port, source=source), sys.executable
    done = net(f"""
        unshare --net sleep 60 & peer=$!
        trap 'kill $peer $server' EXIT
        until [ "$(readlink /proc/$peer/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do :; done
        ip link add name host0 type veth peer name peer0 netns $peer
        ip address add 203.0.113.1/24 dev host0
        ip link set host0 up
        nsenter -t $peer -n ip address add 203.0.113.7/24 dev peer0
        nsenter -t $peer -n ip address add 203.0.113.9/24 dev peer0
        nsenter -t $peer -n ip link set peer0 up
        {python} -m http.server {port} >/dev/null 2>&1 & server=$!
        until {python} -c "import socket; socket.create_connection(('127.0.0.1', {port}), 1)" 2>/dev/null; do :; done
        nsenter -t $peer -n {python} -c "{ask}"
        nft -f {rules}
        if nsenter -t $peer -n {python} -c "{ask}" 2>/dev/null; then echo in; else echo out; fi
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ("in" if let_in else "out")


def test_nobody_is_locked_out(host):
    code, _, text = play(host, "firewall.yml", "-e", '{"firewall_admins": []}')
    assert code != 0
    assert "nobody could log in" in text


def test_every_hardening_task_names_its_control():
    text = (ROOT / "playbooks/roles/hardening/tasks/main.yml").read_text()
    names = re.findall(r"^- name: (.*)$", text, re.M)
    assert names
    assert [n for n in names if not re.match(r"CIS \d+(\.\d+)+ ", n)] == []
