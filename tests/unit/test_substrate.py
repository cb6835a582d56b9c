"""Chain specs, genesis hashes and metadata: the engine's reading against published encodings and the chain stand-in.

The stand-in computes the same by code of its own, so a mistake in either shows.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from http.server import ThreadingHTTPServer

import pytest
import yaml

from engine.adapters.http import Requests
from engine.checks.chain_spec import read_chain_spec
from engine.checks.substrate import SubstrateCheck, SubstrateParams
from engine.checks.substrate_formats import genesis_hash, read_metadata
from tests.fakes.contexts import context
from tests.fakes.local_cluster import LocalCluster
from tests.fakes.platform import RUNBOOK, variables
from tests.unit.test_chain_standin import SOURCE, chain

sys.path.insert(0, str(SOURCE.parent))
import substrate as standin

ALICE = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"
SESSION_VALIDATORS = "0xcec5070d609dd3497f72bde07fc96ba088dcde934c658227ee1dfafcd6e16903"
PEERS = [f"12D3KooW{letter * 44}" for letter in "ABC"]


def spec(**changes) -> dict:
    """A good chain spec of three validators."""
    keys = "".join(f"{number:02x}" * 32 for number in (1, 2, 3))
    top = {"0x3a636f6465": "0x0061736d01000000", SESSION_VALIDATORS: f"0x0c{keys}"} | changes.pop("top", {})
    good = {
        "name": "Test",
        "id": "test",
        "chainType": "Live",
        "bootNodes": [f"/dns/boot-{n}.test/tcp/30333/p2p/{peer}" for n, peer in enumerate(PEERS)],
    }
    return good | {"genesis": {"raw": {"top": top, "childrenDefault": {}}}} | changes


def problems(document: dict) -> list[str]:
    return list(read_chain_spec(json.dumps(document)).problems(bootnodes=3, validators=3))


def test_a_good_chain_spec_has_no_problems():
    assert problems(spec()) == []


@pytest.mark.parametrize("environment", ["local", "dev", "staging", "production"])
def test_the_platforms_own_chain_specs_have_no_problems(environment):
    text = (RUNBOOK / f"chain-specs/chain-spec-{environment}.json").read_text()
    assert list(read_chain_spec(text).problems(bootnodes=3, validators=3)) == []
    assert standin.ChainSpec(json.loads(text)).genesis_hash == genesis_hash(read_chain_spec(text).state, 1)


def test_the_stand_in_has_the_sixteen_pallets_and_blocks_that_are_checked():
    values = yaml.safe_load((RUNBOOK / "charts/chain/values-local.yaml").read_text())
    given = {one["name"]: one["value"] for one in values["env"]}
    wanted = variables()["pallets"]
    assert (len(wanted), sorted(given["PALLETS"].split(","))) == (16, sorted(wanted))
    assert int(given["MAX_BLOCK_BYTES"]) == variables()["block_bytes"] == 5 * 2**20


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"chainType": "Development"}, "chainType is Development"),
        ({"bootNodes": spec()["bootNodes"][:2]}, "2 bootnodes, wanted at least 3"),
        ({"bootNodes": [spec()["bootNodes"][0]] * 3}, "1 bootnodes, wanted at least 3"),
        ({"bootNodes": ["boot-0:30333", *spec()["bootNodes"]]}, "bootnode boot-0:30333 is no address"),
        ({"top": {"0x3a636f6465": "0x00"}}, ":code is no WebAssembly runtime"),
        ({"top": {"0xff": f"0x{ALICE}"}}, "has the development key of Alice"),
        ({"top": {SESSION_VALIDATORS: "0x08" + "01" * 64}}, "1 different validators, wanted at least 3"),
        ({"top": {SESSION_VALIDATORS: "0x0c01"}}, "Session.Validators is no list of keys"),
    ],
)
def test_what_is_wrong_is_told(wrong, told):
    found = problems(spec(**wrong))
    assert len(found) == 1, found
    assert told in found[0]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"name": "x"}, "has no genesis"),
        ({"genesis": {"runtimeGenesis": {}}}, "is not raw"),
        (spec(id=""), "has no id"),
        (spec(top={"0x01": "hello"}), "not 0x and hexadecimal"),
    ],
)
def test_what_is_no_raw_chain_spec_is_refused(document, told):
    with pytest.raises(ValueError, match=told):
        read_chain_spec(json.dumps(document))


def test_the_trie_encodes_as_published():
    """A leaf, and a branch of two: byte for byte what the node codec's description gives."""
    entries = sorted(
        (standin.nibbles(key), value) for key, value in {b"\x48\x19": b"\xfe", b"\x13\x14": b"\xff"}.items()
    )
    assert standin.node([(standin.nibbles(b"\xaa"), b"\xbb")], 0).hex() == "42aa04bb"
    assert standin.node(entries, 0).hex() == "801200" + "1443031404ff" + "1443081904fe"


