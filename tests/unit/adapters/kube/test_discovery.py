"""What start-up learns from a server, and what it makes of a server that will not say."""

from __future__ import annotations

import pytest

from remediator.adapters.kube.discovery import RESOURCES, Rule, check_installed, missing_rules
from remediator.errors import PermanentError, TransientError
from remediator.ports import Response
from tests.unit.adapters.kube.manual_clock import ManualClock
from tests.unit.adapters.kube.scripted import (
    Asked,
    End,
    Item,
    ScriptedTransport,
    Stream,
    a_bookmark,
    an_event,
    json_reply,
)

pytestmark = pytest.mark.asyncio


def a_server(resources: tuple[str, ...] | None, *lines: Item) -> ScriptedTransport:
    server = ScriptedTransport(ManualClock())
    server.streams.append(Stream(*lines))

    def answer(asked: Asked) -> Response:
        if asked.path == "/version":
            return json_reply(200, {"gitVersion": "v1.36.4", "major": "1"})
        if resources is None:
            return Response(404, {}, b"404 page not found")
        return json_reply(
            200, {"kind": "APIResourceList", "resources": [{"name": name} for name in resources]}
        )

    server.answer = answer
    return server


@pytest.mark.parametrize(
    ("lines", "streams"),
    [
        ((a_bookmark(5, initial_end=True),), True),
        ((a_bookmark(5),), False),
        ((End(),), False),
        ((PermanentError("forbidden", status=422),), False),
        ((an_event("ERROR", {"code": 500}),), False),
        ((b"<html>",), False),
    ],
    ids=["streams", "plain-bookmark", "ends", "refuses", "error", "garbled"],
)
async def test_watch_list_counts_only_where_its_end_was_seen(lines, streams):
    """A server that ignores the parameter would leave us waiting at every start."""
    installed = await check_installed(a_server(RESOURCES, *lines, End()))

    assert installed.watch_list is streams
    assert installed.server_version == "v1.36.4"


@pytest.mark.parametrize(
    ("served", "missing"),
    [
        (RESOURCES, ()),
        (None, RESOURCES),
        ((), RESOURCES),
        (tuple(name for name in RESOURCES if name != "remediations/status"), ("remediations/status",)),
    ],
    ids=["all", "no-group", "none", "one"],
)
async def test_missing_custom_resources_are_named(served, missing):
    """One CRD forgotten in an upgrade must be named, not guessed from a 404 later."""
    assert (await check_installed(a_server(served, End()))).missing == missing


async def test_a_server_that_is_away_is_no_server_without_resources():
    """Unknown is not absent."""
    server = a_server(RESOURCES, End())
    server.answer = lambda asked: Response(503, {}, b"")

    with pytest.raises(TransientError):
        await check_installed(server)


async def test_missing_rules_lists_each_denied_rule_once_and_sorted():
    """The message goes into a condition: it must be complete and not flap."""
    server = ScriptedTransport(ManualClock())

    def answer(asked: Asked) -> Response:
        wants = asked.json["spec"]["resourceAttributes"]
        return json_reply(201, {"status": {"allowed": wants["resource"] == "nodes"}})

    server.answer = answer
    rules = [
        Rule("batch", "jobs", "create", "repairs"),
        Rule("", "pods/eviction", "create"),
        Rule("", "nodes", "patch"),
        Rule("", "pods/eviction", "create"),
    ]

    missing = await missing_rules(server, rules)

    assert [str(each) for each in missing] == [
        "create pods/eviction core",
        "create jobs batch namespace=repairs",
    ]
    attributes = [each.json["spec"]["resourceAttributes"] for each in server.asked]
    assert {"group": "", "resource": "pods", "subresource": "eviction", "verb": "create"} in attributes
    assert {"group": "batch", "resource": "jobs", "namespace": "repairs", "verb": "create"} in attributes


async def test_a_review_that_says_nothing_counts_as_denied():
    """A permission is there only when the server said so."""
    server = ScriptedTransport(ManualClock())
    server.answer = lambda asked: json_reply(201, {})

    assert await missing_rules(server, [Rule("", "nodes", "patch")]) == (Rule("", "nodes", "patch"),)
    with pytest.raises(ValueError, match="at most"):
        await missing_rules(server, [Rule("", "nodes", "patch")] * 257)
