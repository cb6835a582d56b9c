"""`backup` of PostgreSQL in a pod of the cluster, by its own pg_dump, into a moto server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pyrage

from engine.actions.backup import BackupAction, BackupParams
from engine.adapters.age import Age
from engine.adapters.s3 import S3
from engine.core.redaction import Redactor, Secret
from tests.contract.cluster import connect
from tests.contract.conformance.subject import Ledger, Subject

CANARY = "canary-7f3a9c51d2"


@contextmanager
def make(request, tmp_path) -> Iterator[Subject]:
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
    yield Subject(
        action=BackupAction(
            connect(redactor=redactor),
            Age([str(identity.to_public())], lambda: [str(identity)]),
            S3(url, "us-east-1", ("access", Secret("secret-key")), redactor),
        ),
        params=BackupParams(of=of, to={"bucket": bucket}),
        world=lambda: {"effects": len(keys())},
        ledger=ledger,
        canaries=lambda: [CANARY, str(identity)],
        stored=lambda: b"".join(client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys()),
        redactor=redactor,
    )
    ledger.journal.close()
    client.close()
