"""The gateway's issuer: playbooks/issuer.yml's own script and program against a real OpenBao, judged by openssl."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import hvac
import pytest
import trustme
from jinja2 import Environment, FileSystemLoader

from tests.contract.services import VENV

ROLE = Path(__file__).parents[2] / "playbooks/roles/openbao"
HOST = "platform.lab.test"


TEMPLATES = Environment(loader=FileSystemLoader(ROLE / "templates"), trim_blocks=True)
"""As Ansible's: a tag takes the newline after it, and what is included loses its last one."""


@pytest.fixture
def client(bao):
    client = hvac.Client(bao.url, bao.token, verify=bao.ca)
    if "kubernetes/" not in client.sys.list_auth_methods()["data"]:
        client.sys.enable_auth_method("kubernetes")
    yield client
    if "pki/" in client.sys.list_mounted_secrets_engines()["data"]:
        client.sys.disable_secrets_engine("pki")


@pytest.fixture
def authority(tmp_path):
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.crt")
    made.private_key_pem.write_to_path(tmp_path / "ca.key")
    return tmp_path


@pytest.fixture
def issuer(bao, client, authority):
    """Runs the program as the playbook does; gives what it says it changed."""

    def run(*names: str) -> list[str]:
        script = TEMPLATES.get_template("issuer.sh.j2").render(gateway_names=names, openbao_issuer_hours=1440)
        token = client.auth.token.create(policies=["root"])["auth"]["client_token"]
        (authority / "recovery").write_text(json.dumps({"root_token": token}))
        here = ["env", f"VAULT_ADDR={bao.url}", f"VAULT_CACERT={bao.ca}", f"PATH={VENV}:/usr/bin:/bin"]
        argv = [sys.executable, str(ROLE / "files/issuer.py"), str(authority / "recovery"), "[]"]
        argv += [str(authority / "ca.crt"), str(authority / "ca.key"), ",".join(names), *here]
        done = subprocess.run(argv, input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads((authority / "recovery").read_text()) == {}  # revoked, and forgotten
        return done.stdout.splitlines()

    return run


def issued(client, name, **more):
    return client.write_data("pki/issue/gateway", data={"common_name": name, **more})["data"]


def verified(folder, made, purpose, host=HOST):
    (folder / "leaf.pem").write_text(made["certificate"])
    (folder / "issuer.pem").write_text(made["issuing_ca"])
    argv = ["openssl", "verify", "-CAfile", folder / "ca.crt", "-untrusted", folder / "issuer.pem"]
    argv += ["-purpose", purpose, "-verify_hostname", host, folder / "leaf.pem"]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_the_chain_is_good_for_the_gateway_as_a_server_and_for_nothing_else(client, issuer, authority):
    assert issuer(HOST)[-1].startswith(f"issuer for {HOST}, until ")
    made = issued(client, HOST)
    assert verified(authority, made, "sslserver").returncode == 0, verified(authority, made, "sslserver").stderr
    assert verified(authority, made, "sslclient").returncode != 0
    for wrong in ({"name": "other.lab.test"}, {"name": f"a.{HOST}"}, {"name": HOST, "ip_sans": "10.0.0.1"}):
        with pytest.raises(hvac.exceptions.InvalidRequest):
            issued(client, **wrong)


def test_the_issuer_is_bound_by_itself_whatever_its_roles_say(client, issuer, authority):
    """Who can write roles in OpenBao is no administrator of the cluster by that."""
    issuer(HOST)
    client.write_data("pki/roles/gateway", data={"allow_any_name": True, "client_flag": True, "key_type": "ec"})
    made = issued(client, HOST)
    assert "unsuitable certificate purpose" in verified(authority, made, "sslclient").stderr
    try:
        other = issued(client, "kubernetes.default.svc")
    except hvac.exceptions.InternalServerError:
        return  # OpenBao looks at the constraints of its own issuer
    assert "permitted subtree violation" in verified(authority, other, "sslserver", "kubernetes.default.svc").stderr


def test_a_second_run_changes_nothing_and_another_host_gets_another_issuer(client, issuer):
    first = issuer(HOST)
    assert len(first) >= 2
    assert issuer(HOST) == []
    assert issuer("new.lab.test")[-1].startswith("issuer for new.lab.test, until ")
    assert issued(client, "new.lab.test")["certificate"]
    assert issuer("new.lab.test") == []


def test_an_issuer_of_another_ca_is_replaced(issuer, authority):
    issuer(HOST)
    other = trustme.CA()
    other.cert_pem.write_to_path(authority / "ca.crt")
    other.private_key_pem.write_to_path(authority / "ca.key")
    assert [line[: len("issuer for")] for line in issuer(HOST)] == ["issuer for"]


@pytest.mark.parametrize("name", ["configure.sh.j2", "issuer.sh.j2"])
def test_a_shell_can_read_the_script(name):
    script = TEMPLATES.get_template(name).render(gateway_names=[HOST], openbao_issuer_hours=1)
    done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
