"""Who may read our pages: what is asked of the server, what is remembered, what is refused when in doubt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remediator.adapters.kube.reviewer import (
    ACCESS_REVIEWS,
    ALLOWED_S,
    REFUSED_S,
    REMEMBERED_MAX,
    TOKEN_REVIEWS,
    UNDER_WAY_MAX,
    TokenReviewer,
)
from remediator.errors import TransientError
from remediator.ports import AccessRefused, Lane, Response
from tests.unit.adapters.kube.manual_clock import ManualClock
from tests.unit.adapters.kube.scripted import Asked, ScriptedTransport, json_reply

pytestmark = pytest.mark.asyncio
PROMETHEUS = "system:serviceaccount:monitoring:prometheus"


class Unhurried(ScriptedTransport):
    """Lets others run before it answers, as a network does."""

    async def request(self, method: str, path: str, **asked: Any) -> Response:
        await self._clock.sleep(0)
        return await super().request(method, path, **asked)


class Server:
    """Knows one token; whether its bearer may read is up to the test."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.transport = Unhurried(self.clock)
        self.transport.answer = self.answer
        self.allowed = True
        self.away = False

    def answer(self, asked: Asked) -> Response | Exception:
        if self.away:
            return TransientError("connection refused")
        if asked.path == TOKEN_REVIEWS:
            known = asked.json["spec"]["token"] == "good"
            user = {"username": PROMETHEUS, "uid": "u-1", "groups": ["system:authenticated"]}
            return json_reply(201, {"status": {"authenticated": known, "user": user if known else {}}})
        return json_reply(201, {"status": {"allowed": self.allowed}})

    def reviewer(self) -> TokenReviewer:
        return TokenReviewer(self.transport, clock=self.clock)


async def test_bearer_who_may_read_is_let_in_and_remembered_for_a_minute():
    """A scrape every few seconds must not become two reviews every few seconds."""
    server = Server()
    reviewer = server.reviewer()

    assert await reviewer.refusal("Bearer good", "/metrics") is None
    assert await reviewer.refusal("bearer good", "/metrics") is None

    assert [asked.path for asked in server.transport.asked] == [TOKEN_REVIEWS, ACCESS_REVIEWS]
    assert {asked.lane for asked in server.transport.asked} == {Lane.BULK}
    spec = server.transport.asked[1].json["spec"]
    assert (spec["user"], spec["uid"], spec["groups"]) == (PROMETHEUS, "u-1", ["system:authenticated"])
    assert spec["nonResourceAttributes"] == {"path": "/metrics", "verb": "get"}
    server.allowed = False
    await server.clock.advance(ALLOWED_S + 1)
    assert (await reviewer.refusal("Bearer good", "/metrics") or AccessRefused(0, "")).status == 403


async def test_right_is_asked_for_each_path():
    """Who may read the metrics may not read everything."""
    server = Server()
    reviewer = server.reviewer()
    await reviewer.refusal("Bearer good", "/metrics")
    server.allowed = False

    refused = await reviewer.refusal("Bearer good", "/statusz")

    assert refused is not None
    assert refused.status == 403
    assert PROMETHEUS in refused.reason
    assert "remediator-metrics-reader" in refused.reason


@pytest.mark.parametrize("header", ["", "Basic Z29vZA==", "Bearer", "Bearer  ", "good"])
async def test_no_token_costs_no_request(header):
    server = Server()
    refused = await server.reviewer().refusal(header, "/metrics")

    assert refused is not None
    assert refused.status == 401
    assert server.transport.asked == []


async def test_bad_token_is_refused_and_soon_asked_again():
    """It may have been made a moment ago, and not be known everywhere yet."""
    server = Server()
    reviewer = server.reviewer()
    for _ in range(3):
        assert (await reviewer.refusal("Bearer bad", "/metrics") or AccessRefused(0, "")).status == 401
    assert len(server.transport.asked) == 1

    await server.clock.advance(REFUSED_S + 1)
    await reviewer.refusal("Bearer bad", "/metrics")
    assert len(server.transport.asked) == 2


async def test_nobody_is_let_in_while_the_server_is_away_and_nothing_is_remembered():
    server = Server()
    server.away = True
    reviewer = server.reviewer()
    refused = await reviewer.refusal("Bearer good", "/metrics")
    server.away = False

    assert refused is not None
    assert refused.status == 503
    assert "connection refused" in refused.reason
    assert await reviewer.refusal("Bearer good", "/metrics") is None


async def test_unknown_tokens_are_remembered_in_bounds():
    """Whoever sends a new one each time must not fill our memory."""
    server = Server()
    reviewer = server.reviewer()
    for number in range(REMEMBERED_MAX + 5):
        await reviewer.refusal(f"Bearer bad-{number}", "/metrics")
    asked = len(server.transport.asked)
    await reviewer.refusal(f"Bearer bad-{REMEMBERED_MAX + 4}", "/metrics")
    assert len(server.transport.asked) == asked
    await reviewer.refusal("Bearer bad-0", "/metrics")
    assert len(server.transport.asked) == asked + 1


async def test_only_a_few_reviews_are_under_way_at_once():
    """Who has no token must not spend the requests that a quarantine needs."""
    server = Server()
    reviewer = server.reviewer()
    asked = [reviewer.refusal(f"Bearer bad-{number}", "/metrics") for number in range(UNDER_WAY_MAX + 3)]
    answers = await asyncio.gather(*asked)

    statuses = sorted(answer.status for answer in answers if answer is not None)
    assert statuses == [401] * UNDER_WAY_MAX + [503] * 3
