"""`bucket` on a moto server: one that does not exist yet, and one whose settings are not as declared."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from botocore.exceptions import ClientError

from engine.actions.bucket import BucketAction, BucketParams
from engine.adapters.s3 import S3
from engine.core.redaction import Redactor, Secret
from tests.contract.conformance.subject import Subject

KEY = "canary-7f3a9c51d2"
BLOCKED = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)


@contextmanager
def make(request, tmp_path, *, existing: bool = False) -> Iterator[Subject]:
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
        return found

    def version() -> None:
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})

    if existing:
        client.create_bucket(Bucket=name)
    yield Subject(
        action=BucketAction(S3(url, "us-east-1", ("access", Secret(KEY)), redactor)),
        params=BucketParams(name=name),
        world=world,
        wanted={"bucket": True, "versioning": True, "public": False, "encryption": True},
        residue=frozenset({"bucket"} if existing else {"bucket", "versioning", "public", "encryption"}),
        disturb=(lambda _change: version()) if existing else (lambda _change: client.create_bucket(Bucket=name)),
        canaries=lambda: [KEY],
        redactor=redactor,
    )
    client.close()
