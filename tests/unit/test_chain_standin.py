"""The chain stand-in: its votes and its chain as data, then three validators on loopback."""

import dataclasses
import importlib.util
import json
import sys
import threading
import time
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "playbooks/roles/images/files/standins/chain.py"
_spec = importlib.util.spec_from_file_location("chain_standin", SOURCE)
assert _spec
assert _spec.loader
chain = importlib.util.module_from_spec(_spec)
sys.path.insert(0, str(SOURCE.parent))  # it imports what stands beside it, as in its image
_spec.loader.exec_module(chain)


@pytest.mark.parametrize(
    ("heights", "validators", "final"),
    [
        ([5, 5, 5], 3, 5),
        ([5, 4, 3], 3, 4),  # two of three hold block 4
        ([5, 5], 3, 5),  # one is away: still two thirds
        ([5], 3, 0),  # two are away: nothing new is final
        ([7], 1, 7),
        ([5, 5], 4, 0),  # half is not two thirds
        ([5, 5, 2], 4, 2),
    ],
)
def test_a_block_is_final_when_two_thirds_hold_it(heights, validators, final):
    assert chain.final_height(heights, validators) == final


def grow(one, count: int, author: str = "a") -> None:
    for _ in range(count):
        head = one.head
        assert one.append(chain.block(head["number"] + 1, head["hash"], slot=head["slot"] + 1, author=author))


def test_blocks_survive_a_restart_and_a_torn_last_line(tmp_path):
    first = chain.Chain(tmp_path)
    grow(first, 3)
    first.finalize(2)
    with (tmp_path / "blocks.jsonl").open("ab") as log:
        log.write(b'{"number": 4, "parent')
    again = chain.Chain(tmp_path)
    assert (again.blocks, again.finalized) == (first.blocks, 2)
    grow(again, 1)
    assert chain.Chain(tmp_path).height == 4


def test_a_block_that_does_not_fit_is_not_taken(tmp_path):
    one = chain.Chain(tmp_path)
    grow(one, 1)
    fits = chain.block(2, one.head["hash"], slot=5, author="b")
    assert not one.append(chain.block(3, one.head["hash"], slot=5, author="b"))
    assert not one.append(chain.block(2, "0x00", slot=5, author="b"))
    assert not one.append(fits | {"author": "someone else"})  # the hash is of other content
    assert one.append(fits)


def test_a_rewind_stops_at_the_final_block(tmp_path):
    one = chain.Chain(tmp_path)
    grow(one, 5)
    one.finalize(3)
    one.rewind(1)
    assert one.height == 3
    grow(one, 1, author="b")
    assert chain.Chain(tmp_path).blocks == one.blocks


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for the last answer


