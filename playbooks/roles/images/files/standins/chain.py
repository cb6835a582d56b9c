#!/usr/bin/env python3
"""A stand-in for a Substrate validator node: it speaks the node's JSON-RPC, but it is not one.

N validators (PEERS names the others) make blocks in turn, one each BLOCK_SECONDS; a block whose author is away is
skipped. A validator's head is its vote for that block and all below; a block is final when at least two thirds of the
validators voted for it in two rounds running. Blocks are appended to DATA_DIR/blocks.jsonl and synced to disk, so a
validator that was stopped catches up from its peers. There is no cryptography and no defence: peers are trusted.

With CHAIN_SPEC (a raw chain spec) block 0 is the genesis block a Substrate node would make of it, the data is in
DATA_DIR/chains/ID as a node's, and validators of another genesis are not peers.

JSON-RPC by POST on /, GET /health, GET /metrics (Prometheus text). Between validators: GET /blocks?from=N, GET /head.
Environment: NAME, PEERS (URLs, commas between), INDEX and VALIDATORS (default: from NAME's last number, peers + 1),
DATA_DIR, PORT, BLOCK_SECONDS, CHAIN_SPEC, NODE_KEY_FILE (64 hexadecimal digits, of its own for each validator: of two
with one key neither takes the other for a peer), and for the metadata PALLETS (commas between) and MAX_BLOCK_BYTES.
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
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import substrate

SYSTEM_NAME, VERSION, CHAIN = "Substrate node stand-in", "stand-in-1.0.0", "Stand-in Development"
RUNTIME = {
    "specName": "stand-in",
    "implName": "stand-in",
    "specVersion": 100,
    "implVersion": 1,
    "transactionVersion": 1,
    "stateVersion": substrate.STATE_VERSION,
}
METHOD_NOT_FOUND, INVALID_REQUEST = -32601, -32600
SETTLING = 3  # a block becomes final when this many others are on it: by then the losing fork is gone everywhere
BATCH = 1000  # blocks a peer hands out at once


class Chain:
    """The blocks, on disk and in memory. Block 0 is the same for all."""

    def __init__(self, directory: Path, genesis: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._file = directory / "blocks.jsonl"
        self._finalized_file = directory / "finalized"
        self.blocks = [block(0, "0x" + "0" * 64, slot=0, author="genesis")]
        self.blocks[0]["hash"] = genesis or self.blocks[0]["hash"]
        self._load()
        self.finalized = min(
            int(self._finalized_file.read_text() or 0) if self._finalized_file.exists() else 0, self.height
        )

    def _load(self) -> None:
        good = 0
        for line in self._file.read_bytes().splitlines(keepends=True) if self._file.exists() else []:
            if not line.endswith(b"\n"):  # the last write was cut off
                break
            self.blocks.append(json.loads(line))
            good += len(line)
        if self._file.exists():
            os.truncate(self._file, good)

    @property
    def genesis(self) -> str:
        return self.blocks[0]["hash"]

    @property
    def height(self) -> int:
        return len(self.blocks) - 1

    @property
    def head(self) -> dict:
        return self.blocks[-1]

    def append(self, new: dict) -> bool:
        """Whether it fits on the head. It is on disk before anyone is told of it."""
        with self._lock:
            fits = new["number"] == len(self.blocks) and new["parentHash"] == self.head["hash"]
            if not fits or new["hash"] != block_hash(new):
                return False
            write_synced(self._file, "ab", [new])
            self.blocks.append(new)
            return True

    def rewind(self, number: int) -> None:
        """Drops blocks above `number` (a fork that lost), never a final one."""
        with self._lock:
            keep = max(number, self.finalized)
            del self.blocks[keep + 1 :]
            partial = self._file.with_suffix(".new")
            write_synced(partial, "wb", self.blocks[1:])
            partial.replace(self._file)

    def finalize(self, number: int) -> None:
        if number > self.finalized:
            self.finalized = number
            partial = self._finalized_file.with_suffix(".new")
            partial.write_text(str(number))
            partial.replace(self._finalized_file)


def write_synced(path: Path, mode: str, blocks: list[dict]) -> None:
    with path.open(mode) as log:
        log.write(b"".join(json.dumps(b).encode() + b"\n" for b in blocks))
        log.flush()
        os.fsync(log.fileno())


def block(number: int, parent: str, *, slot: int, author: str) -> dict:
    new = {"number": number, "parentHash": parent, "slot": slot, "author": author}
    return new | {"hash": block_hash(new)}


def block_hash(one: dict) -> str:
    named = {key: one[key] for key in ("number", "parentHash", "slot", "author")}
    return "0x" + hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def final_height(heights: list[int], validators: int) -> int:
    """The highest block that validators with two thirds of the votes hold (votes * 3 >= 2 * n)."""
    best = sorted(heights, reverse=True)
    return max((h for votes, h in enumerate(best, start=1) if votes * 3 >= 2 * validators), default=0)


@dataclass(frozen=True)
class Runtime:
    """What the node tells of its runtime."""

    spec: substrate.ChainSpec | None = None
    pallets: tuple[str, ...] = ()
    block_bytes: int = 5 * 2**20
    peer_id: str = ""

    @property
    def chain(self) -> dict:
        """Name, type and properties, as the chain spec has them."""
        spec = self.spec
        return {
            "name": spec.name if spec else CHAIN,
            "type": spec.chain_type if spec else "Development",
            "properties": spec.properties if spec else {},
        }


class Node:
    """One validator: its chain, its peers, and the round it repeats."""

    def __init__(
        self, chain: Chain, name: str, index: int, peers: list[str], seconds: float, runtime: Runtime = Runtime()
    ) -> None:
        self.runtime = runtime
        self.chain, self.name, self.index, self.peers, self.seconds = chain, name, index, peers, seconds
        self.validators = len(peers) + 1
        self.peer_heads: dict[str, dict] = {}
        self.quorum_before = 0
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(peers)))

    def run(self) -> None:
        while True:
            self.round(int(time.time() / self.seconds))
            time.sleep(self.seconds / 4)

    def round(self, slot: int) -> None:
        self.peer_heads = {
            p: h
            for p, h in zip(self.peers, self._pool.map(self.ask_head, self.peers), strict=True)
            if h
            and h.get("genesis") == self.chain.genesis
            and not (h.get("peer") and h["peer"] == self.runtime.peer_id)
        }
        self.catch_up()
        if slot % self.validators == self.index and slot > self.chain.head["slot"]:
            head = self.chain.head
            self.chain.append(block(head["number"] + 1, head["hash"], slot=slot, author=self.name))
        # final is what had the votes in two rounds running: a validator may still leave a fork after one
        quorum = final_height([self.vote(h) for h in self.peer_heads.values()] + [self.chain.height], self.validators)
        self.chain.finalize(min(quorum, self.quorum_before))
        self.quorum_before = quorum

    def vote(self, head: dict) -> int:
        """The height up to which a peer holds our chain, as its head tells; 0 when its head is none of our blocks."""
        ours = self.chain.blocks[head["height"]] if head["height"] <= self.chain.height else None
        return head["height"] if ours and ours["hash"] == head["hash"] else 0

    def ask_head(self, peer: str) -> dict | None:
        return fetch(f"{peer}/head")

    def catch_up(self) -> None:
        """From the peer with more final blocks, then the longest chain, then the lower hash: everywhere alike."""
        for peer, head in self.peer_heads.items():
            ours = (self.chain.finalized, self.chain.height, "")
            if (head["finalized"], head["height"], "") > ours or self.loses_a_tie(head):
                self.follow(peer, head["height"])

    def loses_a_tie(self, head: dict) -> bool:
        same = (head["finalized"], head["height"]) == (self.chain.finalized, self.chain.height)
        return same and head["hash"] < self.chain.head["hash"]

    def follow(self, peer: str, height: int) -> None:
        start = min(self.chain.height, height)
        while start > self.chain.finalized and (found := fetch(f"{peer}/blocks?from={start}")):
            if found[0]["hash"] == self.chain.blocks[start]["hash"]:
                break
            start -= 1
        if start < self.chain.height:
            self.chain.rewind(start)
        while self.chain.height < height:
            more = fetch(f"{peer}/blocks?from={self.chain.height + 1}")
            if not more or not all(self.chain.append(b) for b in more):
                return

    def rpc(self, method: str, params: list) -> object:
        methods: dict[str, Callable[[], object]] = {
            "system_name": lambda: SYSTEM_NAME,
            "system_version": lambda: VERSION,
            "system_chain": lambda: self.runtime.chain["name"],
            "system_chainType": lambda: self.runtime.chain["type"],
            "system_properties": lambda: self.runtime.chain["properties"],
            "system_health": self.health,
            "system_localPeerId": lambda: self.runtime.peer_id,
            "system_peers": lambda: [
                {"peerId": p, "roles": "AUTHORITY", "bestHash": h["hash"], "bestNumber": h["height"]}
                for p, h in self.peer_heads.items()
            ],
            "chain_getHeader": lambda: self.header(*params[:1]),
            "chain_getBlockHash": lambda: self.hash_of(*params[:1]),
            "chain_getFinalizedHead": lambda: self.chain.blocks[self.chain.finalized]["hash"],
            "state_getRuntimeVersion": lambda: RUNTIME,
            "state_getMetadata": lambda: self.metadata,
            "state_getStorage": lambda: self.storage(*params[:2]),
        }
        return methods[method]()

    @cached_property
    def metadata(self) -> str:
        return substrate.metadata(
            list(self.runtime.pallets),
            block_bytes=self.runtime.block_bytes,
            block_milliseconds=int(self.seconds * 1000),
        )

    def storage(self, key: str, at: str | None = None) -> str | None:
        """The time of a block; of all else what the genesis block says, because nothing ever changes it."""
        found = next((b for b in reversed(self.chain.blocks) if at in (None, b["hash"])), None)
        if found and found["number"] and key.lower() == substrate.TIMESTAMP_NOW:
            return "0x" + int(found["slot"] * self.seconds * 1000).to_bytes(8, "little").hex()
        return self.runtime.spec.state.get(key.lower()) if found and self.runtime.spec else None

    def health(self) -> dict:
        behind = any(h["height"] > self.chain.height + 2 for h in self.peer_heads.values())
        return {"peers": len(self.peer_heads), "isSyncing": behind, "shouldHavePeers": bool(self.peers)}

    def header(self, wanted: str | None = None) -> dict | None:
        found = next((b for b in reversed(self.chain.blocks) if wanted in (None, b["hash"])), None)
        if found is None:
            return None
        root = {"stateRoot": found["hash"], "extrinsicsRoot": found["hash"], "digest": {"logs": []}}
        return {"number": hex(found["number"]), "parentHash": found["parentHash"]} | root

    def hash_of(self, number: int | str | None = None) -> str | None:
        height = int(number, 16) if isinstance(number, str) else self.chain.height if number is None else number
        return self.chain.blocks[height]["hash"] if 0 <= height <= self.chain.height else None

    def metrics(self) -> str:
        name = json.dumps(self.name)
        return (
            "# Substrate node stand-in\n# TYPE substrate_block_height gauge\n"
            f'substrate_block_height{{status="best",node={name}}} {self.chain.height}\n'
            f'substrate_block_height{{status="finalized",node={name}}} {self.chain.finalized}\n'
            f"# TYPE substrate_sub_libp2p_peers_count gauge\nsubstrate_sub_libp2p_peers_count {len(self.peer_heads)}\n"
        )


def fetch(url: str) -> dict | list | None:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310  # PEERS are http URLs
            return json.load(answer)
    except (OSError, ValueError):  # away, or just starting
        return None


def handler(node: Node) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url, chain = urlsplit(self.path), node.chain
            if url.path == "/health":
                self.reply(node.health() | {"service": node.name, "standin": True})
            elif url.path == "/metrics":
                self.reply(node.metrics(), "text/plain; version=0.0.4")
            elif url.path == "/head":
                head, final = chain.head, chain.finalized
                told = {"height": head["number"], "hash": head["hash"], "finalized": final}
                self.reply(told | {"genesis": chain.genesis, "peer": node.runtime.peer_id})
            elif url.path == "/blocks":
                start = int(parse_qs(url.query).get("from", ["0"])[0])
                self.reply(chain.blocks[start : start + BATCH])
            else:
                self.reply({"error": "not found"}, status=404)

        def do_POST(self) -> None:
            try:
                call = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                answer = self.call(call) if isinstance(call, dict) else [self.call(c) for c in call]
            except (ValueError, TypeError, AttributeError) as error:
                answer = failure(None, INVALID_REQUEST, f"Invalid request: {error}")
            self.reply(answer)

        def call(self, call: dict) -> dict:
            try:
                result = node.rpc(call["method"], call.get("params") or [])
            except KeyError:
                return failure(call.get("id"), METHOD_NOT_FOUND, "Method not found")
            return {"jsonrpc": "2.0", "id": call.get("id"), "result": result}

        def reply(self, content: object, kind: str = "application/json", status: int = 200) -> None:
            body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet: probes and peers ask several times a second."""

    return Handler


