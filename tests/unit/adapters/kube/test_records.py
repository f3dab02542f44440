"""What goes over the wire for our own objects and Events, and that no stale field survives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.adapters.kube import bodies
from remediator.adapters.kube.records import KubeRecords
from remediator.errors import ContractError
from remediator.model.action import (
    Attribution,
    CreateLedger,
    CreateRun,
    DeleteRun,
    PublishEvent,
    SaveLedger,
    SavePlaybookStatus,
    SavePolicy,
    SavePoolStatus,
    SaveRun,
)
from remediator.model.ledger import ManagedNode, ManagedNodeStatus, Out
from remediator.model.meta import ObjectMeta
from remediator.model.playbook import PlaybookStatus
from remediator.model.policy import Grant, PolicyStatus
from remediator.model.pool import PoolStatus
from remediator.model.remediation import (
    NodeRef,
    PlaybookRef,
    Remediation,
    RemediationSpec,
    RemediationStatus,
    StepStatus,
)
from remediator.ports import Lane, Outcome, Refusal, Response
from tests.unit.adapters.kube.manual_clock import ManualClock
from tests.unit.adapters.kube.scripted import ScriptedTransport, json_reply

WHO = Attribution(term=7, run="n1-3", step="fence")
ROOT = "/apis/remediator.dev/v1alpha1"
STEP = StepStatus(id="fence", action="quarantine", state="Intent", started_at="2026-01-01T00:00:00Z")
RUN = Remediation(
    metadata=ObjectMeta(name="n1-3", labels={"a": "b"}),
    spec=RemediationSpec(
        machine="n1",
        node=NodeRef(name="n1", uid="u"),
        trigger="Fault",
        mode="Enforce",
        fault_class="gpu.fallen-off",
        severity="Hard",
        playbook=PlaybookRef(name="p", text="{}"),
    ),
    status=RemediationStatus(state="Granted"),
)
EVENT = PublishEvent(
    machine="sn-1",
    node="n1",
    node_uid="real-uid",
    type="Warning",
    reason="Quarantined",
    action="Quarantine",
    note="XID 79",
    at=datetime(2026, 1, 1, 12, 0, 0, 42, tzinfo=UTC),
    run="n1-3",
    run_uid="run-uid",
)


def a_server() -> ScriptedTransport:
    server = ScriptedTransport(ManualClock())
    server.answer = lambda asked: json_reply(200, {"metadata": {"resourceVersion": "9"}})
    return server


def a_door(server: ScriptedTransport, reason: str | None = None) -> KubeRecords:
    return KubeRecords(server, may_write=lambda: reason, instance="pod-1")


def applied(document: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """JSON merge patch as RFC 7386 defines it."""
    result = dict(document)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            old = result.get(key)
            result[key] = applied(old if isinstance(old, dict) else {}, value)
        else:
            result[key] = value
    return result


@pytest.mark.asyncio
async def test_run_is_created_without_status():
    """The server drops it, and a record that seems to hold a state it lost would mislead us."""
    server = a_server()

    written = await a_door(server).save(CreateRun(run=RUN), WHO)

    assert written.outcome is Outcome.APPLIED
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.lane) == ("POST", f"{ROOT}/remediations", Lane.URGENT)
    assert sorted(asked.json) == ["apiVersion", "kind", "metadata", "spec"]
    assert asked.json["metadata"] == {"name": "n1-3", "labels": {"a": "b"}}
    assert asked.json["spec"]["faultClass"] == "gpu.fallen-off"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("action", "path", "lane"),
    [
        (
            SaveRun("x", "5", RemediationStatus(), RemediationStatus(state="Granted")),
            "remediations",
            Lane.NORMAL,
        ),
        (
            SaveLedger("x", "5", ManagedNodeStatus(), ManagedNodeStatus(state="Out")),
            "managednodes",
            Lane.BULK,
        ),
        (SavePoolStatus("x", "5", PoolStatus(), PoolStatus(nodes=3)), "resourcepools", Lane.BULK),
        (SavePlaybookStatus("x", "5", PlaybookStatus(), PlaybookStatus(active=3)), "playbooks", Lane.BULK),
    ],
)
async def test_status_is_patched_under_its_version(action, path, lane):
    """Two writers of one status must not overwrite each other's results."""
    server = a_server()

    await a_door(server).save(action, WHO)

    (asked,) = server.asked
    assert (asked.method, asked.path, asked.lane) == ("PATCH", f"{ROOT}/{path}/x/status", lane)
    assert asked.headers["Content-Type"] == "application/merge-patch+json"
    assert asked.json["metadata"] == {"resourceVersion": "5"}
    assert len(asked.json["status"]) == 1
    assert "term=7; run=n1-3; step=fence" in asked.headers["User-Agent"]


