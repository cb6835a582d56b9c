"""`bucket` on a moto server: one that does not exist yet, one with Object Lock, and one whose settings are not as
declared; and as a container in Azurite."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from azure.storage.blob import BlobServiceClient, RetentionPolicy
from botocore.exceptions import ClientError

from engine.actions.bucket import BucketAction, BucketParams
from engine.adapters.azureblob import AzureBlob
from engine.adapters.s3 import S3
from engine.core.redaction import Redactor, Secret
from tests.contract.conformance.subject import Subject

KEY = "canary-7f3a9c51d2"
BLOCKED = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)


@contextmanager
def make(request, tmp_path, *, existing: bool = False, locked: bool = False) -> Iterator[Subject]:
    url, name, redactor = request.getfixturevalue("moto"), f"b-{uuid.uuid4().hex[:12]}", Redactor()
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="access", aws_secret_access_key=KEY
    )

    def world() -> dict:
        try:
            client.head_bucket(Bucket=name)
        except ClientError:
            return {}
        found = {"bucket": True, "versioning": client.get_bucket_versioning(Bucket=name).get("Status") == "Enabled"}
        try:
            found["public"] = client.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"] != BLOCKED
        except ClientError:
            found["public"] = True
        try:
            client.get_bucket_encryption(Bucket=name)
            found["encryption"] = True
        except ClientError:
            found["encryption"] = False
        if locked:
            lock = client.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]
            found["lock"] = lock.get("Rule", {}).get("DefaultRetention", {}).get("Days")
            found["rules"] = _rules(client, name)
        return found

    def version() -> None:
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})

    if existing:
        client.create_bucket(Bucket=name)
    more = {"lock": 14, "rules": 1} if locked else {}
    made_with = {"ObjectLockEnabledForBucket": True} if locked else {}
    asked = {"lifecycle": {"expire_days": 90}, "object_lock": {"days": 14}} if locked else {}
    wanted = {"bucket": True, "versioning": True, "public": False, "encryption": True, **more}
    yield Subject(
        action=BucketAction(S3(url, "us-east-1", ("access", Secret(KEY)), redactor)),
        params=BucketParams(name=name, **asked),
        world=world,
        wanted=wanted,
        residue=frozenset({"bucket"} if existing else wanted),
        disturb=lambda _change: version() if existing else client.create_bucket(Bucket=name, **made_with),
        canaries=lambda: [KEY],
        redactor=redactor,
    )
    client.close()


def _rules(client, name: str) -> int:
    try:
        return len(client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"])
    except ClientError:
        return 0


@contextmanager
def make_container(request, tmp_path) -> Iterator[Subject]:
    running, name, redactor = request.getfixturevalue("azurite"), f"b-{uuid.uuid4().hex[:12]}", Redactor()
    key = {"account_name": running.account, "account_key": running.key}
    with BlobServiceClient(running.url, key) as client:
        client.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=False))
        container = client.get_container_client(name)

        def world() -> dict:
            kept = client.get_service_properties()["delete_retention_policy"]
            found = {"deleted is kept": kept.days} if kept.enabled else {}
            if container.exists():
                access = container.get_container_properties().public_access
                found |= {"container": True, "private": access is None}
            return found

        def begun(_change) -> None:
            client.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=True, days=30))

        wanted = {"deleted is kept": 30, "container": True, "private": True}
        yield Subject(
            action=BucketAction(AzureBlob(running.url, (running.account, Secret(running.key)), redactor)),
            params=BucketParams(name=name, lifecycle={"noncurrent_days": 30}),
            world=world,
            wanted=wanted,
            residue=frozenset(wanted),
            disturb=begun,
            canaries=lambda: [running.key],
            redactor=redactor,
        )
        client.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=False))
