"""The reference platform's rules, the way an alert takes, dashboards: real promtool, Alertmanager, Prometheus."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import requests
import trustme
import yaml

from engine.adapters.http import Requests
from engine.checks.alert import AlertCheck, AlertParams
from engine.checks.dashboards import DashboardsCheck, DashboardsParams
from tests.contract.services import free_port, require, running, wait_until
from tests.fakes.contexts import context
from tests.fakes.local_cluster import LocalCluster

PROJECT = Path(__file__).parents[2]
RUNBOOK = PROJECT / "runbooks/belizechain"
RECEIVERS = PROJECT / "playbooks/roles/emulators/files/receivers.py"
LAYERS = Path(os.environ.get("RUNBOOK_LAB_CACHE", "/var/cache/runbook-lab")) / "images/layers"


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """A program of Prometheus's Debian packages: installed, or out of the lab's image."""
    folder = tmp_path_factory.mktemp("prometheus")

    def find(name: str, layer: str = "prometheus") -> list[str]:
        if shutil.which(name):
            return [str(shutil.which(name))]
        for tar_file in sorted(LAYERS.glob(f"{layer}-debian-*.tar")):
            if not (folder / "usr/bin" / name).exists():
                with tarfile.open(tar_file) as tar:
                    wanted = (f"./usr/bin/{name}", f"./usr/share/prometheus/{layer}")
                    tar.extractall(folder, [m for m in tar if m.name.startswith(wanted)], filter="data")
        (folder / "usr/share").mkdir(parents=True, exist_ok=True)
        found = require("prometheus", folder / "usr/bin" / name)
        # Debian's Alertmanager reads its templates in /usr/share: laid over, in a mount namespace that ends with it.
        over = f'mount -t overlay overlay -o lowerdir={folder}/usr/share:/usr/share /usr/share && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", over, "sh", found]

    return find


def test_every_alert_is_tested_and_promtool_agrees(program):
    files = sorted((RUNBOOK / "rules/tests").glob("*.yaml"))
    argv = [*program("promtool"), "test", "rules", *(f.name for f in files)]
    done = subprocess.run(argv, cwd=files[0].parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rules = [yaml.safe_load(f.read_text()) for f in (RUNBOOK / "rules").glob("*.yaml")]
    alerts = {r["alert"] for doc in rules for group in doc["groups"] for r in group["rules"]}
    tests = [test for f in files for test in yaml.safe_load(f.read_text())["tests"]]
    fired = {a["alertname"] for t in tests for a in t["alert_rule_test"] if a["exp_alerts"]}
    assert fired == alerts


@pytest.fixture
def receivers(tmp_path):
    """The lab's emulators, and where they are."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "tls.key")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(tmp_path / "tls.crt", append=True)
    smtp, https = free_port(), free_port()
    argv = [sys.executable, str(RECEIVERS), "127.0.0.1", str(smtp), str(https), str(tmp_path / "tls")]
    with running(argv):
        base, ca = f"https://127.0.0.1:{https}", str(tmp_path / "ca.pem")
        wait_until(lambda: requests.get(f"{base}/received/email", verify=ca, timeout=2).ok)
        yield base, ca, smtp


