#!/usr/bin/env python3
"""A stand-in for a small HTTP service: it answers health and metrics, and stores content by its hash.

GET /health, GET /metrics (Prometheus text), GET / (what it is), POST /store (any bytes: 201 and {"hash": ...}),
GET /store/HASH (the bytes, or 404). Environment: NAME, DATA_DIR, PORT (8080).
"""

import hashlib
import json
import os
import re
import signal
import sys
import tempfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGEST = 16 * 2**20
HASH = re.compile(r"/store/([0-9a-f]{64})")


class Store:
    """Content by its SHA-256, one file each; written whole and synced, or not at all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def put(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        with tempfile.NamedTemporaryFile(dir=self.directory, prefix=".new-", delete=False) as partial:
            partial.write(content)
            partial.flush()
            os.fsync(partial.fileno())
        Path(partial.name).replace(self.directory / name)
        return name

    def get(self, name: str) -> bytes | None:
        path = self.directory / name
        return path.read_bytes() if path.exists() else None

    def names(self) -> set[str]:
        return {p.name for p in self.directory.iterdir() if not p.name.startswith(".")}

    def count(self) -> int:
        return len(self.names())


def handler(name: str, store: Store) -> type[BaseHTTPRequestHandler]:
    requests: Counter[tuple[str, int]] = Counter()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/":
                self.reply({"service": name, "standin": True})
            elif self.path == "/health":
                self.reply({"service": name, "ok": True})
            elif self.path == "/metrics":
                self.reply(self.metrics().encode(), kind="text/plain; version=0.0.4")
            elif (wanted := HASH.fullmatch(self.path)) and (content := store.get(wanted[1])) is not None:
                self.reply(content, kind="application/octet-stream")
            else:
                self.reply({"error": "not found"}, status=404)

        def do_POST(self) -> None:
            content = self.body()
            if content is not None and self.path == "/store":
                self.reply(self.stored(content), status=201)
            elif content is not None:
                self.reply({"error": "not found"}, status=404)

        def stored(self, content: bytes) -> dict:
            return {"hash": store.put(content), "size": len(content)}

        def body(self) -> bytes | None:
            """What was sent; None when it is too much, which is answered here."""
            length = int(self.headers.get("Content-Length", 0))
            if length <= LARGEST:
                return self.rfile.read(length)
            self.close_connection = True  # the body stays unread
            self.reply({"error": f"at most {LARGEST} bytes"}, status=413)
            return None

        def metrics(self) -> str:
            service = json.dumps(name)
            lines = [
                "# TYPE standin_stored_objects gauge",
                f"standin_stored_objects{{service={service}}} {store.count()}",
            ]
            lines.append("# TYPE standin_requests_total counter")
            with lock:
                lines += [
                    f'standin_requests_total{{service={service},method="{method}",status="{status}"}} {count}'
                    for (method, status), count in sorted(requests.items())
                ]
            return "\n".join(lines) + "\n"

        def reply(self, content: dict | bytes, kind: str = "application/json", status: int = 200) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            with lock:
                requests[self.command, status] += 1
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet: probes ask several times a minute."""

    return Handler


def main() -> None:
    name = os.environ.get("NAME", "web-standin")
    store = Store(Path(os.environ.get("DATA_DIR", "/data")))
    print(f"web stand-in: {name}, {store.count()} objects", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), handler(name, store)).serve_forever()


if __name__ == "__main__":
    main()
