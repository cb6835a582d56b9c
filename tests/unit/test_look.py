"""The look: ownership trees, restriction, fingerprints, diffs. Objects are cut from what a real API server answered."""

from __future__ import annotations

import copy

import pytest

from engine.core import look

OURS = "runbook"


def entry(manager, fields, operation="Apply", subresource=""):
    made = {"manager": manager, "operation": operation, "fieldsV1": fields}
    return made | ({"subresource": subresource} if subresource else {})


def obj(spec=None, entries=(), **more):
    meta = {"name": "web", "namespace": "shop", "uid": "u", "managedFields": list(entries)}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec or {}, **more}


PORT = 'k:{"containerPort":80,"protocol":"TCP"}'
CONTAINER = 'k:{"name":"main"}'
TREE = {
    "f:spec": {
        "f:replicas": {},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    CONTAINER: {
                        ".": {},
                        "f:name": {},
                        "f:image": {},
                        "f:ports": {PORT: {".": {}, "f:containerPort": {}}},
                    }
                }
            }
        },
    }
}
SPEC = {
    "replicas": 3,
    "progressDeadlineSeconds": 600,
    "template": {
        "spec": {
            "containers": [
                {"name": "istio-proxy", "image": "proxy:1"},
                {
                    "name": "main",
                    "image": "web:1",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "terminationMessagePath": "/dev/x",
                },
            ]
        }
    },
}


def test_restrict_names_list_items_by_their_keys_and_leaves_out_what_is_not_ours():
    assert look.restrict(obj(SPEC), TREE) == {
        "": True,
        "spec.replicas": 3,
        "spec.template.spec.containers[name=main].name": "main",
        "spec.template.spec.containers[name=main].image": "web:1",
        "spec.template.spec.containers[name=main].ports[containerPort=80,protocol=TCP].containerPort": 80,
    }


@pytest.mark.parametrize(
    ("value", "tree", "leaves"),
    [
        ({"finalizers": ["a", "b"]}, {"f:finalizers": {'v:"b"': {}}}, {'finalizers["b"]': "b"}),
        ({"finalizers": ["a"]}, {"f:finalizers": {'v:"b"': {}}}, {}),
        ({"args": ["x", "y"]}, {"f:args": {"i:1": {}}}, {"args[1]": "y"}),
        ({"volume": {"emptyDir": {}}}, {"f:volume": {"f:emptyDir": {}}}, {"volume.emptyDir": {}}),
        ({"data": {}}, {"f:data": {".": {}}}, {"data": "present"}),
        ({"data": {"a": "1", "b": "2"}}, {"f:data": {".": {}, "f:a": {}}}, {"data.a": "1"}),
        ({"rules": [{"verbs": ["get"]}]}, {"f:rules": {}}, {"rules": [{"verbs": ["get"]}]}),
        ({"labels": {"a.b/c": "1"}}, {"f:labels": {"f:a.b/c": {}}}, {'labels."a.b/c"': "1"}),
        ({}, {"f:gone": {"f:deeper": {}}}, {}),
        ({"a": None}, {"f:a": {}}, {"a": None}),
    ],
)
def test_every_form_of_a_tree(value, tree, leaves):
    assert look.restrict({"metadata": {}, **value}, tree) == {"": True, **leaves}


def test_a_leaf_swallows_what_is_beneath_it_in_a_union():
    assert look.union({"f:a": {}}, {"f:a": {"f:b": {}}}) == {"f:a": {}}
    assert look.union({"f:a": {"f:b": {}}}, {"f:a": {"f:c": {}}}) == {"f:a": {"f:b": {}, "f:c": {}}}
    assert look.union(None, {}) == {}


def test_minus_is_what_a_manifest_no_longer_says():
    old = {"f:data": {"f:a": {}, "f:b": {}}, "f:immutable": {}}
    assert look.minus(old, {"f:data": {"f:a": {}}}) == {"f:data": {"f:b": {}}, "f:immutable": {}}
    assert look.minus(old, old) == {}


def test_only_our_own_apply_counts_as_ours():
    live = obj(
        SPEC,
        [
            entry(OURS, {"f:spec": {"f:paused": {}}}, "Update"),
            entry(OURS, {"f:status": {}}, subresource="status"),
            entry("kubectl", TREE),
        ],
    )
    assert look.owned(live, OURS) is None
    live["metadata"]["managedFields"].append(entry(OURS, TREE))
    assert look.owned(live, OURS) == TREE


def test_an_object_of_which_we_own_nothing_exists_all_the_same():
    live = obj({}, [entry(OURS, {})])
    assert look.fingerprint(live, {}) != look.fingerprint(None, {})
    assert look.fingerprint(live, {}) == look.fingerprint(obj(SPEC, [entry(OURS, {})]), {})


def test_nothing_to_change_is_equal():
    live = obj(SPEC, [entry(OURS, TREE)])
    assert look.before(live, copy.deepcopy(live), OURS) == look.after(live, OURS)
    assert look.diff(live, live, OURS) == ()


def test_a_foreign_value_we_would_take_is_seen_and_named():
    dry = obj(SPEC, [entry(OURS, TREE)])
    assert look.before(scaled(2), dry, OURS) != look.after(dry, OURS)
    (line,) = look.diff(scaled(2), dry, OURS)
    assert (line.path, line.before, line.after, line.note) == (
        "spec.replicas",
        "2",
        "3",
        "set to 2 by kubectl (scale)",
    )


