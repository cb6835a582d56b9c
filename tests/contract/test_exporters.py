"""charts/exporters: the age of backups read from real stores, and the gateway's certificate by the real exporter."""

from __future__ import annotations

import datetime as dt
import importlib.util
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
from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from engine.core.action import Deadline
from tests.contract.servers import web
from tests.contract.services import free_port, require, running, wait_until
from tests.contract.test_monitoring import LAYERS
from tests.contract.test_object_stores import make, write

CHART = Path(__file__).parents[2] / "runbooks/belizechain/charts/exporters"
SCRIPT = CHART / "files/backups.py"
TAKEN = "2030-01-02T03:04:05+00:00"
TOLD = 'backup_last_success_timestamp_seconds{of="postgresql/shop/pg-0/shop"} 1893553445'


def asked(tmp_path, endpoint, bucket, **credentials):
    for name, value in credentials.items():
        (tmp_path / name).write_text(value)
    port = free_port()
    env = {
        "S3_ENDPOINT": endpoint,
        "BUCKET": bucket,
        "PREFIX": "shop/",
        "PORT": str(port),
        "CREDENTIALS": str(tmp_path),
    }
    with running([sys.executable, str(SCRIPT)], env={**os.environ, **env}):
        wait_until(lambda: requests.get(f"http://127.0.0.1:{port}/metrics", timeout=12).ok)
        return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=12).text.splitlines()


@pytest.mark.parametrize("kind", ["s3", "azureblob"])
def test_the_newest_backup_that_is_proved_is_told(kind, request, tmp_path):
    store, bucket = make(kind, request), f"b-{os.urandom(6).hex()}"
    store.create_bucket(bucket)
    if kind == "s3":
        endpoint, credentials = request.getfixturevalue("moto"), {"access_key": "a", "secret_key": "secret-key"}
    else:
        azurite = request.getfixturevalue("azurite")
        until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        may = ContainerSasPermissions(read=True, list=True)
        sas = generate_container_sas(azurite.account, bucket, account_key=azurite.key, permission=may, expiry=until)
        endpoint, credentials = azurite.url, {"sas": sas}

    def put(name, taken, *endings):
        documents = {".manifest.json": {"source": "postgresql/shop/pg-0/shop", "taken": taken, "bytes": 7}}
        for ending in endings:
            body = json.dumps(documents.get(ending, {})).encode()
            store.put(bucket, f"shop/postgresql/{name}{ending}", write(tmp_path, body), {}, deadline=Deadline(30))

    whole = (".dump.age", ".manifest.json", ".proof.json")
    assert asked(tmp_path, endpoint, bucket, **credentials)[-1] == "backup_bucket_up 1"  # no backup, no age
    put("first", "2030-01-01T00:00:00+00:00", *whole)
    put("second run", TAKEN, *whole)
    put("third", "2030-01-03T00:00:00+00:00", *whole[:2])  # not proved
    said = asked(tmp_path, endpoint, bucket, **credentials)
    assert TOLD in said
    assert [line for line in said if line.startswith("backup_last_size_bytes{")] == [
        'backup_last_size_bytes{of="postgresql/shop/pg-0/shop"} 7'
    ]


def test_a_bucket_that_cannot_be_read_tells_no_age(moto, tmp_path):
    assert asked(tmp_path, moto, "no-such-bucket") == ["# TYPE backup_bucket_up gauge", "backup_bucket_up 0"]
    assert asked(tmp_path, f"http://127.0.0.1:{free_port()}", "b")[-1] == "backup_bucket_up 0"


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS", str(tmp_path))
    spec = importlib.util.spec_from_file_location("backups_exporter", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_requests_are_signed_as_amazons_own_client_signs_them(script, tmp_path):
    (tmp_path / "access_key").write_text("AKIAEXAMPLE")
    (tmp_path / "secret_key").write_text("a-secret/key+of=40")
    bucket = script.Bucket("https://s3.example.com", "eu-central-1", "backups")
    path, arguments = "/backups/a%20b/c", "list-type=2&prefix=belizechain%2F"
    headers = bucket.signed(path, arguments)
    request = AWSRequest("GET", f"https://s3.example.com{path}?{arguments}")
    for name, value in headers.items():
        if name != "Authorization":
            request.headers[name] = value
    request.context["timestamp"] = headers["x-amz-date"]
    theirs = S3SigV4Auth(Credentials("AKIAEXAMPLE", "a-secret/key+of=40"), "s3", "eu-central-1")
    theirs.payload = lambda _request: script.EMPTY
    wanted = theirs.signature(theirs.string_to_sign(request, theirs.canonical_request(request)), request)
    assert headers["Authorization"].rpartition("Signature=")[2] == wanted


def test_only_whole_backups_count_and_the_newest_of_each_folder(script):
    whole = {f"{name}{e}": at for name, at in (("a/1", "1"), ("a/2", "3"), ("b/1", "2")) for e in script.ENDINGS}
    assert script.newest({**whole, "a/3.dump.age": "4", "a/3.proof.json": "4", "a/4": "9"}) == ["a/2", "b/1"]


@pytest.fixture
def blackbox(tmp_path):
    """The exporter of Debian's package: installed, out of the lab's image, or none."""
    for layer in sorted(LAYERS.glob("blackbox-debian-*.tar")):
        with tarfile.open(layer) as tar:
            tar.extractall(
                tmp_path, [m for m in tar if m.name == "./usr/bin/prometheus-blackbox-exporter"], filter="data"
            )
    name = "prometheus-blackbox-exporter"
    return require("blackbox-exporter", shutil.which(name), tmp_path / "usr/bin" / name)


def test_the_exporter_tells_when_the_gateways_certificate_ends_and_refuses_another_hosts(blackbox, tmp_path):
    helm = require("helm", "/var/cache/runbook-lab/bin/helm", shutil.which("helm"))
    authority, ends = trustme.CA(), dt.datetime(2040, 1, 1, tzinfo=dt.UTC)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    argv = [
        helm,
        "template",
        "x",
        str(CHART),
        "-f",
        str(CHART / "values-local.yaml"),
        "--set",
        "blackbox.host=shop.test",
    ]
    rendered = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    text = next(
        d["data"]["blackbox.yml"] for d in yaml.safe_load_all(rendered) if d and "blackbox.yml" in d.get("data", {})
    )
    (tmp_path / "blackbox.yml").write_text(text.replace("/ca/ca.crt", f"{tmp_path}/ca.crt"))
    port = free_port()
    argv = [blackbox, f"--config.file={tmp_path}/blackbox.yml", f"--web.listen-address=127.0.0.1:{port}"]

    def probe(*names):
        with web(authority.issue_cert(*names, not_after=ends)) as server:
            server.answers["/health"] = (200, "well")
            target = f"https://{server.address}/health"
            url = f"http://127.0.0.1:{port}/probe"
            return requests.get(url, params={"module": "platform", "target": target}, timeout=10).text.splitlines()

    with running(argv):
        wait_until(lambda: requests.get(f"http://127.0.0.1:{port}/-/healthy", timeout=2).ok)
        good = probe("shop.test")
        assert "probe_success 1" in good
        value = next(line.split()[1] for line in good if line.startswith("probe_ssl_earliest_cert_expiry "))
        assert dt.datetime.fromtimestamp(float(value), dt.UTC) == ends
        assert "probe_success 0" in probe("other.test")
