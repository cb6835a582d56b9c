"""Substrate's formats as data: the genesis hash of a raw state, and what SCALE metadata says of a runtime.

Sources: the Polkadot protocol specification ("State Storage Trie", "Block Header", "SCALE Codec") and the crates
`frame-metadata` 14 and `scale-info` 2. Nothing here asks a node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

# --- The genesis hash -------------------------------------------------------------------------------------------------

_T = TypeVar("_T")
_INLINE = 32  # bytes: from state version 1 on, a longer value is in the trie as its hash


def genesis_hash(state: Mapping[bytes, bytes], state_version: int) -> str:
    """The hash of block 0 over this state: parent and number 0, no extrinsics, an empty digest."""
    return "0x" + _blake2(bytes(33) + _root(state, state_version) + _blake2(b"\0") + b"\0").hex()


def _root(state: Mapping[bytes, bytes], version: int) -> bytes:
    keys = {key.hex(): value for key, value in state.items()}
    return _blake2(_node(sorted(keys), keys, 0, version) if keys else b"\0")


def _node(names: Sequence[str], values: Mapping[str, bytes], start: int, version: int) -> bytes:
    """The node of sorted keys (a hexadecimal digit is a nibble) that are equal up to `start`."""
    first, last = names[0], names[-1]
    end = next((i for i in range(start, len(first)) if first[i] != last[i]), len(first))
    has_value, children = len(first) == end, names[len(names[0]) == end :]
    value = values[first] if has_value else b""
    hashed = version > 0 and len(value) > _INLINE
    path, count = first[start:end], end - start
    stored = (_blake2(value) if hashed else _sized(value)) if has_value else b""
    if not children:
        head = _header(0x20, 0x1F, count) if hashed else _header(0x40, 0x3F, count)
        return head + _packed(path) + stored
    head = _header(0x10, 0x0F, count) if hashed else _header(0xC0 if has_value else 0x80, 0x3F, count)
    groups = [[name for name in children if name[end] == digit] for digit in "0123456789abcdef"]
    bitmap = sum(1 << index for index, group in enumerate(groups) if group)
    nodes = [_node(group, values, end + 1, version) for group in groups if group]
    below = b"".join(_sized(node if len(node) < 32 else _blake2(node)) for node in nodes)
    return head + _packed(path) + bitmap.to_bytes(2, "little") + stored + below


def _header(kind: int, mask: int, count: int) -> bytes:
    if count < mask:
        return bytes([kind | count])
    full, rest = divmod(count - mask, 255)
    return bytes([kind | mask]) + b"\xff" * full + bytes([rest])


def _packed(path: str) -> bytes:
    return bytes.fromhex(path if len(path) % 2 == 0 else f"0{path}")


def _blake2(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def _sized(data: bytes) -> bytes:
    size = len(data)
    for mode, bits in ((0, 6), (1, 14), (2, 30)):
        if size < 1 << bits:
            return (size << 2 | mode).to_bytes(1 << mode, "little") + data
    raise ValueError("a value of 1 GiB or more")


# --- SCALE ------------------------------------------------------------------------------------------------------------


class Reader:
    """Reads SCALE from the front. ValueError when the data ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise ValueError(f"the data ends at byte {len(self._data)}, wanted {count} more from {self._at}")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def compact(self) -> int:
        first = self.number(1)
        mode = first & 3
        if mode == 3:
            return self.number((first >> 2) + 4)
        return (first | int.from_bytes(self.take((1 << mode) - 1), "little") << 8) >> 2

    def sized(self) -> bytes:
        return self.take(self.compact())

    def text(self) -> str:
        return self.sized().decode()

    def many(self, item: Callable[[], _T]) -> list[_T]:
        return [item() for _ in range(self.compact())]

    def maybe(self, item: Callable[[], _T]) -> _T | None:
        return item() if self.number(1) else None


# --- Metadata ---------------------------------------------------------------------------------------------------------

