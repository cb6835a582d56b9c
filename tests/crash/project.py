"""A project whose small runbook holds one step of each action, on real parts; its effects as an outsider sees them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import requests
import yaml
from botocore.exceptions import ClientError

from tests.contract.cluster import KUBECONFIG, helm_program
from tests.contract.kubectl import kubectl, settings
from tests.contract.services import Bao

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("driver.py")
S3_KEY = "lab-secret-key"

_PHASES = """
phase: one
title: One
steps:
  - id: look
    name: The cluster answers
    check: [{kubernetes: {version: ">=1.28"}}]
  - id: bucket
    name: Bucket
    bucket: {name: "{{ own }}"}
  - id: password
    name: Password
    secret: {path: "crash/{{ own }}", keys: {user: {value: shop}, password: {generate: {length: 32}}}}
  - id: objects
    name: Objects
    manifest: {path: manifests}
  - id: file
    name: File
    playbook: {path: playbooks/write.yml, vars: {target: "{{ folder }}/written"}}
---
phase: two
title: Two
steps:
  - id: web
    name: Release
    release: {chart: charts/web, name: "{{ own }}", namespace: "{{ place }}", set: {name: "{{ own }}"}}
  - id: dump
    name: Dump
    fresh: 24h
    backup:
      of: {postgresql: {namespace: "{{ database }}", pod: database, database: shop}}
      to: {bucket: "{{ own }}"}
  - id: once
    name: Once
    fresh: 24h
    command:
      argv: [sh, -c, 'sleep {{ lasting }}; echo once >> "$1"', sh, "{{ folder }}/commanded"]
  - id: agreed
    name: Approval
    fresh: 24h
    approval: {question: Go on?}
  - id: written
    name: Record
    fresh: 24h
    record: {path: records}
"""
_OBJECT = """
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ own }}-KIND", namespace: "{{ place }}"}
data: {from: "{{ own }}"}
"""
_CHART = """
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Values.name }}-web"}
data: {from: "{{ .Values.name }}"}
"""
_PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Write
      ansible.builtin.copy: {content: written, dest: "{{ target }}", mode: "0600"}
"""


@dataclass(frozen=True)
class Done:
    """How one command ended."""

    code: int
    text: str


