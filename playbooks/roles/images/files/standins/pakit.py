#!/usr/bin/env python3
"""A stand-in for Pakit: content by its SHA-256, on several nodes; each node holds a copy of each object.

POST /store (any bytes: 201 and {"hash", "size", "copies"}), GET /store/HASH (the bytes, also when only another node
holds them), GET /copies/HASH (who holds it), GET /health, GET /metrics (Prometheus text), GET / (what it is).
Between nodes: GET /objects (the hashes this node holds), GET and PUT /objects/HASH.
A node that was away fetches what it missed: every REPAIR_SECONDS it asks the others what they hold.
It has no DAG and no ZK proofs.

Environment: NAME, NODE (this node's name), PEERS (URLs of all nodes, commas between), REPAIR_SECONDS, DATA_DIR, PORT.
"""

import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import web

ANSWER_SECONDS = 2  # what a peer may take; one that is away must not hold up the others
COPIES, OBJECT = re.compile(r"/copies/([0-9a-f]{64})"), re.compile(r"/objects/([0-9a-f]{64})")


class Peer:
    """Another node. One that does not answer holds nothing."""

    def __init__(self, url: str) -> None:
        self.url, self.name = url.rstrip("/"), (urlsplit(url).hostname or url).partition(".")[0]

    def held(self) -> set[str]:
        return set((self._ask("/objects") or b"").decode().split())

    def get(self, name: str) -> bytes | None:
        """Only what has that hash."""
        content = self._ask(f"/objects/{name}")
        return content if content is not None and hashlib.sha256(content).hexdigest() == name else None

    def put(self, name: str, content: bytes) -> bool:
        return self._ask(f"/objects/{name}", content) is not None

    def _ask(self, path: str, content: bytes | None = None) -> bytes | None:
        method = "GET" if content is None else "PUT"
        request = urllib.request.Request(self.url + path, content, method=method)  # noqa: S310  # PEERS are http URLs
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
                return answer.read()
        except OSError:  # away, starting, or without the object
            return None


class Node:
    """One node: its own copies, and the others."""

    def __init__(self, name: str, store: web.Store, peers: Iterable[Peer]) -> None:
        self.name, self.store, self.peers = name, store, list(peers)
        self.missed = 0  # objects that the last repair saw elsewhere and could not fetch
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(self.peers)))

    def put(self, content: bytes) -> tuple[str, int]:
        """Its hash, and how many nodes have it now; one that is away fetches it later."""
        name = self.store.put(content)
        return name, 1 + sum(self._pool.map(lambda peer: peer.put(name, content), self.peers))

    def get(self, name: str) -> bytes | None:
        """From here, or from whoever has it; then it is here too."""
        content = self.store.get(name)
        if content is None and (content := next(filter(None, (peer.get(name) for peer in self.peers)), None)):
            self.store.put(content)
        return content

    def holders(self, name: str) -> list[str]:
        there = self._pool.map(lambda peer: name in peer.held(), self.peers)
        others = [peer.name for peer, held in zip(self.peers, there, strict=True) if held]
        return sorted(others + [self.name] * (name in self.store.names()))

    def repair(self) -> None:
        """Fetch what others hold and this node does not."""
        missing = set().union(*self._pool.map(Peer.held, self.peers)) - self.store.names()
        self.missed = sum(self.get(name) is None for name in sorted(missing))

    def run(self, seconds: float) -> None:
        while True:
            self.repair()
            time.sleep(seconds)


def handler(service: str, node: Node) -> type[BaseHTTPRequestHandler]:
    class Handler(web.handler(service, node.store)):
        def do_GET(self) -> None:  # noqa: N802  # http.server's name
            if self.path == "/":
                told = {"service": service, "node": node.name, "standin": True, "without": ["DAG", "ZK proofs"]}
                self.reply(told)
            elif self.path == "/objects":
                self.reply("\n".join(sorted(node.store.names())).encode(), kind="text/plain")
            elif asked := COPIES.fullmatch(self.path):
                holders = node.holders(asked[1])
                self.reply({"hash": asked[1], "copies": len(holders), "of": 1 + len(node.peers), "nodes": holders})
            elif asked := OBJECT.fullmatch(self.path):
                self.content(node.store.get(asked[1]))
            elif asked := web.HASH.fullmatch(self.path):
                self.content(node.get(asked[1]))
            else:
                super().do_GET()

        def do_PUT(self) -> None:  # noqa: N802
            asked, content = OBJECT.fullmatch(self.path), self.body()
            if content is None:
                return
            if asked and hashlib.sha256(content).hexdigest() == asked[1]:
                node.store.put(content)
                self.reply({"hash": asked[1]}, status=201)
            else:
                self.reply({"error": "the content has another hash"}, status=400)

        def stored(self, content: bytes) -> dict:
            name, copies = node.put(content)
            return {"hash": name, "size": len(content), "copies": copies}

        def content(self, found: bytes | None) -> None:
            if found is None:
                self.reply({"error": "not found"}, status=404)
            else:
                self.reply(found, kind="application/octet-stream")

        def metrics(self) -> str:
            label = f"{{node={json.dumps(node.name)}}}"
            return super().metrics() + (
                f"# TYPE pakit_objects gauge\npakit_objects{label} {node.store.count()}\n"
                f"# TYPE pakit_copies_wanted gauge\npakit_copies_wanted{label} {1 + len(node.peers)}\n"
                f"# TYPE pakit_objects_missed gauge\npakit_objects_missed{label} {node.missed}\n"
            )

    return Handler


def main() -> None:
    service, name = os.environ.get("NAME", "pakit"), os.environ.get("NODE", "pakit-0")
    peers = [Peer(url.strip()) for url in os.environ.get("PEERS", "").split(",") if url.strip()]
    store = web.Store(Path(os.environ.get("DATA_DIR", "/data")))
    node = Node(name, store, (peer for peer in peers if peer.name != name))  # the list may name all, us too
    print(f"Pakit stand-in: {name}, {store.count()} objects, {1 + len(node.peers)} copies of each", flush=True)
    threading.Thread(target=node.run, args=[float(os.environ.get("REPAIR_SECONDS", "5"))], daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), handler(service, node)).serve_forever()


if __name__ == "__main__":
    main()
