"""The families of checks and the adapters under them, against real servers."""

from __future__ import annotations

import itertools
import json
import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from pydantic import ValidationError

from engine.adapters.databases import SqlAndRedis
from engine.adapters.dns import DnsResolver
from engine.adapters.http import Requests
from engine.adapters.network import Sockets
from engine.checks.dns import DnsCheck, DnsParams
from engine.checks.http import HttpCheck, HttpParams
from engine.checks.jsonrpc import JsonRpcCheck, JsonRpcParams
from engine.checks.looking import split_address
from engine.checks.promql import PromqlCheck, PromqlParams
from engine.checks.redis import RedisCheck, RedisParams
from engine.checks.sql import SqlCheck, SqlParams
from engine.checks.tcp import TcpCheck, TcpParams
from engine.checks.tls import TlsCheck, TlsParams
from engine.core.action import Deadline
from engine.core.ports import SecretVersion
from engine.core.redaction import Secret
from engine.errors import UsageError
from tests.contract import servers
from tests.contract.services import free_port
from tests.fakes.contexts import context
from tests.fakes.local_cluster import LocalCluster


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def ca(authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


@pytest.fixture
def plain():
    with servers.web() as server:
        server.answers["/health"] = (200, "all is well")
        yield server


@pytest.fixture
def secure(authority):
    with servers.web(authority.issue_cert("shop.example")) as server:
        server.answers["/health"] = (200, "all is well")
        yield server


def http(services=None, **params):
    return HttpCheck(Requests(), LocalCluster(services)).run(HttpParams(**params), context())


# --- http ---


def test_http_says_what_it_saw(plain):
    finding = http(url=f"http://{plain.address}/health", contains="well")
    assert finding.ok
    assert finding.saw.startswith("200 in ")
    assert finding.saw.endswith("body has 'well'")


@pytest.mark.parametrize("url", ["http://[", "http://", "http://host:99999/", "http://host:0/"])
def test_http_what_is_no_url_is_a_mistake(url):
    with pytest.raises(ValidationError, match="url"):
        HttpParams(url=url)
    with pytest.raises(UsageError, match="is not an http or https URL"):
        Requests().request("GET", url, deadline=Deadline(5))


def test_http_another_status(plain):
    finding = http(url=f"http://{plain.address}/nowhere")
    assert (finding.ok, finding.saw) == (False, "answered 404, wanted 200: nothing here")
    assert http(url=f"http://{plain.address}/nowhere", status=404).ok


def test_http_another_body(plain):
    finding = http(url=f"http://{plain.address}/health", contains="ready")
    assert (finding.ok, finding.saw) == (False, "200, but the body lacks 'ready': all is well")


def test_http_a_redirect_is_an_answer(plain):
    plain.answers["/old"] = (301, "moved", ("Location", "/health"))
    assert http(url=f"http://{plain.address}/old", status=301).ok


def test_http_a_limit_shows_within_some_requests(plain):
    answers = itertools.chain([200, 200, 429], itertools.repeat(200))
    plain.answers["/health"] = lambda _request: (next(answers), "")
    asked = f"http://{plain.address}/health"
    finding = http(url=asked, status=429, within=5)
    assert finding.ok
    assert finding.saw.endswith("within 5 requests")
    never = http(url=asked, status=429, within=3)
    assert not never.ok
    assert "answered 200 3 times, wanted 429" in never.saw


def test_http_sends_method_headers_and_json(plain):
    plain.answers["/jobs"] = (201, "made")
    finding = http(
        url=f"http://{plain.address}/jobs", method="POST", status=201, headers={"X-Team": "sre"}, body={"a": [1]}
    )
    assert finding.ok
    request = plain.seen[-1]
    assert (request.method, request.headers["X-Team"], json.loads(request.body)) == ("POST", "sre", {"a": [1]})
    assert request.headers["Content-Type"] == "application/json"


def test_http_through_a_tunnel_keeps_the_host(plain):
    finding = http({"shop/web:80": ("127.0.0.1", plain.port)}, url="http://shop.example/health", service="shop/web:80")
    assert finding.ok
    assert plain.seen[-1].headers["Host"] == "shop.example"


def test_http_without_a_ready_pod_is_a_finding():
    finding = http(url="http://shop.example/", service="shop/web:80")
    assert (finding.ok, finding.saw) == (False, "service shop/web:80 has no ready pod")


def test_https_to_an_address_keeps_name_and_certificate(secure, ca):
    finding = http(url="https://shop.example:8443/health", resolve=secure.address, ca=ca)
    assert finding.ok, finding.saw
    assert secure.seen[-1].headers["Host"] == "shop.example:8443"
    assert secure.names == ["shop.example"]


def test_https_of_another_name_is_refused_by_us(secure, ca):
    finding = http(url="https://bank.example/health", resolve=secure.address, ca=ca)
    assert not finding.ok
    assert "bank.example" in finding.saw
    assert not secure.seen


def test_https_of_an_unknown_authority_is_refused_by_us(secure):
    finding = http(url="https://shop.example/health", resolve=secure.address)
    assert not finding.ok
    assert "certificate" in finding.saw.lower()
    assert not secure.seen


def test_http_refused_is_a_finding():
    port = free_port()
    finding = http(url=f"http://127.0.0.1:{port}/")
    assert (finding.ok, finding.saw) == (False, f"GET http://127.0.0.1:{port}/: connection refused")


def test_http_a_password_in_the_url_is_not_shown():
    port = free_port()
    finding = http(url=f"http://user:hunter22@127.0.0.1:{port}/a?b=c")
    assert finding.saw == f"GET http://127.0.0.1:{port}/a?b=c: connection refused"


def test_http_must_be_refused(plain):
    assert http(url=f"http://127.0.0.1:{free_port()}/", refused=True).ok
    with servers.resetting() as address:
        finding = http(url=f"http://{address}/", refused=True)
        assert (finding.ok, finding.saw) == (True, f"GET http://{address}/: connection reset")
    finding = http(url=f"http://{plain.address}/health", refused=True)
    assert (finding.ok, finding.saw) == (False, "answered 200; it should be refused")


def test_http_a_mistake_is_not_a_refusal(secure):
    assert not http(url="https://shop.example/", resolve=secure.address, refused=True).ok  # unknown authority
    assert not http(url="http://shop.example/", service="shop/web:80", refused=True).ok  # no pod to ask
    finding = http(url="http://no-such-host.invalid/", refused=True)
    assert (finding.ok, finding.saw) == (False, "GET http://no-such-host.invalid/: the name does not resolve")


def test_http_silence_ends_at_the_deadline():
    with servers.silent() as address:
        check, params = HttpCheck(Requests(), LocalCluster()), HttpParams(url=f"http://{address}/")
        finding = check.run(params, context(deadline=Deadline(0.3)))
        assert not finding.ok
        assert "no answer within" in finding.saw


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://a"},
        {"url": "http://a", "resolve": "1.2.3.4", "service": "a/b:1"},
        {"url": "http://a", "sttus": 1},
    ],
)
def test_http_parameters(wrong):
    with pytest.raises(ValidationError):
        HttpParams(**wrong)


