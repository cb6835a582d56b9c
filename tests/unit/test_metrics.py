"""Every metric that a rule or a dashboard asks for is one that some target gives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

RUNBOOK = Path(__file__).parents[2] / "runbooks/belizechain"
CHART = yaml.safe_load((RUNBOOK / "charts/prometheus/values.yaml").read_text())
TARGETS = yaml.safe_load((RUNBOOK / "values/prometheus-targets.yaml").read_text())

GIVES = {
    "every target": r"up",
    "Prometheus' own rules": r"ALERTS",
    "prometheus": r"prometheus_tsdb_head_(series|samples_appended_total)|prometheus_rule_group_last_duration_seconds",
    "alertmanager": r"alertmanager_notifications_failed_total",
    "apiserver": r"apiserver_request_total",
    "sidecars": CHART["sidecars"]["keep"],
    "kubelet": CHART["kubelet"]["keep"],
    "probe": r"probe_success|probe_ssl_earliest_cert_expiry",
    "backups": r"backup_last_success_timestamp_seconds|backup_last_size_bytes|backup_bucket_up",
    "chain": r"substrate_block_height|substrate_sub_libp2p_peers_count",
    "pakit": r"standin_(requests_total|stored_objects)|pakit_\w+",
    "ipfs": r"ipfs_\w+",
    "nawal": r"nawal_\w+",
    "kinich": r"kinich_\w+",
}
"""Job -> what it gives, of what is asked. The stand-ins' and exporters' own tests hold that they do."""
PENDING = {"nawal", "kinich"}
"""Services whose charts bring their targets."""

_WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"}
_NOISE = re.compile(
    r'"[^"]*"|\'[^\']*\'|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)'
)


def metrics(expression: str) -> set[str]:
    """The metrics of a PromQL expression: names that are no function, keyword or label."""
    text = _NOISE.sub(" ", re.sub(r"\{[^}]*\}", " ", re.sub(r'"[^"]*"', '""', expression)))
    found = re.findall(r"(?<![\w.$])([A-Za-z_:][\w:]*)\b(?!\s*\()", text)
    return {name for name in found if name not in _WORDS}


def asked() -> list[tuple[str, str]]:
    found = []
    for file in sorted((RUNBOOK / "rules").glob("*.yaml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            found += [(r["alert"], m) for r in group["rules"] for m in metrics(r["expr"])]
    for file in sorted((RUNBOOK / "dashboards").glob("*.json")):
        expressions = re.findall(r'"expr": ("(?:[^"\\]|\\.)*")', file.read_text())
        found += [(file.name, m) for e in expressions for m in metrics(json.loads(e))]
    return found


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (job) (rate(a_total{code=~"4..|{x}"}[5m])) > 1', {"a_total"}),
        ("a / on (pod) group_left (node) b offset 5m", {"a", "b"}),
        ("time() - max(x:y) > 26 * 3600 or absent(z)", {"x:y", "z"}),
        ("rate(q[$__rate_interval]) * 60", {"q"}),
    ],
)
def test_what_a_query_asks_for(expression, names):
    assert metrics(expression) == names


def test_rules_and_dashboards_ask_for_what_targets_give():
    given = re.compile("|".join(f"(?:{names})" for names in GIVES.values()))
    missing = {(place, name) for place, name in asked() if not given.fullmatch(name)}
    assert missing == set()
    assert len({name for _, name in asked()}) > 20


def test_each_of_these_targets_is_asked():
    configuration = (RUNBOOK / "charts/prometheus/templates/configmap.yaml").read_text()
    jobs = set(re.findall(r"job_name: ([\w-]+)", configuration)) | set(TARGETS["targets"]) | set(TARGETS["sets"])
    assert set(GIVES) - {"every target", "Prometheus' own rules", "kubelet"} - PENDING <= jobs