def test_status_patch_deletes_what_vanished():
    """A wait that is over must not stand in the record for ever."""
    before = RemediationStatus(
        state="Draining",
        waits_for="PDB train/a",
        until="2026-01-01T00:00:00Z",
        spare=NodeRef(name="s", uid="u"),
    )
    after = RemediationStatus(state="Detached", steps=(STEP,))

    patch = msgspec.json.decode(bodies.status_patch(before, after, "5"))

    assert patch["status"] == {
        "state": "Detached",
        "waitsFor": None,
        "until": None,
        "spare": None,
        "steps": [{"id": "fence", "action": "quarantine", "state": "Intent", "startedAt": STEP.started_at}],
    }


def test_status_patch_needs_a_version():
    """Without it the patch would win over whatever is there."""
    with pytest.raises(ContractError):
        bodies.status_patch(RemediationStatus(), RemediationStatus(state="x"), "")


LEAF = st.one_of(st.integers(), st.text(max_size=3), st.booleans(), st.lists(st.integers(), max_size=3))
KEYS = st.sampled_from("abcd")
OBJECTS = st.dictionaries(
    KEYS, st.recursive(LEAF, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=6), max_size=4
)


@given(before=OBJECTS, after=OBJECTS, unknown=OBJECTS)
def test_merge_difference_turns_before_into_after(before, after, unknown):
    """For any two objects, and whatever else a newer version keeps beside them."""
    patch = bodies.merge_difference(before, after)
    stored = {**before, "newer": unknown}

    assert applied(before, patch) == after
    assert applied(stored, patch) == {**after, "newer": unknown}


@pytest.mark.asyncio
async def test_policy_status_is_put_with_everything_we_do_not_know():
    """After a downgrade the older version must not delete the newer one's fields."""
    raw = (
        b'{"apiVersion":"remediator.dev/v1alpha1","kind":"RemediationPolicy",'
        b'"metadata":{"name":"cluster","resourceVersion":"41","future":{"n":1.50}},'
        b'"spec":{"maxMode":"Enforce","newer":[1,2]},"extra":7,'
        b'"status":{"term":3,"leader":"old","newer":{"k":1.50},"rates":[{"scope":"fleet","tokens":1,"at":"t"}]}}'
    )
    status = PolicyStatus(term=4, grants=(Grant(run="n1-3", uid="u"),))
    server = a_server()

    await a_door(server).save(SavePolicy(raw=raw, status=status), WHO)

    (asked,) = server.asked
    assert (asked.method, asked.path) == ("PUT", f"{ROOT}/remediationpolicies/cluster/status")
    assert asked.lane is Lane.URGENT
    assert asked.json["metadata"]["resourceVersion"] == "41"
    assert b'"future":{"n":1.50}' in asked.body
    assert (asked.json["spec"], asked.json["extra"]) == ({"maxMode": "Enforce", "newer": [1, 2]}, 7)
    assert asked.json["status"] == {
        "newer": {"k": 1.5},
        "term": 4,
        "grants": [{"run": "n1-3", "uid": "u"}],
    }
    assert b'"newer":{"k":1.50}' in asked.body


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b'{"metadata":{"name":"cluster"}}', b'{"metadata":{"resourceVersion":""}}'],
)
def test_policy_put_needs_the_object_as_last_seen(raw):
    """A PUT without its precondition would overwrite another leader's grants."""
    with pytest.raises(ContractError):
        bodies.policy_status_put(SavePolicy(raw=raw, status=PolicyStatus()))


@pytest.mark.parametrize("status", [b"", b',"status":null', b',"status":{}'])
def test_policy_put_begins_with_an_absent_status(status):
    """The first write of the first leader is the term."""
    raw = b'{"metadata":{"resourceVersion":"1"}' + status + b"}"

    body = msgspec.json.decode(bodies.policy_status_put(SavePolicy(raw=raw, status=PolicyStatus(term=1))))

    assert body["status"] == {"term": 1}


@pytest.mark.asyncio
async def test_run_is_deleted_only_as_it_was_seen():
    """A record that was written to since is not the one that was judged old."""
    server = a_server()

    await a_door(server).save(DeleteRun(name="n1-3", uid="u", resource_version="5"), WHO)

    (asked,) = server.asked
    assert (asked.method, asked.path, asked.lane) == ("DELETE", f"{ROOT}/remediations/n1-3", Lane.BULK)
    assert asked.json["preconditions"] == {"uid": "u", "resourceVersion": "5"}


LEDGER = ManagedNode(
    metadata=ObjectMeta(name="n1"),
    status=ManagedNodeStatus(state="Out", out=Out(run="n1-3", since="2026-01-01T00:00:00Z", fault_class="x")),
)


