"""Which fields of a Kubernetes object are ours, and what they say: ownership trees, restriction, fingerprints, diffs.

Everything here is pure. A tree is what the API server keeps under `metadata.managedFields[].fieldsV1` ("Server-Side
Apply" in the Kubernetes documentation): `f:` a field, `k:` a list item by its merge keys, `v:` a set item, `i:` an
index; an empty tree is a leaf and takes the whole value, but at the root it means that the object exists.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.core.change import ABSENT, DiffLine, Fingerprint
from engine.core.ports import Manifest
from engine.core.redaction import MASK

Tree = Mapping[str, Any]
Leaves = Mapping[str, Any]
"""Path in the object -> value. List items are named by their keys, not by position."""

TERMINATING = "terminating"
_EXISTS = ""  # the path that says no more than "the object is there"
_MASKED = "hmac:"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


# --- Trees ------------------------------------------------------------------------------------------------------


def owned(live: Manifest | None, manager: str) -> Tree | None:
    """What `manager` applied to this object; None when it never did."""
    for entry in _entries(live):
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return _with_data(entry.get("fieldsV1") or {})
    return None


def union(one: Tree | None, other: Tree | None) -> Tree:
    """Every field of either tree. A leaf swallows what the other tree says beneath it."""
    merged = dict(one or {})
    for key, subtree in (other or {}).items():
        mine = merged.get(key)
        if mine is None:
            merged[key] = subtree
        elif not mine or not subtree:
            merged[key] = {}
        else:
            merged[key] = union(mine, subtree)
    return merged


def minus(one: Tree | None, other: Tree | None) -> Tree:
    """The fields of the first tree that the second does not have."""
    left = {}
    for key, subtree in (one or {}).items():
        if other is None or key not in other:
            left[key] = subtree
        elif subtree and other[key] and (rest := minus(subtree, other[key])):
            left[key] = rest
    return left


def restrict(live: Manifest | None, tree: Tree | None) -> Leaves:
    """The values that a tree names, by path. Empty for an absent object, never for one that exists."""
    if live is None:
        return {}
    return {_EXISTS: True, **dict(_walk(live, tree or {}, ""))}


def part(live: Manifest, tree: Tree | None) -> dict[str, Any]:
    """The object reduced to what a tree names, fit to be applied again."""
    meta = live["metadata"]
    cut = _cut(live, tree) if tree else {}
    named = {k: meta[k] for k in ("name", "namespace") if meta.get(k)}
    return {
        **cut,
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": {**cut.get("metadata", {}), **named},
    }


# --- Fingerprints and diffs -------------------------------------------------------------------------------------


def fingerprint(live: Manifest | None, *trees: Tree | None) -> Fingerprint:
    """Of the fields named by any of the trees. An object on its way out is unfinished."""
    if live is None:
        return ABSENT
    tree: Tree = {}
    for each in trees:
        tree = union(tree, each)
    leaving = TERMINATING if live["metadata"].get("deletionTimestamp") else ""
    return Fingerprint(_digest(restrict(live, tree)), leaving)


def before(live: Manifest | None, dry: Manifest | None, manager: str) -> Fingerprint:
    """What is live, in the fields we own and those we are about to own."""
    return fingerprint(live, owned(live, manager), owned(dry, manager))


def after(dry: Manifest, manager: str) -> Fingerprint:
    """What would be live, in the fields we would own then."""
    return fingerprint(dry, owned(dry, manager))


def diff(live: Manifest | None, dry: Manifest | None, manager: str) -> tuple[DiffLine, ...]:
    """Field by field, with who set what we would take back. Empty when the object is new or goes away."""
    if live is None or dry is None:
        return ()
    old = restrict(live, union(owned(live, manager), owned(dry, manager)))
    new = restrict(dry, owned(dry, manager))
    ours = restrict(live, owned(live, manager))
    lines = []
    for path in sorted(old.keys() | new.keys()):
        if path in old and path in new and old[path] == new[path]:
            continue
        note = _note(live, path, old[path], manager) if path in old and path not in ours else ""
        lines.append(DiffLine(path, _shown(old, path), _shown(new, path), note))
    return tuple(lines)


# --- Secrets ----------------------------------------------------------------------------------------------------


def is_secret(manifest: Manifest) -> bool:
    return bool(manifest.get("kind") == "Secret" and manifest.get("apiVersion") == "v1")


def masked(manifest: Manifest, key: Callable[[], bytes]) -> Manifest:
    """A Secret with each value replaced by a keyed hash: equal values still compare equal. Others as they are."""
    if not is_secret(manifest):
        return manifest
    shown = dict(manifest)
    for section in ("data", "stringData"):
        if values := manifest.get(section):
            shown[section] = {name: _hmac(key(), value) for name, value in values.items()}
    annotations = manifest["metadata"].get("annotations") or {}
    if _LAST_APPLIED in annotations:
        hidden = {**annotations, _LAST_APPLIED: _hmac(key(), annotations[_LAST_APPLIED])}
        shown["metadata"] = {**manifest["metadata"], "annotations": hidden}
    return shown


def _hmac(key: bytes, value: Any) -> str:
    return _MASKED + hmac.new(key, str(value).encode(), hashlib.sha256).hexdigest()[:32]


# --- Walking ----------------------------------------------------------------------------------------------------


def _entries(live: Manifest | None) -> list[Mapping[str, Any]]:
    return (live["metadata"].get("managedFields") or []) if live else []


def _with_data(tree: Tree) -> Tree:
    """A Secret's `stringData` is owned under that name, but its values show in `data`."""
    if "f:stringData" not in tree:
        return tree
    rest = {k: v for k, v in tree.items() if k != "f:stringData"}
    return union(rest, {"f:data": tree["f:stringData"]})


