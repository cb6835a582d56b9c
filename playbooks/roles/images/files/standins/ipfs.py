#!/usr/bin/env python3
"""A stand-in for an IPFS node: it speaks kubo's RPC API and the gateway's paths, but it is not kubo.

RPC (POST, port 5001): /api/v0/add and block/put (one file as multipart/form-data), cat and block/get (?arg=CID), id,
version; GET /debug/metrics/prometheus. Gateway (GET, port 8080): /ipfs/CID.
CIDs are the real ones, version 1 of a raw SHA-256 block, as kubo's `add?cid-version=1` gives them. A file is one block,
so 256 KiB at most. There is no network of nodes: what is not here is not found.
Environment: DATA_DIR, PORT (5001), GATEWAY_PORT (8080).
"""

import base64
import json
import os
import re
import signal
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import web

VERSION, AGENT = "stand-in-1.0.0", "ipfs-stand-in/1.0.0"
LARGEST = 256 * 2**10  # kubo's chunk: a larger file has another kind of CID
RAW_SHA256 = bytes([1, 0x55, 0x12, 0x20])  # CID version 1, codec raw, SHA-256, 32 bytes
BOUNDARY = re.compile(r'multipart/form-data;.*boundary="?([^";]+)')


class NotHereError(Exception):
    """No block of that CID, or no CID."""


def cid_of(digest: str) -> str:
    """The CID of a raw block with that SHA-256."""
    return "b" + base64.b32encode(RAW_SHA256 + bytes.fromhex(digest)).decode().rstrip("=").lower()


def digest_of(cid: str) -> str:
    """NotHereError for what is no CID of a raw block."""
    try:
        data = base64.b32decode(cid[1:].upper() + "=" * (-len(cid[1:]) % 8))
    except ValueError:
        data = b""
    if not cid.startswith("b") or not data.startswith(RAW_SHA256) or len(data) != 36:
        raise NotHereError(f"{cid}: the stand-in knows CIDs of version 1, raw, SHA-256")
    return data[4:].hex()


def file_of(kind: str, body: bytes) -> bytes:
    """The first file of a form. ValueError when there is none."""
    named = BOUNDARY.match(kind)
    parts = body.split(b"--" + named[1].encode()) if named else []
    _, blank, content = parts[1].partition(b"\r\n\r\n") if len(parts) > 1 else (b"", b"", b"")
    if not blank:
        raise ValueError("no file in the form")
    return content.removesuffix(b"\r\n")


class Blocks:
    """The blocks, and how often who was asked."""

    def __init__(self, directory: Path) -> None:
        self.store = web.Store(directory)
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.lock = threading.Lock()

    def put(self, content: bytes) -> str:
        return cid_of(self.store.put(content))

    def get(self, cid: str) -> bytes:
        found = self.store.get(digest_of(cid))
        if found is None:
            raise NotHereError(f"block was not found locally (offline): ipld: could not find {cid}")
        return found

    def metrics(self) -> str:
        """By the names that kubo gives them."""
        with self.lock:
            counted = sorted(self.requests.items())
        lines = [
            "# TYPE ipfs_info gauge",
            f'ipfs_info{{version="{VERSION}"}} 1',
            "# TYPE ipfs_http_requests_total counter",
        ]
        lines += [
            f'ipfs_http_requests_total{{handler="{handler}",method="{method}",code="{code}"}} {count}'
            for (handler, method, code), count in counted
        ]
        return "\n".join(lines) + "\n"


def handler(blocks: Blocks, name: str) -> type[BaseHTTPRequestHandler]:
    """Of the port `api` or `gateway`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if name == "gateway" and self.path.startswith("/ipfs/"):
                try:
                    self.reply(blocks.get(self.path.removeprefix("/ipfs/")), "application/octet-stream")
                except NotHereError as error:
                    self.reply(str(error).encode(), "text/plain", 404)
            elif name == "api" and self.path == "/debug/metrics/prometheus":
                self.reply(blocks.metrics().encode(), "text/plain; version=0.0.4")
            else:  # kubo's RPC takes nothing but POST
                rpc = name == "api" and self.path.startswith("/api/v0/")
                self.reply(b"405 - Method Not Allowed" if rpc else b"not found", "text/plain", 405 if rpc else 404)

        def do_POST(self) -> None:
            url, length = urlsplit(self.path), int(self.headers.get("Content-Length", 0))
            if length > LARGEST + 1024:
                self.close_connection = True  # the body stays unread
                self.fail(f"the stand-in takes {LARGEST} bytes")
                return
            body = self.rfile.read(length)
            command = url.path.removeprefix("/api/v0/") if name == "api" else ""
            try:
                answer = self.call(command, parse_qs(url.query), body)
            except (NotHereError, ValueError) as error:
                self.fail(str(error))
                return
            if answer is None:
                self.reply(b"404 page not found", "text/plain", 404)
            elif isinstance(answer, bytes):
                self.reply(answer, "application/octet-stream")
            else:
                self.reply(json.dumps(answer).encode())

        def call(self, command: str, query: dict[str, list[str]], body: bytes) -> dict | bytes | None:
            if command in ("add", "block/put"):
                content = file_of(self.headers.get("Content-Type", ""), body)
                cid = blocks.put(content)
                size = len(content)
                return {"Name": cid, "Hash": cid, "Size": str(size)} if command == "add" else {"Key": cid, "Size": size}
            if command in ("cat", "block/get"):
                return blocks.get(query.get("arg", [""])[0].removeprefix("/ipfs/"))
            told = {"version": {"Version": VERSION, "System": "stand-in"}, "id": {"ID": "", "AgentVersion": AGENT}}
            return told.get(command)

        def fail(self, why: str) -> None:
            self.reply(json.dumps({"Message": why, "Code": 0, "Type": "error"}).encode(), status=500)

        def reply(self, content: bytes, kind: str = "application/json", status: int = 200) -> None:
            with blocks.lock:
                blocks.requests[name, self.command.lower(), status] += 1
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


def main() -> None:
    blocks = Blocks(Path(os.environ.get("DATA_DIR", "/data")))
    print(f"{AGENT}: {blocks.store.count()} blocks", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    gateway = ThreadingHTTPServer(("", int(os.environ.get("GATEWAY_PORT", "8080"))), handler(blocks, "gateway"))
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "5001"))), handler(blocks, "api")).serve_forever()


if __name__ == "__main__":
    main()
