"""The scripts of the local cluster, as far as they work without one: keys, preflight, processes, the web stand-in."""

import datetime as dt
import importlib.util
import json
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from cryptography import x509

ROLES = Path(__file__).parents[2] / "playbooks/roles"
KUBECONFIG_USERS = ["lab-admin", "runbook-planner"]


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROLES / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script: str, spec: object, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROLES / script), *arguments]
    return subprocess.run(argv, input=json.dumps(spec), capture_output=True, text=True, check=False)


# --- keys and certificates -----------------------------------------------------------------------------------------


@pytest.fixture
def pki_spec(tmp_path):
    return {
        "dir": str(tmp_path / "pki"),
        "server": "https://127.0.0.1:6443",
        "authorities": [{"name": "ca", "cn": "lab-ca"}],
        "certificates": [
            {"name": "apiserver", "ca": "ca", "cn": "kube-apiserver", "usage": ["server"], "ip": ["127.0.0.1"]},
            {
                "name": "admin",
                "ca": "ca",
                "cn": "lab-admin",
                "o": "system:masters",
                "usage": ["client"],
                "kubeconfig": True,
            },
            {"name": "planner", "ca": "ca", "cn": "runbook-planner", "o": "runbook:planners", "usage": ["client"]},
        ],
        "kubeconfig": {
            "path": str(tmp_path / "kubeconfig"),
            "contexts": [
                {"name": "lab-admin", "certificate": "admin"},
                {"name": "runbook-planner", "certificate": "planner"},
            ],
        },
    }


def make_pki(spec: dict) -> dict:
    done = run("pki/files/pki.py", spec)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_keys_are_made_once_and_only_root_reads_them(pki_spec):
    first, second = make_pki(pki_spec), make_pki(pki_spec)
    assert {"ca.key", "planner.crt", "kubeconfig", "encryption.yaml", "sa.pub"} <= set(first["made"])
    assert second == {"made": [], "digest": first["digest"]}
    folder = Path(pki_spec["dir"])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in [*folder.iterdir(), Path(pki_spec["kubeconfig"]["path"])]} == {0o600}


def test_openssl_accepts_the_chain_and_the_kubeconfig_names_each_identity(pki_spec):
    make_pki(pki_spec)
    folder = Path(pki_spec["dir"])
    for name, purpose in (("apiserver", "sslserver"), ("planner", "sslclient")):
        argv = [
            "openssl",
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            folder / "ca.crt",
            folder / f"{name}.crt",
        ]
        assert subprocess.run(argv, capture_output=True, check=False).returncode == 0, name
    subject = x509.load_pem_x509_certificate((folder / "planner.crt").read_bytes()).subject.rfc4514_string()
    assert subject == "CN=runbook-planner,O=runbook:planners"
    config = json.loads(Path(pki_spec["kubeconfig"]["path"]).read_text())
    assert [c["name"] for c in config["contexts"]] == KUBECONFIG_USERS


def test_a_certificate_in_its_last_days_is_made_again(pki_spec, monkeypatch):
    make_pki(pki_spec)
    module = load("pki/files/pki.py")
    monkeypatch.setattr(module, "NOW", module.NOW + dt.timedelta(days=340))
    pki = module.Pki(Path(pki_spec["dir"]))
    for certificate in pki_spec["certificates"]:
        pki.leaf(certificate)
    assert pki.made == ["apiserver.crt", "admin.crt", "planner.crt"]  # the keys stay


# --- preflight -----------------------------------------------------------------------------------------------------


def preflight(tmp_path, **changes) -> subprocess.CompletedProcess[str]:
    spec = {
        "ports": [],
        "disk_gib": {},
        "memory_gib": 0,
        "go": "1.0",
        "lab_dir": str(tmp_path),
        "lab_bin": str(tmp_path),
        "lab_venv": str(tmp_path),
        "bridge": "lab0",
        "address": "192.0.2.77",
    }
    return run("preflight/files/preflight.py", spec | changes)


def test_a_taken_port_is_named_with_its_process(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = preflight(tmp_path, ports=[port])
    assert said.returncode == 1
    if "this is not root" not in said.stdout:
        assert f"port {port} is taken by python" in said.stdout
    assert "cluster: existing" in said.stdout
    assert len(said.stdout.splitlines()) == 1


def test_too_little_disk_is_named_with_what_is_needed(tmp_path):
    said = preflight(tmp_path, disk_gib={str(tmp_path / "a"): 10**6, str(tmp_path / "b"): 1})
    assert said.returncode == 1
    assert f"{tmp_path} has" in said.stdout
    assert "the lab needs 1000001" in said.stdout


def test_what_is_built_already_needs_no_room(tmp_path):
    (tmp_path / "built").write_text("")
    assert "GiB free" not in preflight(tmp_path, disk_gib={str(tmp_path): 10**6}).stdout


# --- whose a process is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "ours"),
    [
        (["/cache/bin/etcd", "--name", "lab-0"], True),
        (["/other/bin/etcd", "--name", "lab-0"], False),
        (["/usr/bin/containerd", "-c", "/lab/config/containerd.toml"], True),
        (["/usr/bin/containerd"], False),
        (["/usr/bin/containerd-shim-runc-v2", "-address", "/lab/containerd/containerd.sock"], False),
        (["/usr/bin/python3", "/lab/config/provisioner.py"], True),
        (["/usr/bin/python3", "-m", "runbook", "--kubeconfig", "/lab/kubeconfig"], False),
        (["/cache/bin/kubectl", "--kubeconfig", "/lab/kubeconfig", "get", "pods", "-w"], False),
        (["tini", "-s", "--", "/cache/venv/bin/supervisord", "-c", "/lab/supervisord.conf"], True),
        (["vim", "/lab/supervisord.conf"], False),
    ],
)
def test_only_daemons_of_this_lab_are_ours(argv, ours, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["processes.py", "stop", "/lab", "/cache/venv", "/cache/bin"])
    assert load("processes/files/processes.py").is_daemon(argv) is ours


# --- the web stand-in ----------------------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path):
    module = load("images/files/standins/web.py")
    server = ThreadingHTTPServer(("127.0.0.1", 0), module.handler("pakit", module.Store(tmp_path)))
    server.daemon_threads = False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def get(url: str, content: bytes | None = None) -> bytes:
    with urllib.request.urlopen(url, content, timeout=5) as answer:
        return answer.read()


def test_content_comes_back_by_its_hash(web):
    stored = json.loads(get(f"{web}/store", b"hello"))
    assert stored["hash"] == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert get(f"{web}/store/{stored['hash']}") == b"hello"
    assert json.loads(get(f"{web}/health")) == {"service": "pakit", "ok": True}
    assert b'standin_stored_objects{service="pakit"} 1' in get(f"{web}/metrics")


@pytest.mark.parametrize("path", ["/store/" + "0" * 64, "/store/../../etc/passwd", "/nothing"])
def test_what_is_not_there_is_not_found(web, path):
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        get(web + path)
    refused.value.close()
