"""What the reference platform's own files allow: rendered as for the local environment, judged object by object."""

from __future__ import annotations

import pytest
import yaml
from jinja2 import Environment

from engine.errors import FilesError
from tests.fakes.platform import ROOT, RUNBOOK, objects, variables

SEPARATE = {"manifests/storage", "manifests/gateway-acme"}
"""Rendered for what the local environment is not."""
FOLDERS = sorted(
    {str(f.parent.relative_to(RUNBOOK)) for d in ("manifests", "policies") for f in RUNBOOK.glob(f"{d}/*/*.yaml")}
    - SEPARATE
)
PRIVILEGED = {"istio-system"}
"""istio-cni writes its plugin into the node."""


def of(kind: str, folder: str) -> dict[str, dict]:
    found = [o for o in objects(folder) if o["kind"] == kind]
    return {f"{o['metadata'].get('namespace', '')}/{o['metadata']['name']}": o for o in found}


NAMESPACES = sorted(n.strip("/") for n in of("Namespace", "manifests/namespaces"))


def access() -> list[dict]:
    """What the role that gives the engine its rights makes."""
    role = ROOT / "playbooks/roles/access"
    values = yaml.safe_load((role / "defaults/main.yml").read_text())
    engine = Environment(trim_blocks=True, lstrip_blocks=True)  # as Ansible's templates
    engine.filters["to_json"] = lambda value: yaml.safe_dump(value, default_flow_style=True, width=10**6)
    text = engine.from_string((role / "templates/access.yaml.j2").read_text()).render(values)
    return [o for o in yaml.safe_load_all(text) if o]


def too_much(rule: dict) -> list[str]:
    return [field for field in ("apiGroups", "resources", "verbs", "nonResourceURLs") if "*" in rule.get(field, ())]


def test_no_role_has_a_wildcard():
    roles = [o for f in FOLDERS for o in objects(f)] + access()
    roles = [o for o in roles if o["kind"] in ("Role", "ClusterRole")]
    assert {"platform-viewer", "platform-deployer", "runbook-deployer"} <= {r["metadata"]["name"] for r in roles}
    assert {r["metadata"]["name"]: too_much(rule) for r in roles for rule in r["rules"] if too_much(rule)} == {}


def test_a_viewer_changes_nothing_and_nobody_of_the_team_reads_secrets():
    roles = of("ClusterRole", "manifests/rbac")
    viewer, deployer = roles["/platform-viewer"]["rules"], roles["/platform-deployer"]["rules"]
    assert {v for r in viewer for v in r["verbs"]} == {"get", "list", "watch"}
    resources = {x for r in [*viewer, *deployer] for x in r["resources"]}
    assert not resources & {"secrets", "roles", "rolebindings", "clusterroles", "pods/exec", "serviceaccounts/token"}


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_namespace_has_quota_limits_roles_and_a_default_deny(namespace):
    assert f"{namespace}/{namespace}" in of("ResourceQuota", "manifests/namespaces")
    assert f"{namespace}/defaults" in of("LimitRange", "manifests/namespaces")
    account = of("ServiceAccount", "manifests/namespaces")[f"{namespace}/default"]
    assert account["automountServiceAccountToken"] is False
    assert f"{namespace}/platform-viewer-viewers" in of("RoleBinding", "manifests/rbac")
    deny = of("NetworkPolicy", "policies/network")[f"{namespace}/default-deny"]["spec"]
    assert deny["podSelector"] == {}
    assert "ingress" not in deny


def test_workloads_are_held_to_restricted():
    for name, namespace in of("Namespace", "manifests/namespaces").items():
        level = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        assert level == ("privileged" if name.strip("/") in PRIVILEGED else "restricted"), name


