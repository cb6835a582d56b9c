"""What the chain stand-in knows of Substrate's formats: chain specs, the genesis block, SCALE metadata, storage.

The formats are the real ones, so that whoever asks a node can ask the stand-in alike: the genesis hash is that of the
header over the chain spec's raw state (Polkadot protocol specification, "State Storage Trie" and "Block Header"), the
metadata is RuntimeMetadata version 14. The metadata is small: the pallets with their names, the constants that tell
block size and block time, the storage entry of the time. Calls, events and errors are left out.
"""

import hashlib
import json
from pathlib import Path

# twox128("Timestamp") + twox128("Now")
TIMESTAMP_NOW = "0xf0c365c3cf59d671eb72da0e7a4113c49f1f0515f462cdcf84e0f1d6045dfcbb"
STATE_VERSION = 1
FRAMEWORK = ["System", "Timestamp", "Babe", "Grandpa", "Session"]
U32, U64, PER_CLASS, BLOCK_LENGTH, NOTHING = range(5)  # indexes of the types in the metadata's registry


class ChainSpec:
    """A raw chain spec (`build-spec --raw`): name, id, and the state of block 0."""

    def __init__(self, document: dict) -> None:
        self.name, self.id = document["name"], document["id"]
        self.chain_type, self.properties = document.get("chainType", "Live"), document.get("properties") or {}
        self.state = {key.lower(): value for key, value in document["genesis"]["raw"]["top"].items()}
        self.genesis_hash = genesis_hash({unhex(k): unhex(v) for k, v in self.state.items()})

    @classmethod
    def read(cls, path: Path) -> "ChainSpec":
        return cls(json.loads(path.read_text()))


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def blake2(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def genesis_hash(state: dict[bytes, bytes]) -> str:
    header = bytes(32) + compact(0) + trie_root(state) + blake2(b"\0") + compact(0)
    return "0x" + blake2(header).hex()


# --- The trie of the state ---


def trie_root(state: dict[bytes, bytes]) -> bytes:
    entries = sorted((nibbles(key), value) for key, value in state.items())
    return blake2(node(entries, 0) if entries else b"\0")


def node(entries: list[tuple[tuple[int, ...], bytes]], depth: int) -> bytes:
    """One node: what all its keys share from `depth` on, a value perhaps, and a child for each nibble that follows."""
    first, last = entries[0][0], entries[-1][0]
    end = depth
    while end < len(first) and first[end] == last[end]:
        end += 1
    path, value = first[depth:end], entries[0][1] if len(first) == end else None
    below = entries[value is not None :]
    stored = b"" if value is None else blake2(value) if len(value) > 32 else encode_bytes(value)
    hashed = value is not None and len(value) > 32
    if not below:
        return (prefix(0b001, 5, len(path)) if hashed else prefix(0b01, 6, len(path))) + packed(path) + stored
    head = prefix(0b0001, 4, len(path)) if hashed else prefix(0b10 if value is None else 0b11, 6, len(path))
    children, bitmap = b"", 0
    for nibble in range(16):
        if group := [entry for entry in below if entry[0][end] == nibble]:
            child = node(group, end + 1)
            bitmap |= 1 << nibble
            children += encode_bytes(child if len(child) < 32 else blake2(child))
    return head + packed(path) + bitmap.to_bytes(2, "little") + stored + children


def prefix(kind: int, bits: int, length: int) -> bytes:
    """The kind of a node in the upper bits, how many nibbles it has in the lower ones and as many bytes as it takes."""
    most = (1 << bits) - 1
    if length < most:
        return bytes([kind << bits | length])
    more, rest = divmod(length - most, 255)
    return bytes([kind << bits | most, *[255] * more, rest])


def nibbles(key: bytes) -> tuple[int, ...]:
    return tuple(n for byte in key for n in (byte >> 4, byte & 15))


def packed(path: tuple[int, ...]) -> bytes:
    even = (0, *path) if len(path) % 2 else path
    return bytes(high << 4 | low for high, low in zip(even[::2], even[1::2], strict=True))


# --- SCALE ---


def compact(number: int) -> bytes:
    if number < 1 << 6:
        return bytes([number << 2])
    if number < 1 << 14:
        return (number << 2 | 1).to_bytes(2, "little")
    if number < 1 << 30:
        return (number << 2 | 2).to_bytes(4, "little")
    size = max(4, (number.bit_length() + 7) // 8)
    return bytes([(size - 4) << 2 | 3]) + number.to_bytes(size, "little")


def encode_bytes(data: bytes) -> bytes:
    return compact(len(data)) + data


def text(value: str) -> bytes:
    return encode_bytes(value.encode())


def vector(*items: bytes) -> bytes:
    return compact(len(items)) + b"".join(items)


def some(item: bytes | None) -> bytes:
    return b"\0" if item is None else b"\1" + item


# --- Metadata ---


def metadata(pallets: list[str], *, block_bytes: int, block_milliseconds: int) -> str:
    """RuntimeMetadata version 14, in hexadecimal. Blocks: three quarters for ordinary calls, as Substrate's default."""
    block = b"".join(size.to_bytes(4, "little") for size in (block_bytes * 3 // 4, block_bytes, block_bytes))
    constants = {
        "System": [constant("BlockLength", BLOCK_LENGTH, block)],
        "Babe": [constant("ExpectedBlockTime", U64, block_milliseconds.to_bytes(8, "little"))],
    }
    now = text("Now") + b"\1" + b"\0" + compact(U64) + encode_bytes(bytes(8)) + vector()
    storage = {"Timestamp": text("Timestamp") + vector(now)}
    listed = [
        text(name) + some(storage.get(name)) + some(None) * 2 + vector(*constants.get(name, [])) + some(None)
        + bytes([index])
        for index, name in enumerate([*FRAMEWORK, *pallets])
    ]  # fmt: skip
    extrinsic = compact(NOTHING) + bytes([4]) + vector()
    return "0x" + (b"meta" + bytes([14]) + types() + vector(*listed) + extrinsic + compact(NOTHING)).hex()


def types() -> bytes:
    def field(name: str, of: int) -> bytes:
        return some(text(name)) + compact(of) + some(None) + vector()

    def named(path: list[str], definition: bytes) -> bytes:
        return vector(*map(text, path)) + vector() + definition + vector()

    classes = [field(name, U32) for name in ("normal", "operational", "mandatory")]
    registry = [
        named([], bytes([5, 5])),
        named([], bytes([5, 6])),
        named(["frame_support", "dispatch", "PerDispatchClass"], b"\0" + vector(*classes)),
        named(["frame_system", "limits", "BlockLength"], b"\0" + vector(field("max", PER_CLASS))),
        named([], b"\4" + vector()),
    ]
    return vector(*(compact(index) + definition for index, definition in enumerate(registry)))


def constant(name: str, of: int, value: bytes) -> bytes:
    return text(name) + compact(of) + encode_bytes(value) + vector()