class Network:
    """Three validators on loopback, moved by hand: `round` plays one slot."""

    def __init__(self, tmp_path: Path) -> None:
        self.servers = [Server(("127.0.0.1", 0), None) for _ in range(3)]
        self.urls = [f"http://127.0.0.1:{s.server_address[1]}" for s in self.servers]
        self.nodes = []
        for i, server in enumerate(self.servers):
            peers = [u for u in self.urls if u != self.urls[i]]
            node = chain.Node(chain.Chain(tmp_path / str(i)), f"chain-{i}", i, peers, 1.0)
            server.RequestHandlerClass = chain.handler(node)
            self.nodes.append(node)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.up = {0, 1, 2}
        self.slot = 0

    def play(self, slots: int) -> None:
        for _ in range(slots):
            self.slot += 1
            for _ in range(4):  # a block made in the first pass is voted on in the two after all have it
                for i in sorted(self.up):
                    self.nodes[i].round(self.slot)

    def stop(self, i: int) -> None:
        self.up.discard(i)
        self.servers[i].shutdown()
        self.servers[i].server_close()

    def start(self, i: int) -> None:
        port = self.servers[i].server_address[1]
        self.servers[i] = Server(("127.0.0.1", port), chain.handler(self.nodes[i]))
        threading.Thread(target=self.servers[i].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.up.add(i)

    def rpc(self, i: int, method: str, *params: object) -> object:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        with urllib.request.urlopen(self.urls[i], body, timeout=5) as answer:
            return json.load(answer)

    def get(self, i: int, path: str) -> bytes:
        with urllib.request.urlopen(self.urls[i] + path, timeout=5) as answer:
            return answer.read()

    @property
    def heights(self) -> list[int]:
        return [n.chain.height for n in self.nodes]

    @property
    def finalized(self) -> list[int]:
        return [n.chain.finalized for n in self.nodes]


@pytest.fixture
def network(tmp_path):
    made = Network(tmp_path)
    yield made
    for i in sorted(made.up):
        made.stop(i)
    for node in made.nodes:
        node._pool.shutdown()


def test_three_validators_agree_and_finalise(network):
    network.play(6)
    assert network.heights == [6, 6, 6]
    assert network.finalized == [6, 6, 6]
    assert len({n.chain.head["hash"] for n in network.nodes}) == 1
    assert [b["author"] for b in network.nodes[0].chain.blocks[1:4]] == ["chain-1", "chain-2", "chain-0"]


def test_one_away_finality_goes_on_and_it_catches_up(network):
    network.play(3)
    network.stop(2)
    network.play(6)  # two of each three slots have an author
    assert network.heights == [7, 7, 3]
    assert network.finalized == [7, 7, 3]
    network.start(2)
    network.play(1)
    assert network.nodes[2].chain.blocks == network.nodes[0].chain.blocks
    assert network.finalized[2] == network.finalized[0] > 7


def test_two_away_finality_stops(network):
    network.play(3)
    network.stop(1)
    network.stop(2)
    network.play(3)
    assert network.heights[0] == 4
    assert network.finalized[0] == 3
    assert network.rpc(0, "system_health")["result"] == {"peers": 0, "isSyncing": False, "shouldHavePeers": True}


def test_after_a_split_all_follow_the_final_chain(network):
    """Validator 2, alone, makes blocks of its own; they are not final, so it gives them up."""
    network.play(3)
    alone = network.nodes[2]
    others, alone.peers = alone.peers, []
    network.stop(2)
    for slot in range(4, 13):
        alone.round(slot)
    assert (alone.chain.height, alone.chain.finalized) == (6, 3)

    network.play(3)
    assert network.heights == [5, 5, 6]
    alone.peers = others
    network.start(2)
    network.play(12)
    assert len({n.chain.head["hash"] for n in network.nodes}) == 1
    assert min(network.finalized) > 6


def test_it_answers_the_nodes_methods_and_says_that_it_is_a_stand_in(network):
    network.play(2)
    head = network.nodes[0].chain.head
    assert "stand-in" in network.rpc(0, "system_name")["result"]
    assert network.rpc(0, "chain_getHeader")["result"]["number"] == "0x2"
    assert network.rpc(0, "chain_getHeader", head["parentHash"])["result"]["number"] == "0x1"
    assert network.rpc(0, "chain_getHeader", "0xff")["result"] is None
    assert network.rpc(0, "chain_getBlockHash", 2)["result"] == head["hash"]
    assert network.rpc(0, "chain_getFinalizedHead")["result"] == head["hash"]
    assert len(network.rpc(0, "system_peers")["result"]) == 2
    assert network.rpc(0, "state_getRuntimeVersion")["result"]["specVersion"] == 100
    assert network.rpc(0, "author_rotateKeys")["error"]["code"] == -32601
    assert json.loads(network.get(0, "/health"))["standin"] is True
    assert b'substrate_block_height{status="finalized",node="chain-0"} 2' in network.get(0, "/metrics")


def test_a_validator_with_the_key_of_another_is_no_peer(network, tmp_path):
    for i, content in enumerate(["01" * 32, "02" * 32, "01" * 32 + "\n"]):
        (tmp_path / f"key-{i}").write_text(content)
        peer_id = chain.peer_id_of(str(tmp_path / f"key-{i}"))
        network.nodes[i].runtime = dataclasses.replace(network.nodes[i].runtime, peer_id=peer_id)
    network.play(1)
    assert [network.rpc(i, "system_health")["result"]["peers"] for i in range(3)] == [1, 2, 1]
    assert network.rpc(0, "system_localPeerId")["result"] == network.rpc(2, "system_localPeerId")["result"]


@pytest.mark.parametrize(("content", "told"), [(None, "No such file"), ("0123", "is not 64 hexadecimal digits")])
def test_without_a_node_key_it_does_not_start(tmp_path, content, told):
    if content:
        (tmp_path / "key").write_text(content)
    with pytest.raises(SystemExit, match=f"node key: .*{told}"):
        chain.peer_id_of(str(tmp_path / "key"))


def test_a_validator_alone_makes_blocks_by_itself(tmp_path):
    node = chain.Node(chain.Chain(tmp_path), "chain-0", 0, [], 0.02)
    threading.Thread(target=node.run, daemon=True).start()
    end = time.monotonic() + 10
    while node.chain.finalized < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
