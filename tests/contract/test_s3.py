"""The S3 adapter and the `bucket` action over it, against moto."""

from __future__ import annotations

import hashlib

import boto3
import pytest

from engine.actions.bucket import BucketAction, BucketParams
from engine.adapters.s3 import S3
from engine.core.action import Deadline
from engine.core.change import Verb
from engine.core.convergence import Decision, converge, undo_verdict
from engine.core.redaction import Redactor, Secret
from engine.errors import CancelledError, NotYetError, PermanentError, TemporaryError, UsageError
from tests.contract.services import free_port
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


def write(tmp_path, data):
    source = tmp_path / "source"
    source.write_bytes(data)
    return source


# --- objects ---


@pytest.mark.parametrize("size", [0, 5, 20 * 1024 * 1024], ids=["empty", "small", "in parts"])
def test_what_is_put_comes_back(s3, bucket, tmp_path, size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    stored = s3.put(bucket, "a/b", write(tmp_path, data), {"source": "test"}, deadline=Deadline(60))
    assert (stored.key, stored.size) == ("a/b", size)
    assert stored.metadata == {"source": "test", "sha256": hashlib.sha256(data).hexdigest()}
    s3.get(bucket, "a/b", tmp_path / "back", deadline=Deadline(60))
    assert (tmp_path / "back").read_bytes() == data
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o600


def test_what_reads_back_differently_is_removed(s3, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(s3, "_pieces", lambda *_: iter([b"something else"]))
    with pytest.raises(TemporaryError, match="read back differs"):
        s3.put(bucket, "a", write(tmp_path, b"data"), {}, deadline=Deadline(30))
    assert s3.head(bucket, "a") is None


def test_a_damaged_object_is_not_returned(s3, raw, bucket, tmp_path):
    raw.put_object(Bucket=bucket, Key="a", Body=b"changed", Metadata={"sha256": hashlib.sha256(b"whole").hexdigest()})
    with pytest.raises(PermanentError, match="is damaged"):
        s3.get(bucket, "a", tmp_path / "back", deadline=Deadline(30))
    assert not (tmp_path / "back").exists()


def test_list_and_head(s3, bucket, tmp_path):
    for key in ("a/1", "a/2", "b/1"):
        s3.put(bucket, key, write(tmp_path, b"1"), {}, deadline=Deadline(30))
    assert [found.key for found in s3.list(bucket, "a/")] == ["a/1", "a/2"]
    s3.delete(bucket, "a/1")
    assert s3.head(bucket, "a/1") is None
    assert s3.list("no-such-bucket", "") == []
    assert s3.head("no-such-bucket", "a") is None


def test_put_stops_at_the_deadline(s3, bucket, tmp_path):
    with pytest.raises(TemporaryError, match="the deadline passed"):
        s3.put(bucket, "a", write(tmp_path, b"data"), {}, deadline=Deadline(0))
    assert s3.head(bucket, "a") is None


def test_put_stops_in_the_middle(s3, bucket, tmp_path):
    class Short(Deadline):
        looks = 0

        def check(self, doing):
            self.looks += 1
            if self.looks > 5:
                raise CancelledError(f"stopped while {doing}")

    with pytest.raises(CancelledError, match="stopped while uploading"):
        s3.put(bucket, "a", write(tmp_path, b"x" * 20 * 1024 * 1024), {}, deadline=Short(30))
    assert s3.head(bucket, "a") is None


def test_put_into_a_missing_bucket_names_it(s3, tmp_path):
    with pytest.raises(PermanentError, match="no-such-bucket/a: NoSuchBucket"):
        s3.put("no-such-bucket", "a", write(tmp_path, b"data"), {}, deadline=Deadline(30))


def test_no_endpoint_yet():
    s3 = S3(f"http://127.0.0.1:{free_port()}", "us-east-1", ("a", Secret("secret-key")), Redactor())
    with pytest.raises(NotYetError, match="Could not connect"):
        s3.bucket("backups")
    with pytest.raises(TemporaryError):
        s3.create_bucket("backups")


def test_a_bucket_that_is_not_empty_stays(s3, bucket, tmp_path):
    s3.put(bucket, "a", write(tmp_path, b"data"), {}, deadline=Deadline(30))
    with pytest.raises(PermanentError, match="BucketNotEmpty"):
        s3.delete_bucket(bucket)
    s3.delete(bucket, "a")
    s3.delete_bucket(bucket)
    s3.delete_bucket(bucket)
    assert s3.bucket(bucket) is None


def test_an_unknown_setting_is_refused(s3, bucket):
    with pytest.raises(UsageError, match="no setting 'colour'"):
        s3.set_bucket(bucket, "colour", "blue")


# --- the `bucket` action ---


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


def test_created_with_all_settings_and_then_nothing(action, s3, name):
    params = BucketParams(name=name)
    change, _ = run(action, params)
    assert change.verb is Verb.CREATE
    assert s3.bucket(name) == {
        "versioning": True,
        "encryption": True,
        "public_access": "blocked",
        "region": "eu-central-1",
        "tags": {"managed-by": "runbook"},
    }
    again, _ = run(action, params)
    assert again.verb is Verb.NONE
    assert not any(delta.diff for delta in again.objects.values())
    assert again == plan(action, params)


def test_half_created_goes_on(action, s3, name):
    params = BucketParams(name=name)
    change = plan(action, params)
    s3.create_bucket(name)
    s3.set_bucket(name, "versioning", True)
    live = action.read(params, context()).state
    assert converge(change, live, resuming=True).decision is Decision.APPLY
    action.apply(params, change, context())
    assert converge(change, action.read(params, context()).state, resuming=False).decision is Decision.ALREADY


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


def test_what_was_created_stays_at_undo(action, s3, name):
    params = BucketParams(name=name)
    change, preimage = run(action, params)
    assert set(change.residue) == set(change.objects)
    action.undo(params, change, preimage, context())
    assert s3.bucket(name)["versioning"]


def test_unmanaged_public_access_is_not_touched(action, s3, name):
    run(action, BucketParams(name=name, public_access="unmanaged"))
    assert s3.bucket(name)["public_access"] == "open"


def test_wanted_off_is_reached(action, s3, bucket):
    s3.set_bucket(bucket, "versioning", True)
    change, _ = run(action, BucketParams(name=bucket, versioning=False, encryption=False))
    assert change.verb is Verb.UPDATE
    assert not s3.bucket(bucket)["versioning"]
    assert plan(action, BucketParams(name=bucket, versioning=False, encryption=False)).verb is Verb.NONE
