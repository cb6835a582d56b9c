"""The Pakit stand-in: three nodes on loopback, and what becomes of an object when one of them is away."""

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
import pakit
import web

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for the last answer


class Nodes:
    """Three nodes; `repair` is called by hand."""

    def __init__(self, directory: Path) -> None:
        self.servers = [Server(("127.0.0.1", 0), web.handler("none", web.Store(directory))) for _ in range(3)]
        self.urls = [f"http://127.0.0.1:{s.server_address[1]}" for s in self.servers]
        self.nodes = []
        for i, server in enumerate(self.servers):
            peers = [pakit.Peer(url) for j, url in enumerate(self.urls) if j != i]
            for peer in peers:
                peer.name = f"pakit-{self.urls.index(peer.url)}"
            node = pakit.Node(f"pakit-{i}", web.Store(directory / str(i)), peers)
            server.RequestHandlerClass = pakit.handler("pakit", node)
            self.nodes.append(node)
            self.serve(i)

    def serve(self, i: int) -> None:
        poll = {"poll_interval": 0.01}
        threading.Thread(target=self.servers[i].serve_forever, kwargs=poll, daemon=True).start()

    def stop(self, i: int) -> None:
        self.servers[i].shutdown()
        self.servers[i].server_close()

    def start(self, i: int) -> None:
        self.servers[i] = Server(
            ("127.0.0.1", self.servers[i].server_address[1]), pakit.handler("pakit", self.nodes[i])
        )
        self.serve(i)

    def ask(self, i: int, path: str, content: bytes | None = None, method: str | None = None) -> bytes:
        request = urllib.request.Request(self.urls[i] + path, content, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read()

    def copies(self, i: int) -> dict:
        return json.loads(self.ask(i, f"/copies/{HELLO}"))


@pytest.fixture
def nodes(tmp_path):
    made = Nodes(tmp_path)
    yield made
    for i in range(3):
        made.stop(i)


def test_what_one_node_stores_all_hold(nodes):
    assert json.loads(nodes.ask(0, "/store", b"hello")) == {"hash": HELLO, "size": 5, "copies": 3}
    assert nodes.copies(1) == {"hash": HELLO, "copies": 3, "of": 3, "nodes": ["pakit-0", "pakit-1", "pakit-2"]}
    assert [node.store.get(HELLO) for node in nodes.nodes] == [b"hello"] * 3


def test_a_node_answers_for_what_only_another_holds_and_keeps_it(nodes):
    nodes.nodes[2].store.put(b"hello")
    assert nodes.copies(0)["nodes"] == ["pakit-2"]
    assert nodes.ask(0, f"/store/{HELLO}") == b"hello"
    assert nodes.copies(0)["nodes"] == ["pakit-0", "pakit-2"]


def test_a_node_that_was_away_fetches_what_it_missed(nodes):
    nodes.stop(2)
    assert json.loads(nodes.ask(0, "/store", b"hello"))["copies"] == 2
    assert nodes.copies(0)["copies"] == 2
    nodes.start(2)
    nodes.nodes[2].repair()
    assert nodes.copies(0)["copies"] == 3
    assert b'pakit_objects{node="pakit-2"} 1' in nodes.ask(2, "/metrics")
    assert b'pakit_objects_missed{node="pakit-2"} 0' in nodes.ask(2, "/metrics")


def test_a_copy_that_is_spoilt_is_not_taken(nodes):
    (nodes.nodes[1].store.directory / HELLO).write_bytes(b"spoilt")
    nodes.nodes[0].repair()
    assert nodes.nodes[0].missed == 1
    for path, content, method in ((f"/store/{HELLO}", None, None), (f"/objects/{HELLO}", b"spoilt", "PUT")):
        with pytest.raises(urllib.error.HTTPError, match=r"404|400") as refused:
            nodes.ask(0, path, content, method)
        refused.value.close()
    assert nodes.nodes[0].store.get(HELLO) is None


def test_it_says_that_it_is_a_stand_in_and_what_it_lacks(nodes):
    told = json.loads(nodes.ask(0, "/"))
    assert (told["standin"], told["without"]) == (True, ["DAG", "ZK proofs"])
    assert json.loads(nodes.ask(0, "/health")) == {"service": "pakit", "ok": True}
