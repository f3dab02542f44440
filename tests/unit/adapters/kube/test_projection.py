"""Wire objects to views: tolerant of the odd, exact where a patch depends on it."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from remediator.adapters.kube.projection import job_decoder, node_decoder, pdb_decoder, pod_decoder
from remediator.adapters.kube.wire import (
    Bookmark,
    Change,
    GarbledError,
    RawKeepingDecoder,
    ServerError,
    resource_version_of,
)
from remediator.model.policy import RemediationPolicy
from tests.unit.adapters.kube.scripted import a_bookmark, a_node, an_event

NODES = node_decoder(gpu_resource="nvidia.com/gpu", annotations=frozenset(["asset/tag"]))
PODS = pod_decoder(gpu_resource="nvidia.com/gpu")


def view_of(decoder, body):
    found = decoder.event(an_event("ADDED", body))
    assert isinstance(found, Change)
    assert found.view is not None, found.problem
    return found.view


def a_pod(**spec):
    metadata = {"namespace": "train", "name": "p", "uid": "u", "resourceVersion": "5"}
    metadata |= spec.pop("metadata", {})
    return {"metadata": metadata, "spec": {"nodeName": "n", **spec}, "status": {"phase": "Running"}}


def test_node_has_what_decisions_read():
    """Every field of the view comes from its place in the API."""
    body = a_node("n1", 7, labels={"pool": "h100"}, unschedulable=True, providerID="aws:///i-1")
    body["metadata"] |= {
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionTimestamp": "2026-01-02T00:00:00Z",
        "annotations": {"remediator.dev/run": "n1-1/fence", "asset/tag": "A7", "kubectl/last": "x" * 999},
    }
    body["status"] |= {
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "nodeInfo": {"bootID": "boot", "systemUUID": "sys"},
        "allocatable": {"cpu": "95500m", "nvidia.com/gpu": "8"},
    }

    view = view_of(NODES, body)

    assert (view.name, view.uid, view.resource_version) == ("n1", "uid-n1", "7")
    assert (view.labels, view.unschedulable, view.provider_id) == ({"pool": "h100"}, True, "aws:///i-1")
    assert view.annotations == {"remediator.dev/run": "n1-1/fence", "asset/tag": "A7"}
    assert (view.boot_id, view.system_uuid, view.gpus) == ("boot", "sys", 8)
    assert view.addresses == (("InternalIP", "10.0.0.1"),)
    assert view.created_at == "2026-01-01T00:00:00Z"
    assert view.deleting
    assert view.ready


def test_node_keeps_taints_byte_for_byte():
    """Our patch sends the list whole: a field we dropped would be a field we deleted for others."""
    taints = (
        b'[{"key":"a","effect":"NoExecute", "timeAdded":"2026-01-01T00:00:00Z","future":{"x":1.50}},'
        b'{"effect":"NoSchedule","key":"b","value":"v"}]'
    )
    line = (
        b'{"type":"MODIFIED","object":{"metadata":{"name":"n","resourceVersion":"2"},"spec":{"taints":'
        + taints
        + b"}}}"
    )

    found = NODES.event(line)

    assert isinstance(found, Change)
    assert found.view is not None
    assert found.view.taints_raw == taints
    assert [(each.key, each.effect, each.value) for each in found.view.taints] == [
        ("a", "NoExecute", ""),
        ("b", "NoSchedule", "v"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"spec": None, "status": None},
        {"spec": {"taints": None, "unschedulable": None, "providerID": None}},
        {"status": {"conditions": None, "addresses": None, "nodeInfo": None, "allocatable": None}},
        {"metadata": {"name": "n", "resourceVersion": "1", "labels": None, "annotations": None}},
        {},
    ],
)
def test_node_takes_null_for_absent(body):
    """Go writes nil lists as null, and one such field must not hide a node."""
    view = view_of(NODES, {"metadata": {"name": "n", "resourceVersion": "1"}, **body})

    assert (view.taints, view.taints_raw, view.conditions, view.labels) == ((), b"[]", (), {})


@pytest.mark.parametrize(
    ("type_", "statuses", "kept"),
    [
        ("Ready", ("True", "False"), "False"),
        ("Ready", ("True", "Unknown"), "Unknown"),
        ("Ready", ("Unknown", "False"), "False"),
        ("MemoryPressure", ("False", "True"), "True"),
        ("MemoryPressure", ("False", "Unknown"), "Unknown"),
        ("GpuBroken", ("Unknown", "True"), "True"),
        ("GpuBroken", ("False", "Odd"), "Odd"),
    ],
)
def test_node_keeps_the_worse_of_a_condition_that_stands_twice(type_, statuses, kept):
    """The server accepts duplicates; a good twin must not hide the bad one, in either order."""
    for order in itertools.permutations(statuses):
        body = a_node("n", 1, conditions=[{"type": type_, "status": status} for status in order])

        view = view_of(NODES, body)

        assert [(each.type, each.status) for each in view.conditions] == [(type_, kept)]
        other = next(status for status in statuses if status != kept)
        assert f"stands twice on the Node, also {other}" in view.conditions[0].message


@pytest.mark.parametrize(("quantity", "gpus"), [("8", 8), (8, 8), ("0", 0), ("1k", 0), ("", 0), ("-1", 0)])
def test_node_counts_only_plain_numbers_of_gpus(quantity, gpus):
    """A count we cannot read is no GPU: such a node is never taken as a spare."""
    body = a_node("n", 1)
    body["status"]["allocatable"] = {"nvidia.com/gpu": quantity}

    assert view_of(NODES, body).gpus == gpus


def test_pod_has_what_a_drain_reads():
    """Who owns it, what it costs to evict it, and whether it may go at all."""
    body = a_pod(
        metadata={
            "labels": {"job-name": "j"},
            "annotations": {"kubernetes.io/config.mirror": "x", "remediator.dev/protect": "true"},
            "ownerReferences": [
                {"kind": "Other", "name": "o", "uid": "1"},
                {"kind": "Job", "name": "j", "uid": "2", "controller": True},
            ],
        },
        priority=1000,
        priorityClassName="high",
        terminationGracePeriodSeconds=0,
        volumes=[{"name": "scratch", "emptyDir": {}}],
        tolerations=[{"operator": "Exists"}],
        containers=[{"resources": {"limits": {"nvidia.com/gpu": "4"}}}, {}],
        initContainers=[{"resources": {"requests": {"nvidia.com/gpu": "8"}}}],
    )

    view = view_of(PODS, body)

    assert (view.key, view.node, view.phase) == ("train/p", "n", "Running")
    assert (view.owner_kind, view.owner_name, view.owner_uid) == ("Job", "j", "2")
    assert (view.priority, view.priority_class, view.grace_s, view.gpus) == (1000, "high", 0, 8)
    assert view.annotations == {"remediator.dev/protect": "true"}
    assert (view.mirror, view.empty_dir, view.tolerates_all) == (True, True, True)


@pytest.mark.parametrize(
    ("tolerations", "all_"),
    [
        (None, False),
        ([{"operator": "Exists", "effect": "NoSchedule"}], False),
        (
            [{"operator": "Exists", "effect": "NoSchedule"}, {"operator": "Exists", "effect": "NoExecute"}],
            True,
        ),
        ([{"key": "a", "operator": "Exists"}], False),
        ([{"key": "", "operator": "Exists", "effect": None}], True),
    ],
)
def test_pod_tolerates_all_only_without_key_and_effect(tolerations, all_):
    """Evicting what tolerates our taint brings it straight back to the node."""
    assert view_of(PODS, a_pod(tolerations=tolerations)).tolerates_all is all_


def test_pod_volume_of_another_kind_is_no_scratch_data():
    """`emptyDir: Hold` must not hold pods that have none."""
    body = a_pod(volumes=[{"name": "a", "configMap": {}}, {"name": "b", "emptyDir": None}])

    assert not view_of(PODS, body).empty_dir


def test_pdb_and_job_read_their_status():
    """Names who blocks a drain; and a repair is done by the Job's condition, not by a counter."""
    meta = {"namespace": "n", "name": "x", "uid": "u", "resourceVersion": "1"}
    pdb = {
        "metadata": meta,
        "spec": {"selector": {"matchLabels": {"app": "a"}}},
        "status": {"disruptionsAllowed": 1},
    }
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "it broke"}
    done = {"type": "Complete", "status": "True"}

    assert view_of(pdb_decoder(), pdb).match_labels == {"app": "a"}
    assert view_of(pdb_decoder(), pdb).disruptions_allowed == 1
    assert view_of(job_decoder(), {"metadata": meta, "status": {"conditions": [done]}}).succeeded
    broken = view_of(job_decoder(), {"metadata": meta, "status": {"conditions": [failed]}})
    assert (broken.failed, broken.succeeded, broken.message) == (True, False, "it broke")
    assert not view_of(job_decoder(), {"metadata": meta, "status": {"succeeded": 1}}).succeeded