# --- tls and tcp ---


def tls(**params):
    return TlsCheck(Sockets()).run(TlsParams(**params), context())


def test_tls(secure, ca):
    finding = tls(address=secure.address, server_name="shop.example", ca=ca)
    assert finding.ok
    assert "trustme" in finding.saw
    assert "TLSv1.3" in finding.saw


def test_tls_soon_over(authority, ca):
    soon = datetime.now(UTC) + timedelta(days=5, hours=1)
    with servers.web(authority.issue_cert("shop.example", not_after=soon)) as server:
        finding = tls(address=server.address, server_name="shop.example", ca=ca, days_left=14)
        assert not finding.ok
        assert finding.saw.startswith("expires in 5 days")
        assert tls(address=server.address, server_name="shop.example", ca=ca, days_left=5).ok


def test_tls_over(authority, ca):
    past = datetime.now(UTC) - timedelta(days=1)
    with servers.web(authority.issue_cert("shop.example", not_after=past)) as server:
        finding = tls(address=server.address, server_name="shop.example", ca=ca)
        assert not finding.ok
        assert "expired" in finding.saw


def test_tls_of_another_name_or_none(secure, plain, ca):
    assert "bank.example" in tls(address=secure.address, server_name="bank.example", ca=ca).saw
    assert not tls(address=plain.address, ca=ca).ok
    assert "connection refused" in tls(address=f"127.0.0.1:{free_port()}", ca=ca).saw


def test_tls_an_older_version_must_be_refused(authority, ca):
    """By a server that wants 1.3, and not by one that takes both; another CA is no proof of a version."""

    class Only13:
        def configure_cert(self, context):
            authority.issue_cert("shop.example").configure_cert(context)
            context.minimum_version = ssl.TLSVersion.TLSv1_3

    with servers.web(Only13()) as server:
        asked = {"address": server.address, "server_name": "shop.example", "newest": "TLSv1.2", "refused": True}
        finding = tls(**asked, ca=ca)
        assert finding.ok, finding.saw
        assert "no version of TLS in common" in finding.saw
        assert tls(address=server.address, server_name="shop.example", ca=ca).ok
    with servers.web(authority.issue_cert("shop.example")) as server:
        both = {**asked, "address": server.address}
        assert "accepted TLSv1.2" in tls(**both, ca=ca).saw
        assert not tls(**both, ca=ca).ok
        assert not tls(**both).ok