def failure(identity: object, code: int, message: str) -> dict:
    return {"jsonrpc": "2.0", "id": identity, "error": {"code": code, "message": message}}


def peer_id_of(key_file: str) -> str:
    """A hash of the node key, which stands for its public key."""
    try:
        key = Path(key_file).read_text().strip()
    except OSError as error:
        sys.exit(f"node key: {error}")
    if not re.fullmatch("[0-9a-f]{64}", key):
        sys.exit(f"node key: {key_file} is not 64 hexadecimal digits")
    return "standin-" + hashlib.sha256(bytes.fromhex(key)).hexdigest()[:32]


def runtime_of(environment: Mapping[str, str]) -> Runtime:
    path, key_file = environment.get("CHAIN_SPEC"), environment.get("NODE_KEY_FILE")
    return Runtime(
        peer_id=peer_id_of(key_file) if key_file else "",
        spec=substrate.ChainSpec.read(Path(path)) if path else None,
        pallets=tuple(filter(None, environment.get("PALLETS", "").split(","))),
        block_bytes=int(environment.get("MAX_BLOCK_BYTES") or 5 * 2**20),
    )


def main() -> None:
    name, environment = os.environ.get("NAME", "chain-0"), os.environ
    peers = [p.strip().rstrip("/") for p in environment.get("PEERS", "").split(",") if p.strip()]
    own = f"//{name}."
    peers = [p for p in peers if own not in p and not p.endswith(f"//{name}")]  # the list may name all, us too
    index = int(environment.get("INDEX") or name.rsplit("-", 1)[-1])
    runtime = runtime_of(environment)
    data = Path(environment.get("DATA_DIR", "/data"))
    spec = runtime.spec
    chain = Chain(data / "chains" / spec.id, spec.genesis_hash) if spec else Chain(data)
    node = Node(chain, name, index, peers, float(environment.get("BLOCK_SECONDS", "2")), runtime)
    print(f"{SYSTEM_NAME} {VERSION}: {name}, validator {index} of {node.validators}, height {chain.height}", flush=True)
    threading.Thread(target=node.run, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("", int(environment.get("PORT", "9944"))), handler(node)).serve_forever()


if __name__ == "__main__":
    main()
