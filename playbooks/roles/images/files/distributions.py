#!/usr/bin/env python3
"""Prints which files make up the engine and the given distributions with all they need: [[SOURCE, NAME], ...] as JSON.

distributions.py boto3 pydantic ...      run by the interpreter in whose environment they are installed
"""

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

# Of boto's descriptions of every service only S3's, and that of the service which gives out credentials.
KEPT_SERVICES = {"s3", "sts"}
ENGINE = "runbook"


def main() -> None:
    files = [*engine(), *(f for name in sorted(closure(sys.argv[1:])) for f in of_distribution(name))]
    json.dump(sorted([str(source), name] for source, name in files), sys.stdout)


def engine() -> Iterator[tuple[Path, str]]:
    """The engine's own code, from wherever it is imported."""
    spec = importlib.util.find_spec("engine")
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{sys.executable} does not know the engine: run this playbook from the project's virtual environment")
    root = Path(spec.submodule_search_locations[0])
    yield from ((path, f"engine/{path.relative_to(root).as_posix()}") for path in root.rglob("*.py"))
    for path in importlib.metadata.distribution(ENGINE).files or ():
        if path.name == "METADATA":
            yield Path(str(path.locate())), path.as_posix()


def closure(names: list[str]) -> set[str]:
    found: set[str] = set()
    while names:
        name = names.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        needs = [Requirement(r) for r in importlib.metadata.distribution(name).requires or ()]
        names += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def of_distribution(name: str) -> Iterator[tuple[Path, str]]:
    for path in importlib.metadata.distribution(name).files or ():
        parts = path.parts
        if parts[0] == ".." or "__pycache__" in parts:
            continue
        if parts[:2] == ("botocore", "data") and len(parts) > 3 and parts[2] not in KEPT_SERVICES:
            continue
        yield Path(str(path.locate())), path.as_posix()


if __name__ == "__main__":
    main()
