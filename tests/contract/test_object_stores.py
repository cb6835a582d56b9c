"""What holds for every object store, over S3 (moto) and Azure Blob storage (Azurite), and for `bucket` on them."""

from __future__ import annotations

import hashlib
import uuid

import pytest

from engine.actions.bucket import BucketAction, BucketParams
from engine.adapters.azureblob import AzureBlob
from engine.adapters.s3 import S3
from engine.core.action import Deadline
from engine.core.change import Verb
from engine.core.convergence import Decision, converge, undo_verdict
from engine.core.redaction import Redactor, Secret
from engine.errors import CancelledError, NotYetError, PermanentError, TemporaryError, UsageError
from tests.contract.services import free_port
from tests.fakes.contexts import context

STORES = ["s3", "azureblob"]


def make(kind, request, endpoint=""):
    if kind == "s3":
        return S3(endpoint or request.getfixturevalue("moto"), "eu-central-1", ("a", Secret("secret-key")), Redactor())
    if endpoint:
        return AzureBlob(f"{endpoint}/lab", ("lab", Secret("a2V5LW9mLXRoZS1sYWI=")), Redactor())
    running = request.getfixturevalue("azurite")
    return AzureBlob(running.url, (running.account, Secret(running.key)), Redactor())


@pytest.fixture(params=STORES)
def store(request):
    made = make(request.param, request)
    yield made
    if request.param == "azureblob":  # soft delete is the account's, not the container's
        made.set_bucket("any", "versioning", False)


@pytest.fixture
def name():
    return f"b-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def bucket(store, name):
    store.create_bucket(name)
    return name


def write(tmp_path, data):
    source = tmp_path / "source"
    source.write_bytes(data)
    return source


# --- objects ---