@pytest.fixture
def alertmanager(program, receivers, tmp_path):
    """Alertmanager with the chart's own configuration; its secrets are files, as External Secrets leaves them."""
    base, ca, smtp = receivers
    chart = RUNBOOK / "charts/alertmanager"
    helm = require("helm", "/var/cache/runbook-lab/bin/helm", shutil.which("helm"))
    values = {"smtp": {"smarthost": f"127.0.0.1:{smtp}"}, "pagerduty": {"url": f"{base}/pagerduty/v2/enqueue"}}
    argv = [helm, "template", "a", str(chart), "-f", str(chart / "values-local.yaml"), "-f", "-"]
    done = subprocess.run(argv, input=json.dumps(values), capture_output=True, text=True, check=True)
    documents = [d for d in yaml.safe_load_all(done.stdout) if d and d["kind"] == "ConfigMap"]
    text = documents[0]["data"]["alertmanager.yml"].replace("/ca/ca.crt", ca).replace("/secrets/", f"{tmp_path}/")
    (tmp_path / "alertmanager.yml").write_text(text)
    (tmp_path / "smtp_password").write_text("not-checked-by-the-emulator")
    (tmp_path / "slack_url").write_text(f"{base}/slack/services/T0/B0/x")
    (tmp_path / "pagerduty_routing_key").write_text("0123456789abcdef" * 2)
    port = free_port()
    argv = [*program("prometheus-alertmanager", "alertmanager"), f"--config.file={tmp_path}/alertmanager.yml"]
    argv += [f"--storage.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    with running(argv):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: requests.get(f"{url}/-/ready", timeout=2).ok)
        yield url


def alert(url, receivers, **changed):
    base, ca, _ = receivers
    pagerduty = {"firing": '"event_action": "trigger"', "resolved": '"event_action": "resolve"'}
    asked = [
        {"name": name, "url": f"{base}/received/{name}?holding={{token}}", "ca": ca, **more}
        for name, more in (("email", {}), ("slack", {}), ("pagerduty", pagerduty))
    ]
    params = {"url": url, "labels": {"alertname": "RunbookTest", "severity": "critical"}, "seconds": 12}
    params |= {"integrations": ["email", "slack", "pagerduty"], "receivers": asked} | changed
    return AlertCheck(Requests(), LocalCluster()).run(AlertParams(**params), context())


def test_a_test_alert_arrives_at_all_three_and_is_resolved(alertmanager, receivers):
    base, ca, _ = receivers
    finding = alert(alertmanager, receivers)
    assert finding.ok, finding.saw
    assert "firing: delivered by email, slack, pagerduty and held by email, slack, pagerduty" in finding.saw
    assert "resolved: delivered by email" in finding.saw
    mails = requests.get(f"{base}/received/email", verify=ca, timeout=5).json()
    assert [(m["tls"], m["login"]) for m in mails] == [(True, "alertmanager")] * 2
    pages = requests.get(f"{base}/received/pagerduty", verify=ca, timeout=5).json()
    assert [p["event_action"] for p in pages] == ["trigger", "resolve"]


def test_a_warning_pages_nobody_and_the_check_says_who_is_missing(alertmanager, receivers):
    finding = alert(alertmanager, receivers, labels={"alertname": "RunbookTest", "severity": "warning"}, seconds=4)
    assert not finding.ok
    assert "pagerduty has sent nothing" in finding.saw
    assert "email" not in finding.saw
    active = requests.get(f"{alertmanager}/api/v2/alerts", timeout=5).json()
    assert active == []  # what failed was ended


@contextlib.contextmanager
def prometheus(program, folder):
    port = free_port()
    own = {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [own]})
    )
    argv = [*program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with running([*argv, f"--web.listen-address=127.0.0.1:{port}"]):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: bool(requests.get(f"{url}/api/v1/query?query=up", timeout=2).json()["data"]["result"]))
        yield url


def test_a_dashboard_query_without_data_is_named_with_its_panel(program, tmp_path):
    folder = tmp_path / "dashboards"
    folder.mkdir()
    row = {"type": "row", "title": "Row", "panels": [{"title": "Held", "targets": [{"expr": "up{job='$job'}"}]}]}
    panels = [{"title": "Up", "targets": [{"expr": "max_over_time(up[$__range])"}]}, row]
    variable = {"name": "job", "current": {"value": "prometheus"}}
    good = {"title": "Good", "panels": panels, "templating": {"list": [variable]}}
    (folder / "good.json").write_text(json.dumps(good))
    with prometheus(program, tmp_path) as url:

        def look():
            params = DashboardsParams(url=url, folder=str(folder))
            return DashboardsCheck(Requests(), LocalCluster()).run(params, context())

        assert look().saw == "1 dashboards, all 2 queries give data"
        bad = {"title": "Bad", "panels": [{"title": "Gone", "targets": [{"expr": "no_such_metric"}, {"expr": "sum("}]}]}
        (folder / "bad.json").write_text(json.dumps(bad))
        finding = look()
    assert not finding.ok
    assert "bad.json (Bad), panel 'Gone': no_such_metric: gives nothing" in finding.saw
    assert "sum(: Prometheus says" in finding.saw
