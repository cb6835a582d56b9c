"""A Substrate chain spec as data: what is wrong with one before any node has started from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.checks.substrate_formats import Reader

_BOOTNODE = re.compile(r"/(?:ip4|ip6|dns|dns4|dns6)/[^/]+/tcp/\d+(?:/wss?)?/p2p/([1-9A-HJ-NP-Za-km-z]{40,60})")
_CODE = b":code"
_RUNTIMES = (b"\0asm", bytes.fromhex("52bc537646db8e05"))  # WebAssembly, and the mark of a compressed one
# twox128(pallet) + twox128(entry) of each list of validators, and how long one entry is.
_AUTHORITIES = {
    "Session.Validators": ("cec5070d609dd3497f72bde07fc96ba088dcde934c658227ee1dfafcd6e16903", 32),
    "Babe.Authorities": ("1cb6f36e027abb2091cfb5110ab5087f5e0621c4869aa60c02be9adcc98a0d1d", 40),
    "Aura.Authorities": ("57f8dc2f5ab09467896f47300f0424385e0621c4869aa60c02be9adcc98a0d1d", 32),
    "Grandpa.Authorities": ("5f9cc45b7a00c5899361e1c6099678dc5e0621c4869aa60c02be9adcc98a0d1d", 40),
}
# Public keys of the accounts whose seed everybody knows (`subkey inspect //Alice` and so on).
_DEV_KEYS = {
    "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d": "Alice",
    "8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48": "Bob",
    "90b5ab205c6974c9ea841be688864633dc9ca8a357843eeacf2314649965fe22": "Charlie",
    "306721211d5404bd9da88e0204360a1a9ab8b87c66c1bc2fcdd37f3c2222cc20": "Dave",
    "e659a7a1628cdd93febc04a4e0646ea20e9f5f0ce097d9a05290d4a9e054df4e": "Eve",
    "1cbd2d43530a44705ad088af313e18f80b53ef16b36177cd4b77b846f2a5f07c": "Ferdie",
    "88dc3417d5058ec4b4503e0c12ea1a0a89be200fe98922423d4334014fa6b0ee": "Alice (ed25519)",
    "d17c2d7823ebf260fd138f2d7e27d114c0145d968b5ff5006125f2414fadae69": "Bob (ed25519)",
    "439660b36c6c03afafca027b910b4fecf99801834c62a5e6006f27d978de234f": "Charlie (ed25519)",
    "be5ddb1579b72e84524fc29e78609e3caf42e85aa118ebfe0b0ad404b5bdd25f": "Alice//stash",
    "fe65717dad0447d715f660a0a58411de509b42e6efb8375f562f58a554d5860e": "Bob//stash",
}
_DEV_PEER = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUj2kj6vnc6iDEp"  # of the node key 0x00…01


@dataclass(frozen=True, slots=True)
class ChainSpec:
    """A raw chain spec."""

    name: str
    chain_type: str
    bootnodes: tuple[str, ...]
    state: Mapping[bytes, bytes]

    def problems(self, *, bootnodes: int, validators: int) -> Iterator[str]:
        """What is wrong with it, where at least so many of both are wanted."""
        if self.chain_type == "Development":
            yield "chainType is Development"
        peers = []
        for address in self.bootnodes:
            found = _BOOTNODE.fullmatch(address)
            if not found:
                yield f"bootnode {address} is no address with /tcp/PORT/p2p/PEER"
            elif found[1] == _DEV_PEER:
                yield f"bootnode {address} has the node key of development"
            else:
                peers.append(found[1])
        if len(set(peers)) < bootnodes:
            yield f"{len(set(peers))} bootnodes, wanted at least {bootnodes}"
        if not self.state.get(_CODE, b"").startswith(_RUNTIMES):
            yield ":code is no WebAssembly runtime"
        yield from self._validators(validators)
        everything = b"\0".join([*self.state.keys(), *self.state.values()])
        yield from (
            f"has the development key of {who}" for key, who in _DEV_KEYS.items() if bytes.fromhex(key) in everything
        )

    def _validators(self, wanted: int) -> Iterator[str]:
        lists = {
            n: (self.state[bytes.fromhex(k)], size)
            for n, (k, size) in _AUTHORITIES.items()
            if bytes.fromhex(k) in self.state
        }
        if not lists and wanted:
            yield f"has none of the lists of validators ({', '.join(_AUTHORITIES)})"
        for name, (value, size) in lists.items():
            reader = Reader(value)
            try:
                keys = reader.many(lambda reader=reader, size=size: reader.take(size)[:32])  # type: ignore[misc]
            except ValueError as error:
                yield f"{name} is no list of keys: {error}"
                continue
            if len(set(keys)) < max(wanted, len(keys)):
                yield f"{name} has {len(set(keys))} different validators, wanted at least {max(wanted, len(keys))}"


def read_chain_spec(text: str) -> ChainSpec:
    """ValueError, which says what is missing, for what is no raw chain spec."""
    document = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("genesis"), dict):
        raise ValueError("has no genesis")  # noqa: TRY004  # it is what the file says, not a mistake of ours
    raw = document["genesis"].get("raw")
    if not isinstance(raw, dict) or not isinstance(raw.get("top"), dict):
        raise ValueError("is not raw: make it with `build-spec --raw`")  # noqa: TRY004
    if raw.get("childrenDefault"):
        raise ValueError("has child tries, which the genesis hash is not computed with")
    for key in ("name", "id"):
        if not isinstance(document.get(key), str) or not document[key]:
            raise ValueError(f"has no {key}")
    return ChainSpec(
        name=document["name"],
        chain_type=str(document.get("chainType") or "Live"),
        bootnodes=tuple(map(str, document.get("bootNodes") or ())),
        state={_bytes(key): _bytes(value) for key, value in raw["top"].items()},
    )


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str) or not text.startswith("0x"):
        raise ValueError(f"has a state entry that is not 0x and hexadecimal: {str(text)[:20]}")
    return bytes.fromhex(text[2:])