@pytest.mark.parametrize("size", [0, 5, 20 * 1024 * 1024], ids=["empty", "small", "in parts"])
def test_what_is_put_comes_back(store, bucket, tmp_path, size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    stored = store.put(bucket, "a/b", write(tmp_path, data), {"plain-bytes": "5"}, deadline=Deadline(60))
    assert (stored.key, stored.size) == ("a/b", size)
    assert stored.metadata == {"plain-bytes": "5", "sha256": hashlib.sha256(data).hexdigest()}
    store.get(bucket, "a/b", tmp_path / "back", deadline=Deadline(60))
    assert (tmp_path / "back").read_bytes() == data
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o600


def test_what_reads_back_differently_is_removed(store, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_pieces", lambda *_: iter([b"something else"]))
    with pytest.raises(TemporaryError, match="read back differs"):
        store.put(bucket, "a", write(tmp_path, b"data"), {}, deadline=Deadline(30))
    assert store.head(bucket, "a") is None


def test_a_damaged_object_is_not_returned(store, bucket, tmp_path, monkeypatch):
    store.put(bucket, "a", write(tmp_path, b"whole"), {}, deadline=Deadline(30))
    whole = store._pieces
    monkeypatch.setattr(store, "_pieces", lambda *given: (piece.replace(b"w", b"W") for piece in whole(*given)))
    with pytest.raises(PermanentError, match="is damaged"):
        store.get(bucket, "a", tmp_path / "back", deadline=Deadline(30))
    assert not (tmp_path / "back").exists()


def test_list_and_head(store, bucket, tmp_path):
    for key in ("a/1", "a/2", "b/1"):
        store.put(bucket, key, write(tmp_path, b"1"), {}, deadline=Deadline(30))
    listed = store.list(bucket, "a/")
    assert [found.key for found in listed] == ["a/1", "a/2"]
    assert [found.modified for found in listed] == [store.head(bucket, found.key).modified for found in listed]
    store.delete(bucket, "a/1")
    store.delete(bucket, "a/1")
    assert store.head(bucket, "a/1") is None
    assert store.list("no-such-bucket", "") == []
    assert store.head("no-such-bucket", "a") is None


def test_what_is_written_again_is_replaced(store, bucket, tmp_path):
    for data in (b"first", b"second"):
        store.put(bucket, "a", write(tmp_path, data), {}, deadline=Deadline(30))
    store.get(bucket, "a", tmp_path / "back", deadline=Deadline(30))
    assert (tmp_path / "back").read_bytes() == b"second"


def test_put_stops_at_the_deadline(store, bucket, tmp_path):
    with pytest.raises(TemporaryError, match="the deadline passed"):
        store.put(bucket, "a", write(tmp_path, b"data"), {}, deadline=Deadline(0))
    assert store.head(bucket, "a") is None


def test_put_stops_in_the_middle(store, bucket, tmp_path):
    class Short(Deadline):
        looks = 0

        def check(self, doing):
            self.looks += 1
            if self.looks > 2:
                raise CancelledError(f"stopped while {doing}")

    with pytest.raises(CancelledError, match="stopped while uploading"):
        store.put(bucket, "a", write(tmp_path, b"x" * 20 * 1024 * 1024), {}, deadline=Short(30))
    assert store.head(bucket, "a") is None


def test_put_into_a_missing_bucket_names_it(store, tmp_path):
    with pytest.raises(PermanentError, match=r"no-such-bucket/a: (NoSuchBucket|ContainerNotFound)"):
        store.put("no-such-bucket", "a", write(tmp_path, b"data"), {}, deadline=Deadline(30))


@pytest.mark.parametrize("kind", STORES)
def test_no_endpoint_yet(kind, request):
    store = make(kind, request, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(NotYetError, match="cannot read"):
        store.bucket("backups")
    with pytest.raises(TemporaryError, match="cannot create"):
        store.create_bucket("backups")


def test_a_bucket_that_is_not_empty_stays(store, bucket, tmp_path):
    store.put(bucket, "a", write(tmp_path, b"data"), {}, deadline=Deadline(30))
    with pytest.raises(PermanentError, match=r"(?i)not.?empty"):
        store.delete_bucket(bucket)
    store.delete(bucket, "a")
    store.delete_bucket(bucket)
    store.delete_bucket(bucket)
    assert store.bucket(bucket) is None


def test_made_twice_it_is_there(store, bucket):
    store.create_bucket(bucket)
    assert store.bucket(bucket)["public_access"] in ("blocked", "open")


def test_an_unknown_setting_is_refused(store, bucket):
    with pytest.raises(UsageError, match="no setting 'colour'"):
        store.set_bucket(bucket, "colour", "blue")


def test_what_cannot_be_set_here_is_refused_when_set(store, bucket):
    for setting in store.limits:
        with pytest.raises(UsageError, match="no setting"):
            store.set_bucket(bucket, setting, 1)


# --- the `bucket` action ---


@pytest.fixture
def action(store):
    return BucketAction(store)


def plan(action, params):
    return action.plan(params, action.read(params, context()), context())


def run(action, params):
    change = plan(action, params)
    preimage = action.capture(params, change, action.read(params, context()), context())
    if change.verb is not Verb.NONE:
        action.apply(params, change, context())
    return change, preimage


def test_created_with_all_settings_and_then_nothing(action, store, name):
    params = BucketParams(name=name, lifecycle={"noncurrent_days": 30})
    change, _ = run(action, params)
    assert change.verb is Verb.CREATE
    found = store.bucket(name)
    assert {s: found[s] for s in ("versioning", "encryption", "public_access", "noncurrent_days", "tags")} == {
        "versioning": True,
        "encryption": True,
        "public_access": "blocked",
        "noncurrent_days": 30,
        "tags": {"managed-by": "runbook"},
    }
    again, _ = run(action, params)
    assert again.verb is Verb.NONE
    assert not any(delta.diff for delta in again.objects.values())
    assert again == plan(action, params)


def test_half_created_goes_on(action, store, name):
    params = BucketParams(name=name, lifecycle={"noncurrent_days": 30})
    change = plan(action, params)
    for setting in store.shared:
        store.set_bucket(name, setting, params.wanted()[setting])
    store.create_bucket(name)
    if not store.shared:
        store.set_bucket(name, "versioning", True)
    live = action.read(params, context()).state
    # Of a container nothing is left to set but its tags, which no plan counts.
    left = Decision.ALREADY if store.shared else Decision.APPLY
    assert converge(change, live, resuming=True).decision is left
    action.apply(params, change, context())
    assert converge(change, action.read(params, context()).state, resuming=False).decision is Decision.ALREADY


def test_what_is_the_whole_account_s_is_set_before_the_bucket_is_made(action, store, name, monkeypatch):
    """A crash right after the bucket was made must find no setting on a third side."""
    params = BucketParams(name=name, lifecycle={"noncurrent_days": 30})
    if "versioning" in store.shared:
        store.set_bucket(name, "noncurrent_days", 3)  # somebody else's
    change, make_bucket = plan(action, params), store.create_bucket

    def killed(*given, **named):
        make_bucket(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "create_bucket", killed)
    with pytest.raises(KeyboardInterrupt):
        action.apply(params, change, context())
    monkeypatch.undo()
    live = action.read(params, context()).state
    assert converge(change, live, resuming=True).decision is not Decision.STALE
    action.apply(params, change, context())
    assert plan(action, params).verb is Verb.NONE


def test_changed_settings_go_back(action, store, bucket):
    store.set_bucket(bucket, "versioning", True)
    store.set_bucket(bucket, "noncurrent_days", 3)
    before = store.bucket(bucket)
    params = BucketParams(name=bucket, lifecycle={"noncurrent_days": 30})
    change, preimage = run(action, params)
    assert change.verb is Verb.UPDATE
    lines = {line.path: (line.before, line.after) for d in change.objects.values() for line in d.diff}
    assert lines["noncurrent_days"] == ("3", "30")
    assert undo_verdict(change, action.read_back(params, change, preimage, context())).decision is Decision.APPLY
    for _ in range(2):
        action.undo(params, change, preimage, context())
        back = action.read_back(params, change, preimage, context())
        assert undo_verdict(change, back).decision is Decision.ALREADY
        assert store.bucket(bucket) == before


def test_what_was_created_stays_at_undo(action, store, name):
    params = BucketParams(name=name)
    change, preimage = run(action, params)
    assert set(change.residue) == set(change.objects)
    action.undo(params, change, preimage, context())
    assert store.bucket(name)["versioning"]
