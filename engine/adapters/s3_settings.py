"""What can be set of an S3 bucket: how each setting is read, and how it is written. Errors are translated in s3.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.adapters.s3_errors import code_of

BLOCKS = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
_UNSET = {
    "ServerSideEncryptionConfigurationNotFoundError",
    "NoSuchPublicAccessBlockConfiguration",
    "NoSuchTagSet",
    "NoSuchLifecycleConfiguration",
    "ObjectLockConfigurationNotFoundError",
}
_RULE = "runbook"  # the lifecycle rule that is ours; others stay as they are
_ABORT_DAYS = 7  # what a killed upload left is removed after so many days
_EXPIRY = {  # setting: the part of a rule that carries it, and its field there
    "expire_days": ("Expiration", "Days"),
    "noncurrent_days": ("NoncurrentVersionExpiration", "NoncurrentDays"),
}


def read(client: Any, name: str) -> dict[str, Any]:
    """All settings of a bucket that is there, in the form of ObjectStore.bucket; not the region."""
    return {
        "versioning": client.get_bucket_versioning(Bucket=name).get("Status") == "Enabled",
        "encryption": _optional(client.get_bucket_encryption, name) is not None,
        "public_access": _public_access(client, name),
        **_expiry(client, name),
        "object_lock": _object_lock(client, name),
        "tags": {t["Key"]: t["Value"] for t in (_optional(client.get_bucket_tagging, name) or {}).get("TagSet", ())},
    }


def _public_access(client: Any, name: str) -> str:
    answer = _optional(client.get_public_access_block, name)
    flags = (answer or {}).get("PublicAccessBlockConfiguration", {})
    on = [flag for flag in BLOCKS if flags.get(flag)]
    if len(on) == len(BLOCKS):
        return "blocked"
    return "+".join(on) or "open"


def _set_public_access(client: Any, name: str, value: str) -> None:
    if value == "open":
        client.delete_public_access_block(Bucket=name)
        return
    on = BLOCKS if value == "blocked" else value.split("+")
    client.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration={flag: flag in on for flag in BLOCKS})


def _set_versioning(client: Any, name: str, value: bool) -> None:
    status = "Enabled" if value else "Suspended"  # S3 knows no way back to never versioned
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": status})


def _set_encryption(client: Any, name: str, value: bool) -> None:
    if not value:
        client.delete_bucket_encryption(Bucket=name)
        return
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    client.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})


def _expiry(client: Any, name: str) -> dict[str, int | None]:
    ours = next((r for r in _rules(client, name) if r.get("ID") == _RULE and r.get("Status") == "Enabled"), {})
    return {setting: ours.get(part, {}).get(field) for setting, (part, field) in _EXPIRY.items()}


def _rules(client: Any, name: str) -> Sequence[Mapping[str, Any]]:
    found = _optional(client.get_bucket_lifecycle_configuration, name)
    return list((found or {}).get("Rules", ()))


def _set_expiry(client: Any, name: str, setting: str, days: int | None) -> None:
    """Reads our rule and writes it with one value changed; S3 takes all rules at once or none."""
    others = [rule for rule in _rules(client, name) if rule.get("ID") != _RULE]
    wanted = {**_expiry(client, name), setting: days}
    parts = {_EXPIRY[s][0]: {_EXPIRY[s][1]: value} for s, value in wanted.items() if value}
    ours = {
        "ID": _RULE,
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _ABORT_DAYS},
        **parts,
    }
    rules = [*others, *([ours] if parts else ())]
    if rules:
        client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
    else:
        client.delete_bucket_lifecycle(Bucket=name)


def _object_lock(client: Any, name: str) -> Mapping[str, Any] | None:
    found = _optional(client.get_object_lock_configuration, name)
    if not found or found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
        return None
    kept = found["ObjectLockConfiguration"].get("Rule", {}).get("DefaultRetention", {})
    if not kept:
        return {}
    days = kept.get("Days") or kept.get("Years", 0) * 365
    return {"mode": kept["Mode"].lower(), "days": days}


def _set_object_lock(client: Any, name: str, value: Mapping[str, Any]) -> None:
    retention = {"DefaultRetention": {"Mode": value["mode"].upper(), "Days": value["days"]}} if value else {}
    lock = {"ObjectLockEnabled": "Enabled", **({"Rule": retention} if retention else {})}
    client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=lock)


def _set_tags(client: Any, name: str, value: Mapping[str, str]) -> None:
    tags = [{"Key": key, "Value": text} for key, text in sorted(value.items())]
    client.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})


def _optional(get: Any, bucket: str) -> Mapping[str, Any] | None:
    """A setting's answer; None when it was never set."""
    from botocore.exceptions import ClientError

    try:
        return dict(get(Bucket=bucket))
    except ClientError as error:
        if code_of(error) in _UNSET:
            return None
        raise


SETTERS: Mapping[str, Callable[[Any, str, Any], None]] = {
    "versioning": _set_versioning,
    "encryption": _set_encryption,
    "public_access": _set_public_access,
    "expire_days": lambda client, name, days: _set_expiry(client, name, "expire_days", days),
    "noncurrent_days": lambda client, name, days: _set_expiry(client, name, "noncurrent_days", days),
    "object_lock": _set_object_lock,
    "tags": _set_tags,
}
"""Setting -> how it is written."""
