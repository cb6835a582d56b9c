"""The IPFS stand-in: kubo's answers, as kubo 0.43.1 gave them, and its CIDs."""

from __future__ import annotations

import json
import sys
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "playbooks/roles/images/files/standins"))
import ipfs

RUNBOOK = "bafkreihjlixnyrm4loruwjcn64cahxljqhyrvin4vdrskidndtc3yqyyby"
ABSENT = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for the last answer


@pytest.fixture
def ask(tmp_path):
    """Asks one of the two ports; gives the status and the body."""
    blocks = ipfs.Blocks(tmp_path)
    servers = {name: Server(("127.0.0.1", 0), ipfs.handler(blocks, name)) for name in ("api", "gateway")}
    for server in servers.values():
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def ask(path: str, body: bytes | None = None, port: str = "api") -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{servers[port].server_address[1]}{path}"
        headers = {"Content-Type": "multipart/form-data; boundary=part"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    yield ask
    for server in servers.values():
        server.shutdown()
        server.server_close()


def form(content: bytes) -> bytes:
    head = b'--part\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    return head + content + b"\r\n--part--\r\n"


@pytest.mark.parametrize(
    ("content", "cid"),
    [
        (b"runbook", RUNBOOK),
        (b"hello world", "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
        (b"", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
        (bytes(2**18), "bafkreiekhhjkxu4ztk3tyng3er3ijhg56mb44oe3gwbgquhzu4afrg2ksa"),
    ],
)
def test_content_comes_back_by_the_cid_that_kubo_gives_it(ask, content, cid):
    status, body = ask("/api/v0/add?cid-version=1", form(content))
    assert (status, json.loads(body)["Hash"], json.loads(body)["Size"]) == (200, cid, str(len(content)))
    assert ask(f"/api/v0/cat?arg={cid}", b"") == (200, content)
    assert ask(f"/api/v0/block/get?arg={cid}", b"") == (200, content)
    assert ask(f"/ipfs/{cid}", port="gateway") == (200, content)


def test_a_block_is_put_with_lines_and_bytes_as_they_are(ask):
    content = b"\r\n\0--pa\r\n\r\n\xff\r\n"
    status, body = ask("/api/v0/block/put", form(content))
    assert (status, json.loads(body)["Size"]) == (200, len(content))
    assert ask(f"/api/v0/cat?arg={json.loads(body)['Key']}", b"") == (200, content)


@pytest.mark.parametrize(
    ("path", "body", "port", "status", "told"),
    [
        (f"/api/v0/cat?arg={ABSENT}", b"", "api", 500, "block was not found locally (offline)"),
        ("/api/v0/cat?arg=../../etc/passwd", b"", "api", 500, "the stand-in knows CIDs of version 1"),
        ("/api/v0/add", b"no form", "api", 500, "no file in the form"),
        ("/api/v0/version", None, "api", 405, "Method Not Allowed"),
        ("/api/v0/nothing", b"", "api", 404, "not found"),
        (f"/ipfs/{ABSENT}", None, "gateway", 404, "not found"),
        ("/api/v0/add", form(b"x"), "gateway", 404, "not found"),
    ],
)
def test_what_can_not_be_answered_is_refused(ask, path, body, port, status, told):
    code, answer = ask(path, body, port)
    assert (code, told in answer.decode()) == (status, True), answer


def test_the_gateway_stores_nothing(ask):
    ask("/api/v0/add", form(b"runbook"), "gateway")
    assert ask(f"/ipfs/{RUNBOOK}", port="gateway")[0] == 404


def test_it_says_that_it_is_a_stand_in_and_counts_requests_as_kubo_does(ask):
    assert json.loads(ask("/api/v0/version", b"")[1])["Version"] == "stand-in-1.0.0"
    assert json.loads(ask("/api/v0/id", b"")[1])["AgentVersion"] == "ipfs-stand-in/1.0.0"
    metrics = ask("/debug/metrics/prometheus")[1].decode()
    assert 'ipfs_info{version="stand-in-1.0.0"} 1' in metrics
    assert 'ipfs_http_requests_total{handler="api",method="post",code="200"} 2' in metrics
