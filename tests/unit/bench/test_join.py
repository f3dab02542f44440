from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from bench.join import LATE_S, Trial, join
from remediator.adapters.audit import AuditRecord, ObjectReference, ResponseStatus, User

T0 = datetime(2026, 1, 1, tzinfo=UTC)
OURS, BARE = "ours", "bare"
QUARANTINE = "remediator.dev/quarantine"


def a_record(
    at_ms: float,
    *,
    user: str = OURS,
    verb: str = "patch",
    resource: str = "nodes",
    name: str = "node-1",
    subresource: str = "",
    took_ms: float = 1.0,
    taints: tuple[str, ...] = (),
    code: int = 200,
    audit_id: str = "",
) -> AuditRecord:
    """A request that was answered ``at_ms`` after T0, having taken ``took_ms``."""
    staged = T0 + timedelta(milliseconds=at_ms)
    body = msgspec.json.encode({"spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in taints]}})
    return AuditRecord(
        stage="ResponseComplete",
        audit_id=audit_id or f"{user}-{at_ms}-{verb}",
        verb=verb,
        user=User(username=user),
        object_ref=ObjectReference(resource=resource, subresource=subresource, name=name),
        response_status=ResponseStatus(code=code),
        request_object=msgspec.Raw(body),
        received_at=staged - timedelta(milliseconds=took_ms),
        staged_at=staged,
    )


def a_condition(at_ms: float, audit_id: str, *, name: str = "node-1", code: int = 200) -> AuditRecord:
    return a_record(at_ms, user="admin", subresource="status", name=name, audit_id=audit_id, code=code)


def a_taint(at_ms: float, **more: object) -> AuditRecord:
    return a_record(at_ms, taints=("example.com/pool", QUARANTINE), **more)  # type: ignore[arg-type]


def totals(records, *trials):
    return [timed.total for timed in join(records, trials, taint="/quarantine")]


def test_trial_is_from_commit_to_commit():
    """Both ends are the server's own times of having answered, not of having been asked."""
    records = [a_condition(10, "a"), a_taint(17.25, took_ms=3)]

    assert totals(records, Trial(OURS, "node-1", "a")) == [7.25]


def test_whole_is_the_sum_of_its_parts():
    """The parts are what an optimisation is judged by; nothing may fall between them."""
    records = [
        a_condition(10, "a"),
        a_record(16, verb="create", resource="remediations", took_ms=4),
        a_record(18, verb="update", resource="remediationpolicies", subresource="status", took_ms=5),
        a_taint(25, took_ms=3),
    ]

    (found,) = join(records, [Trial(OURS, "node-1", "a")], taint="/quarantine")

    assert (found.notice, found.intent, found.turn, found.patch) == (2, 6, 4, 3)
    assert found.total == 15


def test_order_of_records_does_not_matter():
    """The log is written by many requests at once."""
    records = [a_taint(17), a_condition(10, "a")]

    assert totals(records, Trial(OURS, "node-1", "a")) == [7]


def test_each_trial_of_one_node_gets_its_own_taint():
    """Nodes are used again: a later trial's taint is no answer to an earlier condition, nor the reverse."""
    records = [a_condition(0, "a"), a_taint(5), a_condition(1_000, "b"), a_taint(1_009)]

    assert totals(records, Trial(OURS, "node-1", "a"), Trial(OURS, "node-1", "b")) == [5, 9]


@pytest.mark.parametrize(
    "record",
    [
        a_taint(5, user=BARE),
        a_taint(5, name="node-2"),
        a_taint(5, code=409),
        a_taint(5, subresource="status"),
        a_taint(-1),
        a_taint(LATE_S * 1_000 + 1),
        a_record(5, taints=("example.com/pool",)),
    ],
    ids=["of another user", "other node", "refused", "status", "before", "too late", "other taint"],
)
def test_what_is_no_answer_is_missing(record):
    """A trial without an answer must be seen as such; it must never borrow a time."""
    assert totals([a_condition(0, "a"), record], Trial(OURS, "node-1", "a")) == [None]


def test_condition_that_was_refused_starts_nothing():
    """What the server refused was never committed."""
    assert totals([a_condition(0, "a", code=409), a_taint(5)], Trial(OURS, "node-1", "a")) == [None]


def test_lateness_itself_still_counts():
    """Exactly at the bound."""
    records = [a_condition(0, "a"), a_taint(LATE_S * 1_000)]

    assert totals(records, Trial(OURS, "node-1", "a")) == [LATE_S * 1_000]


def test_sides_are_told_apart():
    """Both answer on the same server at the same time."""
    records = [
        a_condition(0, "a"),
        a_condition(1, "b", name="node-2"),
        a_taint(4, name="node-2", user=BARE),
        a_taint(6),
    ]

    assert totals(records, Trial(OURS, "node-1", "a"), Trial(BARE, "node-2", "b")) == [6, 3]
