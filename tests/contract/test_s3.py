"""What is S3's own, in the adapter and in the `bucket` action, against moto. The rest: test_object_stores.py."""

from __future__ import annotations

import hashlib

import boto3
import pytest
from pydantic import ValidationError

from engine.actions.bucket import BucketAction, BucketParams
from engine.adapters.s3 import S3
from engine.core.action import Deadline
from engine.core.change import Verb
from engine.core.convergence import Decision, converge, undo_verdict
from engine.core.redaction import Redactor, Secret
from engine.errors import PermanentError, RefusedError
from tests.fakes.contexts import context


@pytest.fixture
def s3(moto):
    return S3(moto, "eu-central-1", ("access", Secret("secret-key")), Redactor())


@pytest.fixture
def raw(moto):
    return boto3.client(
        "s3", endpoint_url=moto, region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
    )


@pytest.fixture
def name(request):
    return hashlib.sha256(request.node.name.encode()).hexdigest()[:20]


@pytest.fixture
def bucket(s3, name):
    s3.create_bucket(name)
    return name


@pytest.fixture
def action(s3):
    return BucketAction(s3)


def plan(action, params):
    return action.plan(params, action.read(params, context()), context())


def run(action, params):
    change = plan(action, params)
    preimage = action.capture(params, change, action.read(params, context()), context())
    if change.verb is not Verb.NONE:
        action.apply(params, change, context())
    return change, preimage


def test_changed_settings_go_back(action, s3, raw, bucket):
    raw.put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicAcls": True, "BlockPublicPolicy": True}
    )
    before = s3.bucket(bucket)
    params = BucketParams(name=bucket)
    change, preimage = run(action, params)
    assert change.verb is Verb.UPDATE
    assert {line.path: (line.before, line.after) for d in change.objects.values() for line in d.diff} == {
        "versioning": ("off", "on"),
        "encryption": ("off", "on"),
        "public_access": ("BlockPublicAcls+BlockPublicPolicy", "blocked"),
    }
    assert undo_verdict(change, action.read_back(params, change, preimage, context())).decision is Decision.APPLY
    for _ in range(2):
        action.undo(params, change, preimage, context())
        back = action.read_back(params, change, preimage, context())
        assert undo_verdict(change, back).decision is Decision.ALREADY
        assert s3.bucket(bucket) == before


def test_unmanaged_public_access_is_not_touched(action, s3, name):
    run(action, BucketParams(name=name, public_access="unmanaged"))
    assert s3.bucket(name)["public_access"] == "open"


def test_wanted_off_is_reached(action, s3, bucket):
    s3.set_bucket(bucket, "versioning", True)
    change, _ = run(action, BucketParams(name=bucket, versioning=False, encryption=False))
    assert change.verb is Verb.UPDATE
    assert not s3.bucket(bucket)["versioning"]
    assert plan(action, BucketParams(name=bucket, versioning=False, encryption=False)).verb is Verb.NONE


@pytest.mark.parametrize("mode", ["governance", "compliance"])
def test_made_with_object_lock_and_expiry(action, s3, raw, name, tmp_path, mode):
    params = BucketParams(
        name=name, lifecycle={"expire_days": 90, "noncurrent_days": 30}, object_lock={"mode": mode, "days": 14}
    )
    change, _ = run(action, params)
    assert change.verb is Verb.CREATE
    kept = raw.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert (kept["Mode"], kept["Days"]) == (mode.upper(), 14)
    rule = raw.get_bucket_lifecycle_configuration(Bucket=name)["Rules"][0]
    assert (rule["Expiration"], rule["NoncurrentVersionExpiration"]) == ({"Days": 90}, {"NoncurrentDays": 30})
    again = plan(action, params)
    assert again.verb is Verb.NONE
    source = tmp_path / "source"
    source.write_bytes(b"data")
    stored = s3.put(name, "a", source, {}, deadline=Deadline(30))
    with pytest.raises(raw.exceptions.ClientError, match="AccessDenied"):
        raw.delete_object(Bucket=name, Key="a", VersionId=stored.version)
    s3.delete(name, "a")  # leaves a marker; the version stays
    assert [v["VersionId"] for v in raw.list_object_versions(Bucket=name)["Versions"]] == [stored.version]


def test_killed_before_its_retention_was_set_it_goes_on(action, s3, name):
    params = BucketParams(name=name, object_lock={"days": 14})
    change = plan(action, params)
    s3.create_bucket(name, object_lock=True)
    live = action.read(params, context()).state
    assert converge(change, live, resuming=True).decision is Decision.APPLY
    action.apply(params, change, context())
    assert s3.bucket(name)["object_lock"] == {"mode": "governance", "days": 14}


def test_retention_can_change_and_goes_back(action, s3, name):
    run(action, BucketParams(name=name, object_lock={"days": 14}))
    params = BucketParams(name=name, object_lock={"mode": "compliance", "days": 30})
    change, preimage = run(action, params)
    assert change.verb is Verb.UPDATE
    assert [(x.before, x.after) for d in change.objects.values() for x in d.diff] == [
        ("governance, 14 d", "compliance, 30 d")
    ]
    action.undo(params, change, preimage, context())
    assert s3.bucket(name)["object_lock"] == {"mode": "governance", "days": 14}


def test_object_lock_on_a_bucket_made_without_is_a_plan_error(action, s3, bucket):
    before = s3.bucket(bucket)
    with pytest.raises(RefusedError, match=rf"bucket {bucket} was made without Object Lock.*Nothing was changed"):
        plan(action, BucketParams(name=bucket, object_lock={"days": 14}))
    assert s3.bucket(bucket) == before


def test_a_bucket_in_another_region_is_a_plan_error(action, moto, name):
    S3(moto, "eu-west-1", ("access", Secret("secret-key")), Redactor()).create_bucket(name)
    with pytest.raises(RefusedError, match=rf"bucket {name} is in region eu-west-1, and this environment's is eu-cent"):
        plan(action, BucketParams(name=name))


def test_rules_of_others_stay(action, s3, raw, bucket):
    theirs = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 5}}
    raw.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [theirs]})
    assert s3.bucket(bucket)["expire_days"] is None
    params = BucketParams(name=bucket, lifecycle={"expire_days": 90})
    change, preimage = run(action, params)
    rules = raw.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert [rule["ID"] for rule in rules] == ["logs", "runbook"]
    action.undo(params, change, preimage, context())
    assert [r["ID"] for r in raw.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]] == ["logs"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"versioning": False, "object_lock": {"days": 1}}, "needs `versioning: true`"),
        ({"lifecycle": {"expire_days": 7}, "object_lock": {"days": 14}}, "ends before"),
        ({"lifecycle": {"expire_days": 0}}, "greater than or equal to 1"),
        ({"object_lock": {"mode": "legal", "days": 1}}, "governance"),
    ],
)
def test_what_contradicts_itself_is_a_mistake_in_the_file(given, why):
    with pytest.raises(ValidationError, match=why):
        BucketParams(name="backups", **given)


def test_an_empty_lifecycle_value_means_that_it_is_not_looked_at(action, s3, bucket):
    s3.set_bucket(bucket, "expire_days", 3)
    run(action, BucketParams(name=bucket))
    assert s3.bucket(bucket)["expire_days"] == 3


def test_a_missing_bucket_is_a_permanent_error_of_a_setter(s3):
    with pytest.raises(PermanentError, match="NoSuchBucket"):
        s3.set_bucket("no-such-bucket", "versioning", True)