def test_one_odd_object_is_reported_and_keeps_its_key():
    """It must not stop the others, nor count as absent."""
    body = a_node("n", 9, conditions="none")

    found = NODES.event(an_event("MODIFIED", body))

    assert isinstance(found, Change)
    assert (found.key, found.version, found.view) == ("n", 9, None)
    assert "conditions" in found.problem


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        an_event("ADDED", a_node("n", 1))[:-9],
        b"garbage " + an_event("ADDED", a_node("n", 1)),
        an_event("ADDED", a_node("n", 1, labels={"skipped": "?"})).replace(b"?", b"\xff"),
        an_event("ADDED", a_node("n", 1, unread="?")).replace(b"?", b"\xff\xfe"),
        an_event("SURPRISE", a_node("n", 1)),
        an_event("ADDED", a_node("", 1)),
        an_event("ADDED", a_node("n", 0)),
        b'{"type":"ADDED","object":{"metadata":{"name":"n"}}}',
        b'{"type":"BOOKMARK","object":{"metadata":{}}}',
    ],
    ids=[
        "empty",
        "open",
        "cut",
        "junk",
        "utf8",
        "utf8-unread",
        "type",
        "name",
        "zero",
        "no-version",
        "bookmark",
    ],
)
def test_a_damaged_line_is_garbled(line):
    """What cannot be believed whole is not believed at all: a skipped line is a lost event."""
    with pytest.raises(GarbledError):
        NODES.event(line)


