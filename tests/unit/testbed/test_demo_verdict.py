"""The demo's judge: which evictions count as harm. It reads what the API server wrote, and nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec

from remediator.adapters.audit import AuditRecord, ObjectReference, ResponseStatus, User
from remediator.testbed.demo_verdict import evictions_without_taint
from remediator.testbed.stage import USER

T0 = datetime(2026, 11, 22, tzinfo=UTC)
OURS = {"key": "remediator.dev/quarantine", "effect": "NoSchedule"}
POOL = {"key": "example.com/pool", "effect": "NoSchedule"}


def a_record(
    second: int, verb: str, where: ObjectReference, body: object, *, user: str = USER, code: int = 201
) -> AuditRecord:
    """A request that took a tenth of a second."""
    at = T0 + timedelta(seconds=second)
    return AuditRecord(
        stage="ResponseComplete",
        audit_id=f"{second}",
        verb=verb,
        user=User(username=user),
        object_ref=where,
        response_status=ResponseStatus(code=code),
        request_object=msgspec.Raw(json.dumps(body).encode()),
        received_at=at,
        staged_at=at + timedelta(seconds=0.1),
    )


def bound(second: int, pod: str, node: str) -> AuditRecord:
    where = ObjectReference(resource="pods", subresource="binding", namespace="ml", name=pod)
    return a_record(second, "create", where, {"target": {"name": node}}, user="system:kube-scheduler")


def evicted(second: int, pod: str, *, code: int = 201) -> AuditRecord:
    where = ObjectReference(resource="pods", subresource="eviction", namespace="ml", name=pod)
    return a_record(second, "create", where, {}, code=code)


def tainted(second: int, node: str, *taints: object, code: int = 200) -> AuditRecord:
    where = ObjectReference(resource="nodes", name=node)
    return a_record(second, "patch", where, {"spec": {"taints": taints}}, code=code)


def test_eviction_from_a_tainted_node_is_no_harm():
    """The order that every run keeps."""
    records = [bound(1, "a", "n1"), tainted(2, "n1", POOL, OURS), evicted(3, "a")]

    assert evictions_without_taint(records) == []


def test_taint_of_another_node_is_no_excuse():
    """Once any node of the fleet was tainted, an eviction anywhere used to pass."""
    records = [bound(1, "a", "n1"), tainted(2, "n2", OURS), evicted(3, "a")]

    assert evictions_without_taint(records) == ["ml/a on n1"]


def test_taint_that_came_later_was_lifted_or_was_refused_is_no_excuse():
    """Ours has to stand there when the pod goes."""
    later = [bound(1, "a", "n1"), evicted(2, "a"), tainted(3, "n1", OURS)]
    lifted = [bound(1, "a", "n1"), tainted(2, "n1", OURS), tainted(3, "n1", POOL), evicted(4, "a")]
    refused = [bound(1, "a", "n1"), tainted(2, "n1", OURS, code=409), evicted(3, "a")]

    for records in (later, lifted, refused):
        assert evictions_without_taint(records) == ["ml/a on n1"]


def test_pod_is_looked_for_where_it_was_bound_last():
    """A StatefulSet's pod comes back under its own name, on another node."""
    records = [
        bound(1, "a", "n1"),
        tainted(2, "n1", OURS),
        evicted(3, "a"),
        bound(4, "a", "n2"),
        evicted(5, "a"),
    ]

    assert evictions_without_taint(records) == ["ml/a on n2"]


def test_pod_that_nobody_saw_bound_counts_and_a_refused_eviction_does_not():
    """Unknown is no proof of good conduct; what a PDB refused took nothing."""
    records = [bound(1, "b", "n1"), evicted(2, "a"), evicted(3, "b", code=429)]

    assert evictions_without_taint(records) == ["ml/a on a node that nobody can tell"]