def test_who_wrote_a_time_is_named_with_it():
    live = scaled(2)
    live["metadata"]["managedFields"][-1]["time"] = "2026-03-02T14:05:06Z"
    (line,) = look.diff(live, obj(SPEC, [entry(OURS, TREE)]), OURS)
    assert line.note == "set to 2 by kubectl (scale), 2026-03-02 14:05"


def test_a_scale_to_zero_leaves_no_name_and_says_so():
    without = copy.deepcopy(TREE)
    del without["f:spec"]["f:replicas"]
    live = obj({**SPEC, "replicas": 0}, [entry(OURS, without)])
    (line,) = look.diff(live, obj(SPEC, [entry(OURS, TREE)]), OURS)
    assert (line.before, line.after, line.note) == ("0", "3", "set to 0 by a scale, which records no name for 0")


def scaled(replicas):
    """A Deployment whose `replicas` another manager holds."""
    without = copy.deepcopy(TREE)
    del without["f:spec"]["f:replicas"]
    foreign = entry("kubectl", {"f:spec": {"f:replicas": {}}}, "Update", "scale")
    return obj({**SPEC, "replicas": replicas}, [entry(OURS, without), foreign])


def test_a_foreign_field_that_moves_between_plan_and_apply_is_seen():
    dry = obj(SPEC, [entry(OURS, TREE)])
    assert look.before(scaled(2), dry, OURS) != look.before(scaled(5), dry, OURS)


def test_a_foreign_field_that_says_what_we_want_is_no_change():
    dry = obj(SPEC, [entry(OURS, TREE)])
    assert look.before(scaled(3), dry, OURS) == look.after(dry, OURS)


def test_our_own_change_of_a_shared_field_is_nobodys_drift():
    live = obj({**SPEC, "replicas": 2}, [entry(OURS, TREE), entry("kubectl", {"f:spec": {"f:replicas": {}}})])
    (line,) = look.diff(live, obj(SPEC, [entry(OURS, TREE)]), OURS)
    assert line.note == ""


def test_a_field_removed_from_the_manifest_is_seen():
    live = obj({"replicas": 3, "paused": True}, [entry(OURS, {"f:spec": {"f:replicas": {}, "f:paused": {}}})])
    dry = obj({"replicas": 3}, [entry(OURS, {"f:spec": {"f:replicas": {}}})])
    assert look.before(live, dry, OURS) != look.after(dry, OURS)
    (line,) = look.diff(live, dry, OURS)
    assert (line.sign, line.path) == ("-", "spec.paused")


def test_a_foreign_list_item_or_field_is_no_drift():
    live = obj(SPEC, [entry(OURS, TREE)])
    other = copy.deepcopy(live)
    other["spec"]["progressDeadlineSeconds"] = 7
    other["spec"]["template"]["spec"]["containers"].insert(0, {"name": "debug", "image": "x"})
    assert look.before(other, live, OURS) == look.before(live, live, OURS)


def test_an_object_on_its_way_out_is_unfinished():
    live = obj(SPEC, [entry(OURS, TREE)])
    live["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert look.fingerprint(live, TREE).unfinished == "terminating"


def test_part_can_be_applied_again():
    assert look.part(obj(SPEC, [entry(OURS, TREE)]), TREE) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "replicas": 3,
            "template": {
                "spec": {
                    "containers": [
                        {"name": "main", "image": "web:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]}
                    ]
                }
            },
        },
    }


def test_part_and_restrict_say_the_same():
    live = obj(SPEC)
    assert look.restrict(look.part(live, TREE), TREE) == look.restrict(live, TREE)


def secret(value, **meta):
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "managedFields": [entry(OURS, {"f:stringData": {"f:password": {}}})], **meta},
        "data": {"password": value},
    }


def test_secrets_are_masked_before_anything_is_made_of_them():
    note = "kubectl.kubernetes.io/last-applied-configuration"
    hidden = look.masked(secret("aHVudGVyMg==", annotations={note: '{"data":"aHVudGVyMg=="}'}), lambda: b"key")
    assert "aHVudGVyMg" not in str(hidden)
    assert hidden == look.masked(secret("aHVudGVyMg==", annotations={note: '{"data":"aHVudGVyMg=="}'}), lambda: b"key")
    assert hidden["data"] != look.masked(secret("aHVudGVyMw=="), lambda: b"key")["data"]
    assert hidden["data"] != look.masked(secret("aHVudGVyMg=="), lambda: b"other")["data"]


def test_string_data_is_owned_under_its_name_and_seen_in_data():
    one, two = (look.masked(secret(v), lambda: b"key") for v in ("b25l", "dHdv"))
    assert look.after(one, OURS) != look.after(two, OURS)
    (line,) = look.diff(one, two, OURS)
    assert (line.path, line.before, line.after) == ("data.password", "(sensitive)", "(sensitive)")


def test_the_key_is_not_asked_for_without_a_secret():
    def never():
        raise AssertionError

    assert look.masked(obj(SPEC), never) == obj(SPEC)