def test_tls_with_a_ca_file_that_is_not_there(secure):
    with pytest.raises(UsageError, match=r"no-such\.pem"):
        tls(address=secure.address, ca="/no-such.pem")


def test_tcp(plain):
    check = TcpCheck(Sockets(), LocalCluster({"shop/web:80": ("127.0.0.1", plain.port)}))
    assert check.run(TcpParams(address=plain.address), context()).ok
    assert check.run(TcpParams(service="shop/web:80"), context()).saw.startswith("shop/web:80 accepted in ")
    closed = f"127.0.0.1:{free_port()}"
    assert not check.run(TcpParams(address=closed), context()).ok
    assert check.run(TcpParams(address=closed, refused=True), context()).ok
    assert not check.run(TcpParams(address=plain.address, refused=True), context()).ok
    with servers.resetting() as address:  # as a tunnel to a port where nothing listens
        dead = TcpCheck(Sockets(), LocalCluster({"shop/web:80": split_address(address)}))
        assert not dead.run(TcpParams(service="shop/web:80"), context()).ok
    for wrong in ({}, {"address": "a", "service": "b"}, {"address": "no-port"}):
        with pytest.raises(ValidationError):
            TcpParams(**wrong)


# --- dns ---


def test_dns():
    records = {("web.shop", "A"): ["10.0.0.1", "10.0.0.2"], ("_sip.shop", "SRV"): ["1 2 5060 web.shop."]}
    with servers.name_server(records) as server:

        def look(**params):
            return DnsCheck(DnsResolver()).run(DnsParams(server=server, **params), context())

        assert look(name="web.shop").saw == "10.0.0.1, 10.0.0.2"
        assert look(name="web.shop", at_least=2, answers=["10.0.0.2"]).ok
        assert look(name="web.shop", at_least=3).saw == "10.0.0.1, 10.0.0.2; wanted at least 3"
        assert look(name="web.shop", answers=["10.0.0.9"]).saw == "10.0.0.1, 10.0.0.2; wanted 10.0.0.9"
        assert not look(name="web.shop", type="AAAA").ok
        assert look(name="nothing.shop").saw == "no A record; wanted at least 1"
        assert look(name="nothing.shop", at_least=0).ok
        assert look(name="_sip.shop", type="SRV", answers=["1 2 5060 web.shop"]).ok


def test_dns_without_a_server():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        params = DnsParams(name="web.shop", server=f"127.0.0.1:{mute.getsockname()[1]}")
        finding = DnsCheck(DnsResolver()).run(params, context(deadline=Deadline(0.5)))
    assert not finding.ok
    assert "no answer" in finding.saw


# --- sql and redis ---


class OneSecret:
    """A store that holds one path; the Vault adapter has its own tests."""

    def __init__(self, **values):
        self.values = {key: Secret(value) for key, value in values.items()}

    def read(self, path, version=None, *, sensitive=None):
        return SecretVersion(1, self.values) if path == "shop/db" and self.values else None


@pytest.fixture
def sql(postgres):
    base = {"database": "shop", "user": "shop", "password": {"secret": "shop/db"}}
    base["address"] = f"{postgres.host}:{postgres.port}"

    def look(password=postgres.password, **params):
        store = OneSecret(password=password) if password else OneSecret()
        return SqlCheck(SqlAndRedis(), LocalCluster(), store).run(SqlParams(**{**base, **params}), context())

    return look


def test_sql(sql):
    assert sql(query="SELECT count(*) FROM goods", equals=500).saw == "500"
    assert sql(query="SELECT count(*) FROM goods", at_least=501).saw == "500, wanted at least 501"
    assert sql(query="SELECT name FROM goods WHERE id = 1", equals="c4ca4238a0b923820dcc509a6f75849b").ok
    assert sql(query="SELECT true", equals=True).ok
    assert sql().ok
    assert sql(query="SELECT 1 WHERE false").saw == "no row"


def test_sql_refused(sql):
    assert "password authentication failed" in sql(password="another-password").saw
    assert "goods_of_others" in sql(query="SELECT * FROM goods_of_others").saw
    assert "no_such_database" in sql(database="no_such_database").saw
    assert sql(password="").saw == "secret shop/db has no password yet"
    assert not sql(password="another-password").final
    assert sql(query="SELEKT 1").final
    finding = sql(address=f"127.0.0.1:{free_port()}")
    assert not finding.ok
    assert "connection refused" in finding.saw


