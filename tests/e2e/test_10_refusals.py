"""Where the local cluster cannot be built: one clear sentence, what to do instead, and nothing half-made.

Each is a project whose lab is elsewhere than the real one, so that to it nothing is built yet.
"""

import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.project import COMMAND, ROOT, Project

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]

NOBODY = 65534
ENVIRONMENT = "elsewhere"  # playbooks' records on this host go by the environment's name
VARIABLES = f"inventories/{ENVIRONMENT}/group_vars/all.yml"
RECORDS = Path("/var/lib/runbook") / ENVIRONMENT
SENTENCE = "The local cluster can not be built here: "
INSTEAD = "set `cluster: existing`, `kubeconfig`"


@pytest.fixture
def elsewhere(tmp_path_factory) -> Iterator[Project]:
    """A machine without a lab, as far as the project knows."""
    root = tmp_path_factory.mktemp("refused")
    for folder in (root, *root.parents[:2]):
        folder.chmod(0o755)
    project = Project(ROOT).copy(root, journal=False)
    (root / "inventories/local").rename(root / "inventories" / ENVIRONMENT)
    project.edit(VARIABLES, "lab_dir: /var/lib/runbook-lab", f"lab_dir: {root}/lab")
    project.edit(VARIABLES, "lab_cache: /var/cache/runbook-lab", f"lab_cache: {root}/cache")
    yield project
    shutil.rmtree(RECORDS, ignore_errors=True)


def refused(project: Project, *, program: tuple[str, ...] = (COMMAND,), **env: str) -> str:
    """Deploy, and see that nothing came of it. The sentence."""
    machine = traces(project)
    done = project.runbook("deploy", ENVIRONMENT, "--no-input", "--json", program=program, **env)
    assert done.exit == 1, done
    failure = done.run["failure"]
    assert failure["step"] == "infrastructure/cluster"
    assert done.run["changed"] == 0
    (sentence,) = (line for line in failure["error"].splitlines() if SENTENCE in line)
    assert INSTEAD in sentence
    assert "Nothing was changed" in sentence
    assert "Traceback" not in done.stderr
    assert traces(project) == machine
    return sentence


def traces(project: Project) -> dict[str, object]:
    """What a half-made lab would leave."""
    made = [str(project.root / name) for name in ("lab", "cache")]
    mine = [line for line in out("ps", "-eo", "args").splitlines() if any(m in line for m in made)]
    links = [link["ifname"] for link in json.loads(out("ip", "-j", "link")) if not link["ifname"].startswith("veth")]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(project.root) in line]
    return {"files": [m for m in made if Path(m).exists()], "processes": mine, "links": links, "mounts": mounts}


def out(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def public_command(tmp_path_factory) -> str:
    """The command in an environment that anybody may use: the developer's interpreter may lie in root's home."""
    python = next((p for p in (Path(sys.executable).resolve(), Path("/usr/bin/python3.11")) if _public(p)), None)
    if python is None:
        pytest.skip("no Python 3.11 here that another user may start")
    folder = tmp_path_factory.mktemp("public")
    for place in (folder, *folder.parents[:2]):
        place.chmod(0o755)
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "developer.pth").write_text(f"{site.getsitepackages()[0]}\n{ROOT}\n")
    for program in ("runbook", "ansible-inventory", "ansible-playbook", "ansible"):
        _, _, script = Path(sys.executable).with_name(program).read_text().partition("\n")
        (folder / "bin" / program).write_text(f"#!{folder}/bin/python\n{script}")
        (folder / "bin" / program).chmod(0o755)
    return str(folder / "bin/runbook")


def _public(path: Path) -> bool:
    return path.exists() and all(p.stat().st_mode & 0o005 == 0o005 for p in (path, *path.parents))


def test_without_root(elsewhere, public_command):
    home = elsewhere.root / "home"
    home.mkdir()
    for place in (elsewhere.root, *elsewhere.root.rglob("*")):
        os.chown(place, NOBODY, NOBODY, follow_symlinks=False)
    nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs")
    environment = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "TMPDIR": str(home)}

    sentence = refused(elsewhere, program=(*nobody, public_command), **environment)

    assert "it needs root" in sentence


def test_with_a_port_taken(elsewhere, lab):
    """The real lab's API server holds the port: to this project it is somebody else's."""
    sentence = refused(elsewhere)
    assert "port 6443 is taken by kube-apiserver (process " in sentence


def test_with_a_disk_too_small(elsewhere, lab):
    with (elsewhere.root / VARIABLES).open("a") as file:
        file.write("preflight_lab_dir_gib: 1000000\n")
    sentence = refused(elsewhere)
    assert "GiB free and the lab needs 10000" in sentence


def test_on_a_system_it_is_not_made_for(elsewhere, lab):
    """The preflight reads which system it is from a file; here it is given another one."""
    preflight = elsewhere.root / "playbooks/roles/preflight/files/preflight.py"
    other = elsewhere.root / "os-release"
    other.write_text('ID=plan9\nVERSION_ID="4"\nPRETTY_NAME="Plan 9"\n')
    text = preflight.read_text()
    assert text.count('Path("/etc/os-release")') == 1
    preflight.write_text(text.replace("/etc/os-release", str(other)))
    sentence = refused(elsewhere)
    assert "it needs Debian 12" in sentence
    assert "this is Plan 9" in sentence
