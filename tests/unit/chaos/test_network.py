"""Each fault of the API does what it says, in its time, and counts that it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from random import Random
from typing import Any

import msgspec
import pytest

from remediator.chaos.network import FaultyTransport
from remediator.chaos.schedule import Fault
from remediator.errors import PermanentError, TransientError
from remediator.ports import Lane, Response
from remediator.sim.loop import VirtualClock, run_virtual, virtual_clock
from remediator.sim.request import User
from remediator.sim.server import Server
from remediator.sim.transport import SimTransport

PATH = "/api/v1/nodes/a"


class Well:
    """A server that does all it is asked, and remembers it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.lines: tuple[bytes, ...] = (b"1", b"2", b"3")

    async def request(self, method: str, path: str, **_: Any) -> Response:
        self.asked.append(f"{method} {path}")
        return Response(200, {}, b"{}")

    async def stream(
        self, path: str, *, query: Mapping[str, str] | None = None, **_: Any
    ) -> AsyncIterator[bytes]:
        for line in self.lines:
            yield line


class Scene:
    def __init__(self, *faults: Fault) -> None:
        self.clock: VirtualClock = virtual_clock()
        self.server = Well()
        self.fired: Counter[int] = Counter()
        self.way = FaultyTransport(
            self.server, faults, clock=self.clock, began_s=0.0, rng=Random(1), fired=self.fired
        )

    async def patch(self, path: str = PATH, method: str = "PATCH") -> Response:
        return await self.way.request(method, path, timeout_s=3.0, lane=Lane.NORMAL)

    async def lines(self) -> list[bytes]:
        found = self.way.stream("/api/v1/nodes", connect_timeout_s=1, idle_timeout_s=5)
        return [line async for line in found]


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_virtual(story())


def now(kind: Any, **more: Any) -> Fault:
    return Fault(kind=kind, from_s=0, to_s=100, **more)


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        ("Conflict", {409}),
        ("TooMany", {429}),
        ("ErrorBefore", {500, 503, 504}),
        ("Unauthorized", {401}),
        ("Denied", {403}),
        ("NotServed", {404}),
    ],
)
def test_refusal_reaches_no_server(kind: str, codes: set[int]) -> None:
    async def story() -> None:
        scene = Scene(now(kind))
        reply = await scene.patch()
        assert reply.status in codes
        assert msgspec.json.decode(reply.body)["code"] == reply.status
        assert scene.server.asked == []
        assert scene.fired == {0: 1}

    play(story)


def test_retry_after_is_said_where_it_is_asked_for() -> None:
    async def story() -> None:
        assert (await Scene(now("TooMany", seconds=2)).patch()).headers["retry-after"] == "2"
        assert "retry-after" not in (await Scene(now("TooMany")).patch()).headers

    play(story)


def test_error_after_the_deed_has_done_it() -> None:
    async def story() -> None:
        scene = Scene(now("ErrorAfter"))
        assert (await scene.patch()).status in (500, 504)
        assert scene.server.asked == [f"PATCH {PATH}"]

    play(story)


def test_lost_reply_has_done_it_and_says_nothing() -> None:
    async def story() -> None:
        scene = Scene(now("LostReply"))
        with pytest.raises(TransientError, match="connection reset"):
            await scene.patch()
        assert scene.server.asked == [f"PATCH {PATH}"]

    play(story)


@pytest.mark.parametrize(("kind", "seconds"), [("Unanswered", 0.0), ("Slow", 60.0)])
def test_answer_that_comes_too_late_is_none(kind: str, seconds: float) -> None:
    async def story() -> None:
        scene = Scene(now(kind, seconds=seconds))
        with pytest.raises(TransientError, match="no complete reply within 3 s"):
            await scene.patch()
        assert scene.clock.monotonic() == 3.0
        assert scene.server.asked == []

    play(story)


def test_slow_answer_comes() -> None:
    async def story() -> None:
        scene = Scene(now("Slow", seconds=2.0))
        assert (await scene.patch()).status == 200
        assert scene.clock.monotonic() == 2.0

    play(story)


@pytest.mark.parametrize(
    ("kind", "said", "took_s"),
    [("WatchBreaks", "connection reset", 0.0), ("WatchHangs", "silent for 5 s", 5.0)],
)
def test_watch_that_fails_says_how(kind: str, said: str, took_s: float) -> None:
    async def story() -> None:
        scene = Scene(now(kind))
        with pytest.raises(TransientError, match=said):
            await scene.lines()
        assert scene.clock.monotonic() == took_s
        assert (await scene.patch()).status == 200, "requests are another matter"

    play(story)


def test_watch_that_ends_ends() -> None:
    async def story() -> None:
        assert await Scene(now("WatchEnds")).lines() == []
        assert await Scene().lines() == [b"1", b"2", b"3"]

    play(story)


