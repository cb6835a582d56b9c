"""Make engine/adapters/schemas/kubernetes.json.xz from a Kubernetes source tree.

    python tools/kubernetes_schemas.py "$(go mod download -json k8s.io/kubernetes@v1.36.3 | jq -r .Dir)"

Kept is what tells a right object from a wrong one: types, fields, which are required, formats, and each kind's scope.
Left out are descriptions, lists of objects, and alpha and beta versions: a server offers none of them unless told to.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "engine/adapters/schemas/kubernetes.json.xz"
PREFIX = "#/definitions/"
QUANTITY = r"^[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
KEPT = ("type", "format", "required", "enum", "x-kubernetes-preserve-unknown-fields")
# Fields that hold any JSON; the specification says so in words only.
ANYTHING = (
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
)
# What holds a value in one of several forms, all of which the specification calls a mapping.
EITHER = (
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
)


def main() -> None:
    source = Path(sys.argv[1])
    specification = json.loads((source / "api/openapi-spec/swagger.json").read_bytes())
    definitions = specification["definitions"]
    kinds = made(specification["paths"], definitions)
    reached: dict[str, Any] = {}
    queue = [kind["schema"] for kind in kinds.values()]
    while queue:
        name = queue.pop()
        if name not in reached:
            reached[name] = cut(name, definitions[name])
            queue += re.findall(r'"\$ref": "([^"]+)"', json.dumps(reached[name]))
    version = source.name.partition("@v")[2] or specification["info"]["version"].removeprefix("v")
    document = {"version": version, "kinds": dict(sorted(kinds.items())), "definitions": dict(sorted(reached.items()))}
    content = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    size = TARGET.stat().st_size
    print(f"Kubernetes {version}: {len(kinds)} kinds, {len(reached)} definitions, {len(content)} bytes, {size} packed")


def made(paths: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """`apiVersion/Kind` -> its definition and scope, of everything that can be posted as an object of its own."""
    by_kind = {
        (each["group"], each["version"], each["kind"]): name
        for name, definition in definitions.items()
        for each in definition.get("x-kubernetes-group-version-kind", [])
    }
    kinds = {}
    for path, operations in paths.items():
        post = operations.get("post", {})
        if post.get("x-kubernetes-action") != "post" or path.count("{name}"):
            continue
        kind = post["x-kubernetes-group-version-kind"]
        name = by_kind[kind["group"], kind["version"], kind["kind"]]
        version = f"{kind['group']}/{kind['version']}" if kind["group"] else kind["version"]
        if "metadata" in definitions[name]["properties"] and not re.search(r"v\d+(alpha|beta)", kind["version"]):
            kinds[f"{version}/{kind['kind']}"] = {"schema": name, "namespaced": "{namespace}" in path}
    return kinds


def cut(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if name.endswith(".Quantity"):
        return {"x-kubernetes-int-or-string": True, "pattern": QUANTITY, "format": "quantity"}
    if name.endswith(".IntOrString"):
        return {"x-kubernetes-int-or-string": True}
    if name in ANYTHING or name in EITHER:
        return {"x-kubernetes-preserve-unknown-fields": True}
    return inner(schema)


def inner(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return {"$ref": schema["$ref"].removeprefix(PREFIX)}
    kept = {key: schema[key] for key in KEPT if key in schema}
    if "properties" in schema:
        kept["properties"] = {field: inner(each) for field, each in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            kept[key] = inner(schema[key])
    return kept


if __name__ == "__main__":
    main()