@pytest.mark.parametrize("cut", range(0, 300, 7))
def test_a_line_cut_anywhere_is_garbled(cut):
    """Half a line may still look like JSON to a lenient reader."""
    line = an_event("MODIFIED", a_node("n", 3, taints=[{"key": "a", "effect": "NoSchedule"}]))

    with pytest.raises(GarbledError):
        NODES.event(line[: min(cut, len(line) - 1)])


def test_bookmarks_and_errors_are_told_apart():
    """The end of the initial events is one annotation; an error comes inside an HTTP 200."""
    status = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}

    assert NODES.event(a_bookmark(5)) == Bookmark(5, False)
    assert NODES.event(a_bookmark(6, initial_end=True)) == Bookmark(6, True)
    found = NODES.event(an_event("ERROR", status))
    assert isinstance(found, ServerError)
    assert found.expired


def test_policy_keeps_its_own_bytes():
    """The one PUT would otherwise delete what a newer version of us has written."""
    body = b'{"metadata":{"name":"cluster","resourceVersion":"4"},"spec":{"newer": 1}}'
    decoder = RawKeepingDecoder(RemediationPolicy)

    found = decoder.event(b'{"type":"ADDED","object":' + body + b"}")
    listed = decoder.listed(msgspec.Raw(body))

    assert isinstance(found, Change)
    assert found.view is not None
    assert found.view.raw == body
    assert found.view.object.spec.max_mode == "Audit"
    assert listed.view == found.view


def test_resource_version_of_reads_the_reply_of_a_write():
    """Read your own writes begins with the version that the server returned."""
    assert resource_version_of(msgspec.json.encode(a_node("n", 12))) == "12"
    assert resource_version_of(b"not json") == ""
