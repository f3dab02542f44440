"""The audit log is the judge of every story, so reading it must neither lose nor invent a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remediator.adapters.audit import AuditRecord, writes
from remediator.errors import PermanentError
from remediator.testbed import audit
from remediator.testbed.audit import AuditLog
from remediator.testbed.waiting import WaitExpiredError

OURS = "system:serviceaccount:remediator:remediator"


def a_line(audit_id: str, **changes: Any) -> bytes:
    record: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse",
        "auditID": audit_id,
        "stage": "ResponseComplete",
        "requestURI": "/api/v1/nodes/n1",
        "verb": "patch",
        "user": {"username": OURS, "groups": ["system:authenticated"], "uid": "1"},
        "sourceIPs": ["127.0.0.1"],
        "userAgent": "remediator/0.1 (term=3)",
        "objectRef": {"resource": "nodes", "name": "n1", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200},
        "requestObject": {"spec": {"unschedulable": True}},
        "requestReceivedTimestamp": "2026-11-23T10:00:00.000001Z",
        "stageTimestamp": "2026-11-23T10:00:00.002000Z",
    }
    record.update(changes)
    return json.dumps(record).encode() + b"\n"


def append(path: Path, *lines: bytes) -> None:
    with open(path, "ab") as file:
        file.write(b"".join(lines))


def ids(records: Any) -> list[str]:
    return [record.audit_id for record in records]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def test_record_is_read_with_types(path):
    """A checker must not dig in dictionaries: one typo there and a rule never fires."""
    append(path, a_line("a"))
    (record,) = AuditLog(path).since()

    assert record.username == OURS
    assert record.object_ref.name == "n1"
    assert record.response_status.code == 200
    assert record.committed
    assert json.loads(bytes(record.request_object)) == {"spec": {"unschedulable": True}}
    assert bytes(record.response_object) == b""
    assert (record.staged_at - record.received_at).microseconds == 1999


def test_record_without_object_or_status_is_read(path):
    """Discovery has no objectRef, and a watch that panicked no responseStatus."""
    line = json.loads(a_line("a"))
    del line["objectRef"], line["responseStatus"], line["requestObject"]
    append(path, json.dumps(line).encode() + b"\n")
    (record,) = AuditLog(path).since()

    assert record.object_ref.resource == ""
    assert not record.committed


def test_username_is_the_impersonated_one(path):
    """`kubectl --as` writes count for whom they were written."""
    append(path, a_line("a", impersonatedUser={"username": "alice"}))
    (record,) = AuditLog(path).since()

    assert record.username == "alice"


def test_since_yields_only_what_came_after_the_mark(path):
    """Each story judges its own part of a shared log."""
    log = AuditLog(path)
    append(path, a_line("before"))
    begin = log.mark()
    append(path, a_line("mine"))
    end = log.mark()
    append(path, a_line("after"))

    assert ids(log.since(begin, end)) == ["mine"]
    assert ids(log.since(begin)) == ["mine", "after"]


@pytest.mark.parametrize("size", [10, 70_000], ids=["short", "longer-than-a-block"])
def test_half_written_line_is_left_for_later(path, size):
    """The server appends while we read; half a record is no error and is not lost."""
    log = AuditLog(path)
    line = a_line("second", userAgent="x" * 70_000)
    append(path, a_line("first"), line[:size])
    begin = log.mark()
    early = ids(log.since())
    append(path, line[size:])

    assert early == ["first"]
    assert ids(log.since(begin)) == ["second"]


def test_log_that_does_not_exist_yet_is_empty(path):
    """The API server makes the file when it starts."""
    log = AuditLog(path)
    mark = log.mark()
    empty = ids(log.since(mark))
    append(path, a_line("a"))

    assert empty == []
    assert ids(log.since(mark)) == ["a"]


def test_since_refuses_another_file_than_at_the_mark(path):
    """A rotated log would let every rule pass on an empty file."""
    append(path, a_line("a"))
    log = AuditLog(path)
    mark = log.mark()
    other = path.with_name("other")
    append(other, a_line("b"))
    other.replace(path)

    with pytest.raises(PermanentError, match="was replaced since the mark"):
        list(log.since(mark))


def test_line_that_is_no_record_is_an_error(path):
    """Skipping it would hide what it held."""
    append(path, a_line("a"), b"{}\n")

    with pytest.raises(PermanentError, match=r"no audit record at byte \d+"):
        list(AuditLog(path).since())


def test_writes_takes_completed_writes_of_the_chosen(path):
    """Reads, other people and other stages are no writes of ours; refusals are."""
    append(
        path,
        a_line("ok"),
        a_line("refused", responseStatus={"code": 409}),
        a_line("read", verb="get"),
        a_line("started", stage="ResponseStarted"),
        a_line("other", user={"username": "alice"}),
        a_line("status", objectRef={"resource": "nodes", "subresource": "status"}),
        a_line("lease", objectRef={"resource": "leases", "apiGroup": "coordination.k8s.io"}),
    )
    log = AuditLog(path)

    assert ids(writes(log.since(), users=[OURS])) == ["ok", "refused", "status", "lease"]
    assert ids(writes(log.since(), resource="nodes", subresource="")) == ["ok", "refused", "other"]
    assert ids(writes(log.since(), users=["bob"])) == []


def test_wait_for_finds_what_is_there_and_gives_up_in_time(path):
    """The reply of a request may arrive before its record does, so readers wait, with a bound."""
    log = AuditLog(path)
    mark = log.mark()
    append(path, a_line("a"), a_line("b"))

    def wanted(record: AuditRecord) -> bool:
        return record.audit_id == "b"

    assert log.wait_for(wanted, since=mark, timeout_s=0, what="b").audit_id == "b"
    with pytest.raises(WaitExpiredError, match="the record c did not happen within 0 s"):
        log.wait_for(lambda record: record.audit_id == "c", since=mark, timeout_s=0, what="the record c")


def test_policy_keeps_ours_before_it_drops_leases():
    """The first rule that matches wins: our lease writes must be countable."""
    rules = json.loads(audit.policy([OURS]))["rules"]
    leases = [rule for rule in rules if "coordination.k8s.io" in json.dumps(rule.get("resources", []))]

    assert [(rule["level"], rule.get("users")) for rule in leases] == [("Metadata", [OURS]), ("None", None)]
    assert rules[-1] == {"level": "Metadata"}


def test_policy_without_users_has_no_rule_for_users_of_ours():
    """An empty list of users in a rule would match everybody."""
    rules = json.loads(audit.policy([]))["rules"]

    assert all(rule.get("users", ["somebody"]) for rule in rules)