def test_redis(redis):
    def look(stored=redis.password, port=redis.port, **params):
        check = RedisCheck(SqlAndRedis(), LocalCluster(), OneSecret(password=stored))
        return check.run(RedisParams(address=f"127.0.0.1:{port}", **params), context())

    known = {"secret": "shop/db"}
    assert look(password=known).saw == "PONG"
    assert look(password=known).ok
    wrong = look("another-password", password=known)
    assert not wrong.ok
    assert "another-password" not in wrong.saw
    assert "Authentication required" in look().saw  # without a login
    assert "connection refused" in look(port=free_port()).saw


# --- jsonrpc and promql ---


def rpc(server, **params):
    return JsonRpcCheck(Requests(), LocalCluster({"chain/node:9944": ("127.0.0.1", server.port)})).run(
        JsonRpcParams(**{"service": "chain/node:9944", **params}), context()
    )


def test_jsonrpc(plain):
    heights = itertools.chain(["0x1a", "0x1c"], itertools.repeat("0x1c"))

    def answer(request):
        call = json.loads(request.body)
        results = {
            "system_health": lambda: {"peers": 2, "isSyncing": False},
            "chain_getHeader": lambda: {"number": next(heights)},
            "system_peers": lambda: [{"peerId": "a"}],
        }
        if call["method"] not in results:
            return 200, {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "Method not found"}}
        return 200, {"jsonrpc": "2.0", "id": 1, "result": results[call["method"]]()}

    plain.answers["/"] = answer
    finding = rpc(plain, method="system_health", path="result.peers", at_least=2)
    assert (finding.ok, finding.saw) == (True, "system_health result.peers: 2")
    assert rpc(plain, method="system_health", path="result.isSyncing", equals=False).ok
    assert not rpc(plain, method="system_health", path="result.peers", at_least=3).ok
    assert rpc(plain, method="system_peers", path="result.0.peerId", equals="a").ok
    assert not rpc(plain, method="system_peers", path="result.1.peerId").ok
    grows = {"method": "chain_getHeader", "path": "result.number", "grows": True, "seconds": 0.01}
    assert rpc(plain, **grows).saw == "chain_getHeader result.number: 26 → 28 in 0.0 s"
    stopped = rpc(plain, **grows)
    assert (stopped.ok, stopped.saw) == (False, "chain_getHeader result.number: 28 after 0.01 s, as before (28)")
    heights = iter(["0x1c", "0x1c", "0x1c", "0x1d"])
    assert rpc(plain, **{**grows, "seconds": 60}).ok  # as soon as it has grown
    assert "Method not found" in rpc(plain, method="nothing").saw
    plain.answers["/"] = (502, "bad gateway")
    assert rpc(plain, method="system_health").saw == "system_health: answered 502 without JSON: bad gateway"


def prom(server, **params):
    return PromqlCheck(Requests(), LocalCluster()).run(
        PromqlParams(url=f"http://{server.address}", **params), context()
    )


def test_promql(plain):
    def query(request):
        samples = {"up": ["1", "0"], "total": ["12"], "none": []}
        asked = request.path.partition("query=")[2]
        if asked not in samples:
            return 400, {"status": "error", "error": "parse error"}
        result = [{"metric": {}, "value": [0, sample]} for sample in samples[asked]]
        return 200, {"status": "success", "data": {"resultType": "vector", "result": result}}

    targets = [
        {"scrapeUrl": "http://a", "health": "up", "lastError": ""},
        {"scrapeUrl": "http://b", "health": "down", "lastError": "refused"},
    ]
    rules = {"groups": [{"rules": [{"name": "PodDown", "health": "ok"}, {"name": "New", "health": "unknown"}]}]}
    plain.answers["/api/v1/query"] = query
    plain.answers["/api/v1/targets"] = (200, {"status": "success", "data": {"activeTargets": targets}})
    plain.answers["/api/v1/rules"] = (200, {"status": "success", "data": rules})

    assert prom(plain, query="total", at_least=10).saw == "12"
    finding = prom(plain, query="up", equals=1)
    assert (finding.ok, finding.saw) == (False, "0, wanted 1")
    assert prom(plain, query="none").saw == "the query gives nothing"
    assert "parse error" in prom(plain, query="nonsense").saw
    assert prom(plain, targets_up=True).saw == "1 of 2 targets up: http://b down (refused)"
    targets.pop()
    finding = prom(plain, targets_up=True, rule_loaded="PodDown", query="total", equals=12)
    assert (finding.ok, finding.saw) == (True, "12; 1 of 1 targets up; rule PodDown loaded, health ok")
    targets.clear()
    assert prom(plain, targets_up=True).saw == "0 of 0 targets up: there is none"
    assert not prom(plain, rule_loaded="New").ok
    assert prom(plain, rule_loaded="Other").saw == "rule Other is not among the 2 loaded"