@pytest.mark.asyncio
async def test_ledger_is_created_and_then_gets_its_status():
    """The server drops a status on create, and a ledger without its story is none."""
    server = a_server()

    written = await a_door(server).save(CreateLedger(node=LEDGER), WHO)

    assert written.outcome is Outcome.APPLIED
    post, patch = server.asked
    assert (post.method, post.path) == ("POST", f"{ROOT}/managednodes")
    assert sorted(post.json) == ["apiVersion", "kind", "metadata", "spec"]
    assert (patch.method, patch.path) == ("PATCH", f"{ROOT}/managednodes/n1/status")
    assert patch.json["metadata"] == {"resourceVersion": "9"}
    assert patch.json["status"]["out"]["run"] == "n1-3"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("first", "second", "outcome", "refusal"),
    [
        (409, None, Outcome.REFUSED, Refusal.EXISTS),
        (503, None, Outcome.UNKNOWN, Refusal.NONE),
        (201, 409, Outcome.UNKNOWN, Refusal.NONE),
        (201, 503, Outcome.UNKNOWN, Refusal.NONE),
    ],
)
async def test_ledger_that_is_half_there_is_unknown(first, second, outcome, refusal):
    """Refused would say that nothing has changed."""
    server = a_server()
    replies = iter([first, second])

    def answer(asked):
        code = next(replies)
        reason = "AlreadyExists" if asked.method == "POST" else "Conflict"
        return json_reply(code, {"metadata": {"resourceVersion": "9"}, "reason": reason})

    server.answer = answer
    written = await a_door(server).save(CreateLedger(node=LEDGER), WHO)

    assert (written.outcome, written.refusal) == (outcome, refusal)


@pytest.mark.asyncio
async def test_event_regards_the_node_and_names_the_run():
    """`kubectl describe node` shows it only with the node's real uid, in namespace default."""
    server = a_server()

    await a_door(server).save(EVENT, WHO)

    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/apis/events.k8s.io/v1/namespaces/default/events")
    assert asked.lane is Lane.BULK
    body = asked.json
    assert body["eventTime"] == "2026-01-01T12:00:00.000042Z"
    assert body["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "real-uid"}
    assert body["related"]["name"] == "n1-3"
    assert (body["reportingController"], body["reportingInstance"]) == ("remediator.dev/controller", "pod-1")
    assert (body["reason"], body["action"], body["type"]) == ("Quarantined", "Quarantine", "Warning")


def test_event_has_one_name_per_machine_reason_and_quarter_of_an_hour():
    """A successor remembers nothing; the name tells it that the news is out already."""
    successors = msgspec.structs.replace(EVENT, at=EVENT.at + timedelta(minutes=14), note="again", run="n1-4")
    later = msgspec.structs.replace(EVENT, at=EVENT.at + timedelta(minutes=15))
    long_named = msgspec.structs.replace(EVENT, node="n" * 253)

    assert bodies.event_name(EVENT) == bodies.event_name(successors)
    others = [later, *(msgspec.structs.replace(EVENT, **{name: "x"}) for name in ("machine", "reason"))]
    assert len({bodies.event_name(each) for each in (EVENT, *others)}) == 4
    assert len(bodies.event_name(long_named)) <= 253


def test_event_time_is_utc_and_note_fits():
    """The server refuses a note over 1,024 bytes, and a cut character is no UTF-8."""
    elsewhere = EVENT.at.astimezone(timezone(timedelta(hours=5)))
    body = msgspec.json.decode(
        bodies.event(msgspec.structs.replace(EVENT, at=elsewhere, note="ä" * 600 + "x", run=""), "i" * 200)
    )

    assert body["eventTime"] == "2026-01-01T12:00:00.000042Z"
    assert body["note"] == "ä" * 512
    assert len(body["reportingInstance"]) == 128
    assert "related" not in body


@pytest.mark.asyncio
async def test_records_without_the_lease_send_nothing():
    """A deposed leader's grants and results are as harmful as its patches."""
    server = a_server()

    for action in (CreateRun(run=RUN), CreateLedger(node=LEDGER), EVENT):
        written = await a_door(server, "lease lost").save(action, WHO)
        assert (written.outcome, written.refusal) == (Outcome.REFUSED, Refusal.FENCED)

    assert server.asked == []


@pytest.mark.asyncio
async def test_lost_replies_are_unknown():
    """The record may be there: looking comes before writing again."""
    server = a_server()
    server.answer = lambda asked: Response(504, {}, b"")

    assert (await a_door(server).save(CreateRun(run=RUN), WHO)).outcome is Outcome.UNKNOWN