def test_fault_strikes_in_its_time_on_its_resource_and_verb_only() -> None:
    async def story() -> None:
        scene = Scene(Fault(kind="ErrorBefore", from_s=10, to_s=20, on="nodes", verb="PATCH"))
        assert (await scene.patch()).status == 200
        await scene.clock.sleep(10)
        assert (await scene.patch()).status >= 500
        assert (await scene.patch(method="GET")).status == 200
        assert (await scene.patch("/api/v1/namespaces/x/pods/a")).status == 200
        await scene.clock.sleep(10)
        assert (await scene.patch()).status == 200
        assert scene.fired == {0: 1}

    play(story)


def test_share_is_by_dice() -> None:
    async def story() -> None:
        scene = Scene(now("ErrorBefore", share=0.3))
        codes = [(await scene.patch()).status for _ in range(1_000)]
        assert 250 < sum(code >= 500 for code in codes) < 350

    play(story)


def test_server_that_refuses_writes_it_down() -> None:
    """Else a stream of refused writes would be invisible to every rule."""
    log: list[bytes] = []

    async def story() -> None:
        clock = virtual_clock()
        server = Server(clock, seed=1, audit=log.append)
        way = SimTransport(server, User("us", ()), clock=clock, seed=1)
        fault = now("TooMany", seconds=5)
        fired: Counter[int] = Counter()
        faulty = FaultyTransport(
            way,
            (fault,),
            clock=clock,
            began_s=0.0,
            rng=Random(1),
            fired=fired,
            turned_away=way.turned_away,
        )
        body = msgspec.json.encode({"metadata": {"name": "a"}})
        reply = await faulty.request("POST", "/api/v1/nodes", body=body, timeout_s=3.0, lane=Lane.NORMAL)
        assert (reply.status, reply.headers["retry-after"], fired[0]) == (429, "5", 1)
        nobody = await faulty.request("GET", "/apis/no.such/v1", timeout_s=3.0, lane=Lane.NORMAL)
        assert nobody.status == 429
        left = await way.request("GET", "/api/v1/nodes", timeout_s=3.0, lane=Lane.NORMAL)
        assert msgspec.json.decode(left.body)["items"] == []

    play(story)
    records = [msgspec.json.decode(line) for line in log]
    assert [(each["verb"], each["responseStatus"]["code"]) for each in records][:1] == [("create", 429)]
    assert records[0]["objectRef"]["resource"] == "nodes"


def test_garbled_answer_is_of_something_that_was_done() -> None:
    async def story() -> None:
        scene = Scene(now("Garbled"))
        bodies = {(await scene.patch()).body for _ in range(20)}
        assert len(scene.server.asked) == 20
        assert b"<html><body>502 Bad Gateway</body></html>" in bodies
        assert len(bodies) > 2

    play(story)


def test_reads_are_not_denied() -> None:
    async def story() -> None:
        scene = Scene(now("Denied"))
        assert (await scene.patch(method="GET")).status == 200
        assert scene.fired == {}

    play(story)


def test_kind_that_is_not_served_has_no_watch() -> None:
    """None opens, and one that is open ends: the kind is gone, which says nothing of any object."""

    async def story() -> None:
        scene = Scene(Fault(kind="NotServed", from_s=2, to_s=9, on="nodes"))
        lines = scene.way.stream("/api/v1/nodes", connect_timeout_s=1, idle_timeout_s=5)
        assert await anext(lines) == b"1"
        await scene.clock.sleep(3)
        assert [line async for line in lines] == []
        with pytest.raises(PermanentError, match="HTTP 404 the server could not find the requested"):
            await scene.lines()
        await scene.clock.sleep(7)
        assert await scene.lines() == [b"1", b"2", b"3"]

    play(story)


def test_watch_that_repeats_shows_each_event_twice() -> None:
    async def story() -> None:
        assert await Scene(now("WatchRepeats")).lines() == [b"1", b"1", b"2", b"2", b"3", b"3"]

    play(story)


def test_watch_that_is_late_keeps_the_order() -> None:
    async def story() -> None:
        scene = Scene(now("WatchLate", seconds=2.0))
        assert await scene.lines() == [b"1", b"2", b"3"]
        assert scene.clock.monotonic() == pytest.approx(6.0)

    play(story)


def test_bookmarks_are_held_back_and_events_are_not() -> None:
    async def story() -> None:
        scene = Scene(now("BookmarksMissing"))
        scene.server.lines = (b'{"type":"BOOKMARK","object":{}}', b'{"type":"ADDED","object":{}}')
        assert await scene.lines() == [b'{"type":"ADDED","object":{}}']
        assert scene.fired[0] == 1, "an event is none that it strikes at"

    play(story)
