"""Writes of people: preconditioned, tried again when somebody else was first, and never without a bound."""

from __future__ import annotations

import msgspec
import pytest

from remediator.app.lookup import NotFoundError, not_found
from remediator.app.people import TRIES_MAX, People
from remediator.errors import PermanentError, TransientError
from remediator.model.ledger import ManualRequest
from remediator.ports import Response
from tests.unit.adapters.kube.manual_clock import ManualClock
from tests.unit.adapters.kube.scripted import Asked, ScriptedTransport, json_reply
from tests.unit.core.builders import at, text

pytestmark = pytest.mark.asyncio
CONFLICT = {"kind": "Status", "reason": "Conflict", "message": "the object has been modified", "code": 409}
FORBIDDEN = {
    "kind": "Status",
    "reason": "Forbidden",
    "message": 'nodes "gpu-1" is forbidden: User "alice" cannot patch resource "nodes" in API group "" '
    "at the cluster scope",
    "code": 403,
}


class Server:
    """One object and its version; the first ``conflicts`` patches come too late."""

    def __init__(self, body: dict[str, object] | None, *, conflicts: int = 0) -> None:
        self.body = body
        self.conflicts = conflicts
        self.version = 7
        self.transport = ScriptedTransport(ManualClock())
        self.transport.answer = self.answer

    def answer(self, asked: Asked) -> Response | Exception:
        if asked.method == "POST":
            self.body = asked.json
            return json_reply(201, {**asked.json, "metadata": {"name": "m", "resourceVersion": "1"}})
        if self.body is None:
            return json_reply(404, {"kind": "Status", "reason": "NotFound", "code": 404})
        if asked.method == "GET":
            return json_reply(
                200, {**self.body, "metadata": {"name": "m", "resourceVersion": str(self.version)}}
            )
        if self.conflicts:
            self.conflicts -= 1
            self.version += 1
            return json_reply(409, CONFLICT)
        return json_reply(200, self.body)

    @property
    def patches(self) -> list[dict[str, object]]:
        return [asked.json for asked in self.transport.asked if asked.method == "PATCH"]


async def test_hold_writes_who_until_and_why_with_the_version_that_was_read():
    """Without the precondition a hold could bring back what somebody just took away."""
    server = Server({})

    assert await People(server.transport, by="alice").hold("gpu-1", at(3_600), "vendor; on site")
    text = "until=2026-11-22T01:00:00Z;by=alice;reason=vendor, on site"
    assert server.patches == [
        {"metadata": {"annotations": {"remediator.dev/hold": text}, "resourceVersion": "7"}}
    ]


async def test_hold_is_tried_again_with_the_new_version_after_a_conflict():
    """Node status changes every few seconds; a person should not notice."""
    server = Server({}, conflicts=2)

    assert await People(server.transport, by="alice").hold("gpu-1", at(3_600), "x")
    versions = [msgspec.to_builtins(patch)["metadata"]["resourceVersion"] for patch in server.patches]
    assert versions == ["7", "8", "9"]


async def test_hold_gives_up_after_five_conflicts():
    """Every retry has a bound."""
    server = Server({}, conflicts=99)

    with pytest.raises(TransientError, match="try again"):
        await People(server.transport, by="alice").hold("gpu-1", at(3_600), "x")
    assert len(server.patches) == TRIES_MAX


async def test_unhold_writes_nothing_where_there_is_no_hold():
    server = Server({})

    assert not await People(server.transport, by="alice").unhold("gpu-1")
    assert server.patches == []


async def test_forbidden_write_names_the_missing_rule():
    """Who may not must learn what to ask for."""
    server = Server({})
    get = server.answer
    server.transport.answer = lambda asked: (
        json_reply(403, FORBIDDEN) if asked.method == "PATCH" else get(asked)
    )

    with pytest.raises(PermanentError, match="missing RBAC rule: patch nodes core"):
        await People(server.transport, by="alice").hold("gpu-1", at(3_600), "x")


def asked(**fields: str) -> ManualRequest:
    return ManualRequest(**({"playbook": "gpu-off-bus", "by": "alice", "at": text(0)} | fields))


async def test_request_makes_the_machine_s_object_where_there_is_none():
    """Most machines have no story yet."""
    server = Server(None)
    await People(server.transport, by="alice").request("m", asked(plan_hash="7f3c9a21"))

    created = server.transport.asked[-1]
    assert (created.method, created.path) == ("POST", "/apis/remediator.dev/v1alpha1/managednodes")
    assert created.json["spec"]["request"] == {
        "playbook": "gpu-off-bus",
        "planHash": "7f3c9a21",
        "by": "alice",
        "at": "2026-11-22T00:00:00Z",
    }


async def test_request_without_a_plan_takes_an_older_request_s_hash_away():
    """A merge patch merges: the stale hash would refuse the new request."""
    server = Server({"spec": {}})
    await People(server.transport, by="alice").request("m", asked())

    (patch,) = server.patches
    request = msgspec.to_builtins(patch)["spec"]["request"]
    assert (request["planHash"], request["returnTo"]) == (None, None)


async def test_request_is_made_in_the_name_of_who_asks():
    """What the caller typed for a name must not get into the record."""
    server = Server({"spec": {}})
    await People(server.transport, by="alice").request("m", asked(by="mallory", return_to="buffer"))

    (patch,) = server.patches
    request = msgspec.to_builtins(patch)["spec"]["request"]
    assert (request["by"], request["returnTo"]) == ("alice", "buffer")


async def test_pause_of_a_missing_pool_is_not_found():
    server = Server(None)

    with pytest.raises(NotFoundError, match="no pool trani"):
        await People(server.transport, by="alice").pause("pool", "trani", "x", None)


async def test_lost_reply_is_told_as_unknown():
    """Whether it was done nobody knows; to say failed would invite a second try in the dark."""
    server = Server({})
    get = server.answer
    server.transport.answer = lambda asked: (
        json_reply(500, {"kind": "Status", "message": "etcd is away"})
        if asked.method == "PATCH"
        else get(asked)
    )

    with pytest.raises(TransientError, match="look before you try again"):
        await People(server.transport, by="alice").hold("gpu-1", at(3_600), "x")


async def test_not_found_names_what_is_near():
    """One wrong digit at three in the morning."""
    error = not_found("node", "gpu-a-1", ["gpu-a-01", "gpu-a-02", "system-01"])

    assert "did you mean gpu-a-01" in str(error)
    assert "system-01" not in str(error)