def allowed() -> set[tuple[str, str, str]]:
    """(caller, service, method and path) as the mesh's policies say; `*` for everything on the port."""
    found = set()
    for name, policy in of("AuthorizationPolicy", "policies/mesh").items():
        if not name.startswith("belizechain/") or name.endswith("default-deny"):
            continue
        service = policy["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]
        for rule in policy["spec"]["rules"]:
            ((principal,),) = (f["source"]["principals"] for f in rule["from"])
            _, _, namespace, _, account = principal.split("/")
            for to in rule["to"]:
                operation = to["operation"]
                assert operation["ports"] == [str(variables()["services"][service]["port"])]
                methods, paths = operation.get("methods", ["*"]), operation.get("paths", [""])
                found |= {(f"{namespace}/{account}", service, f"{m} {p}".strip()) for m in methods for p in paths}
    return found


def test_the_mesh_allows_the_table_of_calls_and_nothing_else():
    table = {(c["from"], c["to"], m) for c in variables()["calls"] for m in c.get("may", ["*"])}
    assert allowed() == table
    assert of("AuthorizationPolicy", "policies/mesh")["belizechain/default-deny"]["spec"] == {}


def test_every_call_names_a_known_service_and_once():
    calls, services = variables()["calls"], variables()["services"]
    pairs = [(c["from"], c["to"]) for c in calls]
    assert {to for _, to in pairs} == set(services)
    assert len(pairs) == len(set(pairs))


def test_networks_let_in_from_other_namespaces_who_the_table_names():
    callers: dict[str, set[str]] = {}
    for call in variables()["calls"]:
        namespace = call["from"].partition("/")[0]
        if namespace != "belizechain":
            callers.setdefault(call["to"], set()).add(namespace)
    found = {}
    for name, policy in of("NetworkPolicy", "policies/network").items():
        if name.startswith("belizechain/allow-callers-of-"):
            (rule,) = policy["spec"]["ingress"]
            labels = [f["namespaceSelector"]["matchLabels"] for f in rule["from"]]
            found[name.partition("-of-")[2]] = {label["kubernetes.io/metadata.name"] for label in labels}
    assert found == callers


def test_every_service_has_a_destination_rule():
    rules = of("DestinationRule", "policies/mesh")
    assert set(rules) == {f"belizechain/{name}" for name in variables()["services"]}
    for rule in rules.values():
        policy = rule["spec"]["trafficPolicy"]
        assert policy["tls"]["mode"] == "ISTIO_MUTUAL"
        assert policy["connectionPool"]
        assert policy["outlierDetection"]


def test_the_gateway_wants_tls_1_3():
    (server,) = of("Gateway", "policies/mesh")["istio-ingress/platform"]["spec"]["servers"]
    assert server["tls"]["minProtocolVersion"] == "TLSV1_3"


def test_the_gateway_serves_a_service_under_its_prefix():
    services = {**variables()["services"], "nawal": {"port": 8080, "prefix": "/nawal/", "timeout": "60s"}}
    routes = {
        o["metadata"]["name"]: o for o in objects("policies/mesh", services=services) if o["kind"] == "VirtualService"
    }
    (nawal,) = (h for h in routes["platform"]["spec"]["http"] if h["name"] == "nawal")
    assert nawal["match"] == [{"uri": {"prefix": "/nawal/"}}]
    assert routes["nawal"]["spec"]["http"][0]["timeout"] == "60s"


@pytest.mark.parametrize(
    ("provider", "key", "parameters"),
    [
        ("aws", None, {"type": "gp3", "encrypted": "true"}),
        ("aws", "arn:k", {"type": "gp3", "encrypted": "true", "kmsKeyId": "arn:k"}),
        ("azure", "/sub/set", {"skuName": "Premium_LRS", "diskEncryptionSetID": "/sub/set"}),
        ("gcp", "projects/k", {"type": "pd-ssd", "disk-encryption-kms-key": "projects/k"}),
    ],
)
def test_storage_is_encrypted_where_the_provider_says_so(provider, key, parameters):
    over = {"storage_provider": provider, "storage_class": "encrypted"} | ({"storage_key": key} if key else {})
    (made,) = objects("manifests/storage", **over)
    assert made["parameters"] == parameters
    assert made["reclaimPolicy"] == "Retain"


def test_the_gateway_gets_a_certificate_with_its_issuer_from_openbao():
    (secret,) = of("ExternalSecret", "manifests/gateway-issued").values()
    assert secret["spec"]["target"]["template"]["data"]["tls.crt"] == "{{ .certificate }}\n{{ .issuing_ca }}\n"
    (generator,) = of("VaultDynamicSecret", "manifests/gateway-issued").values()
    assert generator["spec"]["parameters"] == {"common_name": variables()["gateway_host"]}
    assert secret["spec"]["refreshInterval"] == "480h0m0s"  # of 1440: playbooks/roles/openbao/defaults


def test_openbao_issues_nothing_where_there_is_none():
    with pytest.raises(FilesError, match="gateway_certificate: issued needs secret_store: vault"):
        objects("manifests/gateway-issued", secret_store="keyvault")


@pytest.mark.parametrize("environment", ["dev", "production"])
def test_acme_asks_for_the_gateways_host(environment):
    issuer, certificate = objects("manifests/gateway-acme", environment)
    assert certificate["spec"]["dnsNames"] == [variables(environment)["gateway_host"]]
    assert certificate["spec"]["issuerRef"]["name"] == issuer["metadata"]["name"]
    assert issuer["spec"]["acme"]["solvers"][0]["dns01"]


def test_the_gateway_reads_one_secret_however_it_is_made():
    names = {
        of("ExternalSecret", f"manifests/gateway-{how}")["istio-ingress/gateway-tls"]["spec"]["target"]["name"]
        for how in ("issued", "bought")
    }
    names |= {o["spec"]["secretName"] for o in objects("manifests/gateway-acme", "dev") if o["kind"] == "Certificate"}
    (server,) = of("Gateway", "policies/mesh")["istio-ingress/platform"]["spec"]["servers"]
    assert names == {server["tls"]["credentialName"]}
