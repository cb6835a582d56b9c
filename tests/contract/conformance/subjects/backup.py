"""`backup` and `restore` of PostgreSQL in a pod of the cluster, by its own programs, into a moto server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import boto3
import pyrage

from engine.actions.backup import BackupAction, BackupParams
from engine.actions.backup_store import BackupStore
from engine.actions.postgresql_contents import PostgresPod
from engine.actions.restore import RestoreAction, RestoreParams
from engine.adapters.age import Age
from engine.adapters.s3 import S3
from engine.core.action import Context, Deadline
from engine.core.redaction import Redactor, Secret
from tests.contract.cluster import connect
from tests.contract.conformance.subject import STEP, Ledger, Subject
from tests.fakes.contexts import PlainInputs
from tests.fakes.signing import signing

CANARY = "canary-7f3a9c51d2"


@contextmanager
def make(request, tmp_path, *, restore: bool = False) -> Iterator[Subject]:
    url, ns = request.getfixturevalue("moto"), request.getfixturevalue("database_pod")
    redactor, identity, bucket = Redactor(), pyrage.x25519.Identity.generate(), f"b-{uuid.uuid4().hex[:12]}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="access", aws_secret_access_key="secret-key"
    )
    client.create_bucket(Bucket=bucket)

    def keys() -> list[str]:
        return [o["Key"] for o in client.list_objects_v2(Bucket=bucket).get("Contents", [])]

    ledger = Ledger(tmp_path, redactor)
    of = {"postgresql": {"namespace": ns, "pod": "database", "database": "shop"}}
    store = BackupStore(
        S3(url, "us-east-1", ("access", Secret("secret-key")), redactor),
        Age([str(identity.to_public())], lambda: [str(identity)]),
        signing(tmp_path),
    )
    cluster = connect(redactor=redactor)
    action, params = BackupAction(cluster, store), BackupParams(of=of, to={"bucket": bucket})
    if restore:
        take = Context(
            step=STEP, inputs=PlainInputs(), now=datetime.now(UTC), deadline=Deadline(120), key="cccc/phase/backup"
        )
        action.apply(params, action.plan(params, action.read(params, take), take), take)
        action = RestoreAction(cluster, store)
        params = RestoreParams(**{"of": of, "from": {"bucket": bucket}, "replace": True})
    database = PostgresPod(cluster, params.source)
    before = database.comment(Deadline(30)) if restore else ""
    seen: set[str] = set()

    def restores() -> int:
        """How many databases came in the first one's place: each has a comment of its own."""
        now = database.comment(Deadline(30))
        seen.update({now} - {before, ""})
        return len(seen)

    yield Subject(
        action=action,
        params=params,
        world=lambda: {"effects": restores() if restore else sum(key.endswith(".proof.json") for key in keys())},
        ledger=ledger,
        canaries=lambda: [CANARY, str(identity)],
        stored=lambda: b"".join(client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys()),
        redactor=redactor,
    )
    ledger.journal.close()
    client.close()