def _walk(value: Any, tree: Tree, path: str) -> Iterator[tuple[str, Any]]:
    """Each leaf that the tree names and the value has."""
    for key, subtree in tree.items():
        if key == ".":
            if len(tree) == 1:
                yield path, "present"  # owned to exist, nothing in it
            continue
        found, child, name = _step(value, key)
        if not found:
            continue
        below = _join(path, name)
        if subtree:
            yield from _walk(child, subtree, below)
        else:
            yield below, child


def _step(value: Any, key: str) -> tuple[bool, Any, str]:
    """One step down a tree: whether it is there, what is there, and its name in a path."""
    kind, _, rest = key.partition(":")
    if kind == "f":
        there = isinstance(value, Mapping) and rest in value
        return there, value[rest] if there else None, rest
    if not isinstance(value, list):
        return False, None, ""
    wanted = json.loads(rest)
    if kind == "k":
        name = "[" + ",".join(f"{k}={v}" for k, v in sorted(wanted.items())) + "]"
        item = next((i for i in value if _matches(i, wanted)), None)
        return item is not None, item, name
    if kind == "v":
        return wanted in value, wanted, f"[{rest}]"
    there = 0 <= wanted < len(value)
    return there, value[wanted] if there else None, f"[{wanted}]"


def _matches(item: Any, wanted: Mapping[str, Any]) -> bool:
    return isinstance(item, Mapping) and all(item.get(k) == v for k, v in wanted.items())


def _join(path: str, name: str) -> str:
    if name.startswith("["):
        return path + name
    quoted = f'"{name}"' if "." in name else name
    return f"{path}.{quoted}" if path else quoted


def _cut(value: Any, tree: Tree) -> Any:
    """What `_walk` names, in the shape it had."""
    if isinstance(value, Mapping):
        cut = {}
        for key, subtree in tree.items():
            found, child, name = _step(value, key)
            if key != "." and found:
                cut[name] = _cut(child, subtree) if subtree else child
        return cut
    if isinstance(value, list):
        return _cut_list(value, tree)
    return value


def _cut_list(items: list[Any], tree: Tree) -> list[Any]:
    """The named items in the order they had; a keyed item keeps its keys."""
    chosen = []
    for position, item in enumerate(items):
        for key, subtree in tree.items():
            kind, _, rest = key.partition(":")
            if kind == "k" and _matches(item, wanted := json.loads(rest)):
                chosen.append({**wanted, **_cut(item, subtree)} if subtree else item)
            elif (kind == "v" and json.loads(rest) == item) or (kind == "i" and int(rest) == position):
                chosen.append(_cut(item, subtree) if subtree else item)
    return chosen


# --- Showing ----------------------------------------------------------------------------------------------------


def _digest(leaves: Leaves) -> str:
    text = json.dumps(leaves, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _shown(leaves: Leaves, path: str) -> str | None:
    if path not in leaves:
        return None
    value = leaves[path]
    if isinstance(value, str):
        return MASK if value.startswith(_MASKED) else value
    return json.dumps(value, ensure_ascii=False)


def _note(live: Manifest, path: str, value: Any, manager: str) -> str:
    """Which other manager holds this field now, and since when if it says so: `set to 2 by kubectl (scale)`."""
    for entry in _entries(live):
        ours = entry.get("manager") == manager and entry.get("operation") == "Apply"
        if ours or path not in restrict(live, entry.get("fieldsV1") or {}):
            continue
        sub = f" ({entry['subresource']})" if entry.get("subresource") else ""
        shown = _shown({path: value}, path)
        since = f", {entry['time'][:16].replace('T', ' ')}" if entry.get("time") else ""
        return f"set to {shown} by {entry.get('manager', 'someone')}{sub}{since}"
    # Found by trial: a zero through the scale subresource is dropped from managedFields, with the name of who set it.
    return "set to 0 by a scale, which records no name for 0" if path == "spec.replicas" and value == 0 else ""