@pytest.mark.parametrize("seed", range(40))
def test_engine_and_stand_in_compute_one_genesis(seed):
    draw = random.Random(seed)
    sizes, lengths = [1, 2, 3, 32, 40, 200], [0, 1, 31, 32, 33, 100, 20_000]
    state = {
        draw.randbytes(draw.choice(sizes)): draw.randbytes(draw.choice(lengths)) for _ in range(draw.randint(0, 60))
    }
    assert genesis_hash(state, 1) == standin.genesis_hash(state)


def test_a_long_value_is_hashed_only_from_state_version_1_on():
    short, long = {b"k": bytes(32)}, {b"k": bytes(33)}
    assert genesis_hash(short, 0) == genesis_hash(short, 1)
    assert genesis_hash(long, 0) != genesis_hash(long, 1)


def test_metadata_lists_pallets_and_constants():
    data = bytes.fromhex(standin.metadata(["Land"], block_bytes=5 * 2**20, block_milliseconds=6000)[2:])
    found = read_metadata(data)
    assert list(found.pallets) == [*standin.FRAMEWORK, "Land"]
    assert found.constant("System.BlockLength.max.operational") == 5 * 2**20
    assert found.constant("Babe.ExpectedBlockTime") == 6000
    assert found.constant("Babe.Nothing") is None


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"none", "no runtime metadata"), (b"meta\x0f", "version 15"), (b"meta\x0e\x04", "ends at byte 6")],
)
def test_what_is_no_metadata_is_refused(data, told):
    with pytest.raises(ValueError, match=told):
        read_metadata(data)


@pytest.fixture
def node(tmp_path):
    """One validator of the chain of spec(), with four blocks two seconds apart; yields its address."""
    runtime = chain.Runtime(standin.ChainSpec(spec()), ("Land", "Identity"))
    data = chain.Chain(tmp_path, runtime.spec.genesis_hash)
    one = chain.Node(data, "chain-0", 0, [], 2.0, runtime)
    for slot in range(100, 104):
        one.round(slot)
    server = ThreadingHTTPServer(("127.0.0.1", 0), chain.handler(one))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def look(node, tmp_path):
    """Runs the check on that node; a chain spec is written to a file first."""

    def look(document: dict | None = None, **params):
        if document is not None:
            path = tmp_path / "spec.json"
            path.write_text(json.dumps(document))
            params["chain_spec"] = str(path)
        host, port = node.split(":")
        check = SubstrateCheck(Requests(), LocalCluster({"chain/node:9944": (host, int(port))}))
        return check.run(SubstrateParams(service="chain/node:9944", **params), context())

    return look


def test_a_node_of_the_chain_spec_passes(look):
    constants = {"System.BlockLength.max.operational": 5 * 2**20, "Babe.ExpectedBlockTime": 2000}
    finding = look(spec(), bootnodes=3, validators=3, pallets=["Land", "Identity"], constants=constants, block_time=2)
    assert finding.ok, finding.saw
    assert "block time 2.00 s over 3 blocks" in finding.saw
    assert "2 pallets of 7" in finding.saw


def test_a_node_of_another_genesis_is_told(look):
    finding = look(spec(top={"0xff": "0x00"}))
    assert not finding.ok
    assert "the chain spec Test makes 0x" in finding.saw


def test_a_bad_chain_spec_can_not_pass_any_more(look):
    finding = look(spec(chainType="Development"))
    assert (finding.ok, finding.final) == (False, True)
    assert "chainType is Development" in finding.saw


def test_what_the_runtime_lacks_and_slow_blocks_are_told(look):
    assert look(pallets=["Land", "Sea"]).saw == "no pallet Sea"
    assert "wanted 1" in look(constants={"System.BlockLength.max.operational": 1}).saw
    assert "wanted 1 s" in look(block_time=1).saw


def test_a_look_at_nothing_is_a_mistake():
    with pytest.raises(ValueError, match="wants `chain_spec`"):
        SubstrateParams(service="chain/node:9944")