_PRIMITIVES = (
    "bool",
    "char",
    "str",
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "u256",
    "i8",
    "i16",
    "i32",
    "i64",
    "i128",
    "i256",
)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a runtime says of itself: its pallets in order, each with its constants."""

    pallets: Mapping[str, Mapping[str, Any]]

    def constant(self, path: str) -> Any:
        """The value at `System.BlockLength.max.normal`; None when there is none."""
        value: Any = self.pallets
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


def read_metadata(data: bytes) -> Metadata:
    """From the answer of `state_getMetadata`. ValueError for other versions than 14, and for what is no metadata."""
    reader = Reader(data)
    if reader.take(4) != b"meta":
        raise ValueError("is no runtime metadata")
    version = reader.number(1)
    if version != 14:
        raise ValueError(f"is metadata of version {version}; version 14 is known")
    types = dict(reader.many(lambda: (reader.compact(), _type(reader))))
    pallets = reader.many(lambda: _pallet(reader, types))
    return Metadata(dict(pallets))


def _type(reader: Reader) -> tuple[int, Any]:
    """A type's kind, and what it is made of."""
    reader.many(reader.text)  # path
    reader.many(lambda: (reader.text(), reader.maybe(reader.compact)))  # parameters
    kind = reader.number(1)
    match kind:
        case 0:
            made: Any = _fields(reader)
        case 1:
            made = {
                index: (name, fields)
                for name, fields, index, _ in reader.many(
                    lambda: (reader.text(), _fields(reader), reader.number(1), reader.many(reader.text))
                )
            }
        case 2 | 6:
            made = reader.compact()
        case 3:
            made = (reader.number(4), reader.compact())
        case 4:
            made = reader.many(reader.compact)
        case 5:
            made = reader.number(1)
        case 7:
            made = (reader.compact(), reader.compact())
        case _:
            raise ValueError(f"has a type of unknown kind {kind}")
    reader.many(reader.text)  # documentation
    return kind, made


def _fields(reader: Reader) -> list[tuple[str | None, int]]:
    def field() -> tuple[str | None, int]:
        name, of = reader.maybe(reader.text), reader.compact()
        reader.maybe(reader.text)  # the type's name in the source
        reader.many(reader.text)
        return name, of

    return reader.many(field)


def _pallet(reader: Reader, types: Mapping[int, tuple[int, Any]]) -> tuple[str, Mapping[str, Any]]:
    name = reader.text()
    reader.maybe(lambda: (reader.text(), reader.many(lambda: _storage(reader))))
    reader.maybe(reader.compact)  # calls
    reader.maybe(reader.compact)  # events
    constants = reader.many(lambda: _constant(reader, types))
    reader.maybe(reader.compact)  # errors
    reader.number(1)  # index
    return name, dict(constants)


def _storage(reader: Reader) -> None:
    reader.text()
    reader.number(1)  # optional or with a default
    if reader.number(1) == 0:
        reader.compact()
    else:
        reader.many(lambda: reader.number(1))  # hashers
        reader.compact()
        reader.compact()
    reader.sized()  # the default
    reader.many(reader.text)


def _constant(reader: Reader, types: Mapping[int, tuple[int, Any]]) -> tuple[str, Any]:
    name, of, value = reader.text(), reader.compact(), reader.sized()
    reader.many(reader.text)
    return name, decode(Reader(value), of, types)


def decode(reader: Reader, of: int, types: Mapping[int, tuple[int, Any]]) -> Any:  # noqa: PLR0911  # one per kind
    """A value of a type: numbers, texts, lists, mappings of named fields. ValueError for what is not known."""
    if of not in types:
        raise ValueError(f"names a type {of} that it does not describe")
    kind, made = types[of]
    match kind:
        case 0:
            return _record(reader, made, types)
        case 1:
            index = reader.number(1)
            if index not in made:
                raise ValueError(f"has variant {index} of a type without it")
            name, fields = made[index]
            return {name: _record(reader, fields, types)} if fields else name
        case 2:
            return reader.many(lambda: decode(reader, made, types))
        case 3:
            return [decode(reader, made[1], types) for _ in range(made[0])]
        case 4:
            return [decode(reader, item, types) for item in made]
        case 5:
            return _primitive(reader, _PRIMITIVES[made])
        case 6:
            return reader.compact()
        case _:
            raise ValueError("has a sequence of bits, which is not read here")


def _record(reader: Reader, fields: Iterable[tuple[str | None, int]], types: Mapping[int, tuple[int, Any]]) -> Any:
    """A mapping, or of fields without names a list, or of one such field its value."""
    values = [(name, decode(reader, of, types)) for name, of in fields]
    if all(name is not None for name, _ in values):
        return dict(values)
    return values[0][1] if len(values) == 1 else [value for _, value in values]


def _primitive(reader: Reader, name: str) -> Any:
    if name == "bool":
        return bool(reader.number(1))
    if name == "char":
        return chr(reader.number(4))
    if name == "str":
        return reader.text()
    return reader.number(int(name[1:]) // 8, signed=name[0] == "i")