@dataclass(frozen=True)
class Project:
    """One project in `folder`, called `name` wherever something needs a name of its own."""

    folder: Path
    name: str
    place: str
    """Namespace of what it makes on the cluster."""
    database: str
    """Namespace of the pod that is backed up."""
    bao: Bao
    s3: str

    def write(self, recipient: str, identity: Path, signing: tuple[Path, Path]) -> None:
        """The project's files."""
        here = f"{{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}"
        variables = {
            "lasting": 0,
            "own": self.name,
            "place": self.place,
            "database": self.database,
            "folder": str(self.folder),
            "kubeconfig": str(KUBECONFIG),
            "helm_program": helm_program(),
            "runbook": self.name,
            "kube_context_planner": "runbook-planner",
            "kube_context_deployer": "runbook-deployer",
            "vault_address": self.bao.url,
            "vault_ca": self.bao.ca,
            "vault_mount": "secret",
            "s3_endpoint": self.s3,
            "s3_access_key": "lab",
            "s3_secret_key": S3_KEY,
            "backup_recipients": [recipient],
            "backup_identities": [str(identity)],
            "backup_signing_key": str(signing[0]),
            "backup_allowed_signers": str(signing[1]),
        }
        book, (one, two) = f"runbooks/{self.name}", _PHASES.split("---\n")
        files = {
            f"inventories/{self.name}/hosts.yml": f"all:\n  hosts:\n    here: {here}\n",
            f"inventories/{self.name}/group_vars/all.yml": yaml.safe_dump(variables),
            f"{book}/runbook.yml": f"name: {self.name}\ntitle: One step of each action\n",
            f"{book}/phases/01-one.yml": one,
            f"{book}/phases/02-two.yml": two,
            f"{book}/manifests/all.yaml": "---".join(_OBJECT.replace("KIND", k) for k in ("first", "second")),
            f"{book}/charts/web/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\n",
            f"{book}/charts/web/templates/all.yaml": _CHART,
            "playbooks/write.yml": _PLAY,
        }
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def run(self, *command: str, when: str = "never", at: str = "0") -> Done:
        """One command in a process of its own, which dies where it is told."""
        argv = [sys.executable, "-P", str(DRIVER), when, at, str(self.folder / "asked"), *command]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "VAULT_TOKEN": self.bao.token, "NO_COLOR": "1"}
        done = subprocess.run(argv, cwd=self.folder, env=env, capture_output=True, text=True, timeout=120, check=False)
        return Done(done.returncode, done.stdout + done.stderr)

    def events(self) -> list[tuple[str, str]]:
        """Type and step of every event in the journal."""
        return [(kind, step) for kind, step, _ in self._journal()]

    def world(self) -> dict[str, Any]:
        """What there is now. Equal for two projects that were brought to the same state."""
        objects = {k.replace(self.name, "NAME"): v for k, v in settings(self.place).items() if f"/{self.name}-" in k}
        approved = [
            d for kind, step, d in self._journal() if (kind, step) == ("outcome", "two/agreed") and d["evidence"]
        ]
        return {
            "objects": {k: {n: v.replace(self.name, "NAME") for n, v in data.items()} for k, data in objects.items()},
            "release": self._release(),
            "secret": self._secret(),
            **self._stored(),
            "file": _read(self.folder / "written"),
            "commands": len(_read(self.folder / "commanded").split()),
            "approvals": len(approved),
            "records": len(list(self.folder.glob("records/*.md"))),
        }

    def remove(self) -> None:
        """What is outside the project's folder and the test's namespaces."""
        found = json.loads(kubectl("get", "configmaps", "-n", "runbook-system", "-o", "json"))["items"]
        ours = {f"environment-{self.name}"} | {
            item["metadata"]["name"] for item in found if item.get("data", {}).get("runbook") == self.name
        }
        kubectl("delete", "configmap", "-n", "runbook-system", "--ignore-not-found", *sorted(ours))
        for base in (Path("/var/lib/runbook"), Path.home() / ".local/state/runbook"):
            for file in sorted((base / self.name).glob("playbooks/*")):
                file.unlink()
            for folder in (base / self.name / "playbooks", base / self.name):
                if folder.is_dir():
                    folder.rmdir()

    def _journal(self) -> list[tuple[str, str, Any]]:
        path = self.folder / ".runbook" / "journal.db"
        if not path.exists():
            return []
        with sqlite3.connect(path) as connection:
            rows = connection.execute("select type, step, data from events order by sequence").fetchall()
        connection.close()
        return [(kind, step, json.loads(data)) for kind, step, data in rows]

    def _release(self) -> Counter[str]:
        """How many release records there are of each status."""
        label = f"owner=helm,name={self.name}"
        found = json.loads(kubectl("get", "secrets", "-n", self.place, "-l", label, "-o", "json"))["items"]
        return Counter(record["metadata"]["labels"]["status"] for record in found)

    def _secret(self) -> dict[str, Any]:
        answer = requests.get(
            f"{self.bao.url}/v1/secret/data/crash/{self.name}",
            headers={"X-Vault-Token": self.bao.token},
            verify=self.bao.ca,
            timeout=5,
        )
        if not answer.ok:
            return {}
        found = answer.json()["data"]
        return {
            "version": found["metadata"]["version"],
            "user": found["data"]["user"],
            "length": len(found["data"]["password"]),
        }

    def _stored(self) -> dict[str, Any]:
        client = boto3.client(
            "s3", endpoint_url=self.s3, region_name="us-east-1", aws_access_key_id="lab", aws_secret_access_key=S3_KEY
        )
        try:
            dumps = client.list_objects_v2(Bucket=self.name).get("Contents", [])
            versioning = client.get_bucket_versioning(Bucket=self.name).get("Status")
        except ClientError:
            return {"bucket": "absent", "dumps": 0}
        finally:
            client.close()
        return {"bucket": versioning, "dumps": sum(o["Key"].endswith(".proof.json") for o in dumps)}


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
