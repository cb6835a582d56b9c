"""Checks through real tunnels, and the login of a service account at OpenBao by a real TokenReview."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import hvac
import pytest
import yaml

from engine.adapters.dns import DnsResolver
from engine.adapters.http import Requests
from engine.adapters.network import Sockets
from engine.adapters.vault import Vault, kubernetes_login
from engine.checks.admission import AdmissionCheck, AdmissionParams
from engine.checks.dns import DnsCheck, DnsParams
from engine.checks.http import HttpCheck, HttpParams
from engine.checks.tcp import TcpCheck, TcpParams
from engine.core.action import Deadline
from engine.core.ports import Reference
from engine.core.redaction import Redactor
from engine.errors import PermanentError
from tests.contract.cluster import KUBECONFIG, PYTHON, connect, deployment, namespace
from tests.fakes.contexts import context

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster():
    return connect("lab-admin")


@pytest.fixture(scope="module")
def web(cluster):
    """A web server on 8000 behind a service of two ports: behind 81 nothing listens."""
    with namespace(cluster) as name:
        cluster.apply(deployment(name), manager="test")
        ports = [{"name": "web", "port": 80, "targetPort": 8000}, {"name": "dead", "port": 81, "targetPort": 8001}]
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": name},
            "spec": {"selector": {"app": "web"}, "ports": ports},
        }
        cluster.apply(service, manager="test")
        check = HttpCheck(Requests(), cluster)
        params = HttpParams(url="http://web/", service=f"{name}/web:80")
        end = time.monotonic() + 60
        while not (finding := check.run(params, context())).ok:
            assert time.monotonic() < end, finding.saw
            time.sleep(0.2)
        yield name


def test_http_through_a_tunnel(cluster, web):
    finding = HttpCheck(Requests(), cluster).run(
        HttpParams(url="http://web/", service=f"{web}/web:80", contains="Directory listing for /"), context()
    )
    assert finding.ok, finding.saw


def test_a_port_behind_which_nothing_listens(cluster, web):
    tcp = TcpCheck(Sockets(), cluster)
    assert tcp.run(TcpParams(service=f"{web}/web:80"), context()).ok
    finding = tcp.run(TcpParams(service=f"{web}/web:81"), context())
    assert not finding.ok, finding.saw
    assert not HttpCheck(Requests(), cluster).run(HttpParams(url="http://web/", service=f"{web}/web:81"), context()).ok


def test_a_service_that_does_not_exist_is_no_refusal(cluster, web):
    finding = TcpCheck(Sockets(), cluster).run(TcpParams(service=f"{web}/nothing:80", refused=True), context())
    assert not finding.ok
    assert "does not exist yet" in finding.saw


def pod(namespace, **security):
    container = {"name": "main", "image": PYTHON, "securityContext": security}
    metadata = {"name": "asked", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def enforce(cluster, namespace, level):
    metadata = {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": level}}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, manager="test")


def test_what_pod_security_refuses_is_not_made(cluster):
    check, words = AdmissionCheck(cluster), 'violates PodSecurity "baseline'
    with namespace(cluster) as name:
        refused, accepted = AdmissionParams(object=pod(name, privileged=True), refused=words), pod(name)
        enforce(cluster, name, "privileged")
        open_yet = check.run(refused, context())
        assert (open_yet.ok, open_yet.saw) == (False, f"accepted, wanted '{words}'")
        enforce(cluster, name, "baseline")
        closed = check.run(refused, context())
        assert closed.ok, closed.saw
        assert check.run(AdmissionParams(object=accepted), context()).ok
        assert not check.run(AdmissionParams(object=pod(name, privileged=True)), context()).ok
        assert not check.run(AdmissionParams(object=accepted, refused="another reason"), context()).ok
        assert cluster.list("v1", "Pod", name) == []
        elsewhere = check.run(AdmissionParams(object=pod("not-there"), refused=words), context())
        assert (elsewhere.ok, "not-there" in elsewhere.saw) == (False, True)


def test_dns_of_the_cluster(cluster, web):
    service = next(s for s in cluster.list("v1", "Service", "kube-system") if s["metadata"]["name"] == "kube-dns")
    params = DnsParams(
        name="kubernetes.default.svc.cluster.local", server=service["spec"]["clusterIP"], answers=["10.96.0.1"]
    )
    assert DnsCheck(DnsResolver()).run(params, context()).ok


@pytest.fixture(scope="module")
def login(cluster, bao):
    """A namespace with service accounts `app` and `other`, and an auth mount whose role names `app`."""
    with namespace(cluster) as name:
        for account in ("app", "other", "reviewer"):
            meta = {"name": account, "namespace": name}
            cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}, manager="test")
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{name}-reviewer"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:auth-delegator",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "reviewer", "namespace": name}],
        }
        cluster.apply(binding, manager="test")
        client = hvac.Client(bao.url, bao.token, verify=bao.ca)
        api = yaml.safe_load(KUBECONFIG.read_text())["clusters"][0]["cluster"]
        inline = api.get("certificate-authority-data")
        ca = base64.b64decode(inline).decode() if inline else Path(api["certificate-authority"]).read_text()
        client.sys.enable_auth_method("kubernetes", path=name)
        client.auth.kubernetes.configure(
            api["server"],
            token_reviewer_jwt=cluster.service_account_token(name, "reviewer").reveal(),
            kubernetes_ca_cert=ca,
            mount_point=name,
        )
        client.sys.create_or_update_policy("reader", 'path "secret/data/*" { capabilities = ["read"] }')
        client.auth.kubernetes.create_role("app", ["app"], [name], policies=["reader"], mount_point=name)
        client.secrets.kv.v2.create_or_update_secret(path=name, secret={"a": "1"})
        yield name
        client.session.close()
        reference = Reference("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", f"{name}-reviewer")
        cluster.delete(reference, Deadline(10))


def test_a_service_account_logs_in_and_reads(cluster, bao, login):
    redactor = Redactor()

    def token(url):
        jwt = cluster.service_account_token(login, "app")
        return kubernetes_login(url, jwt, "app", redactor, mount=login, ca=bao.ca)

    vault = Vault(lambda: bao.url, token, redactor, ca=bao.ca)
    assert vault.read(login).values["a"].reveal() == "1"
    assert vault._client.token not in redactor.text(f"token {vault._client.token}")


def test_a_service_account_the_role_does_not_name_is_refused(cluster, bao, login):
    jwt = cluster.service_account_token(login, "other")
    with pytest.raises(PermanentError, match="not authorized"):
        kubernetes_login(bao.url, jwt, "app", Redactor(), mount=login, ca=bao.ca)
