#!/usr/bin/env python3
"""Dynamic local volumes: the StorageClass provisioner "lab.local/dir".

A pending claim gets a directory and a PersistentVolume of type `local` (kubelet then honours fsGroup, which it does
not for hostPath); a released volume with reclaim policy Delete loses its directory and its object.

Environment: API, CA, CERTIFICATE, KEY, VOLUMES (the directory), NODE.
"""

import json
import os
import shutil
import ssl
import sys
import time
import urllib.request
from pathlib import Path

PROVISIONER = "lab.local/dir"
VOLUMES = Path(os.environ["VOLUMES"])
TLS = ssl.create_default_context(cafile=os.environ["CA"])
TLS.load_cert_chain(os.environ["CERTIFICATE"], os.environ["KEY"])


def call(method: str, path: str, body: dict | None = None) -> dict:
    data = json.dumps(body).encode() if body else None
    url, headers = os.environ["API"] + path, {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310  # API is https
    with urllib.request.urlopen(request, context=TLS, timeout=10) as response:  # noqa: S310
        return json.load(response)


def reconcile() -> None:
    classes = {c["metadata"]["name"]: c for c in call("GET", "/apis/storage.k8s.io/v1/storageclasses")["items"]}
    classes = {name: c for name, c in classes.items() if c["provisioner"] == PROVISIONER}
    volumes = {v["metadata"]["name"]: v for v in call("GET", "/api/v1/persistentvolumes")["items"]}
    for claim in call("GET", "/api/v1/persistentvolumeclaims")["items"]:
        if is_pending(claim, classes) and volume_name(claim) not in volumes:
            provision(claim, classes[claim["spec"]["storageClassName"]])
    for volume in volumes.values():
        if is_released(volume):
            delete(volume)


def is_pending(claim: dict, classes: dict) -> bool:
    meta, spec = claim["metadata"], claim["spec"]
    if spec.get("storageClassName") not in classes or spec.get("volumeName") or "deletionTimestamp" in meta:
        return False
    # WaitForFirstConsumer: the annotation is set once the scheduler has chosen a node
    return meta.get("annotations", {}).get("volume.kubernetes.io/storage-provisioner") == PROVISIONER


def volume_name(claim: dict) -> str:
    return "pvc-" + claim["metadata"]["uid"]


def provision(claim: dict, storage_class: dict) -> None:
    meta, name = claim["metadata"], volume_name(claim)
    directory = VOLUMES / name
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o2770)
    node = meta["annotations"].get("volume.kubernetes.io/selected-node", os.environ["NODE"])
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    spec = {
        "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
        "accessModes": claim["spec"]["accessModes"],
        "storageClassName": claim["spec"]["storageClassName"],
        "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
        "local": {"path": str(directory)},
        "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        | {key: meta[key] for key in ("namespace", "name", "uid")},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
    }
    annotations = {"pv.kubernetes.io/provisioned-by": PROVISIONER}
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "annotations": annotations}}
    call("POST", "/api/v1/persistentvolumes", volume | {"spec": spec})
    print("provisioned", name, f"{meta['namespace']}/{meta['name']}", flush=True)


def is_released(volume: dict) -> bool:
    ours = volume["metadata"].get("annotations", {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
    return (
        ours
        and volume["status"].get("phase") == "Released"
        and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        and "deletionTimestamp" not in volume["metadata"]
    )


def delete(volume: dict) -> None:
    shutil.rmtree(volume["spec"]["local"]["path"], ignore_errors=True)
    call("DELETE", "/api/v1/persistentvolumes/" + volume["metadata"]["name"])
    print("deleted", volume["metadata"]["name"], flush=True)


def main() -> None:
    while True:
        try:
            reconcile()
        except (OSError, ValueError) as error:  # the API server is not there yet, or is restarting
            print("retry:", error, file=sys.stderr, flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
