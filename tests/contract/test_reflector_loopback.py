"""The reflector behind real sockets and a server that lies, breaks off or floods, as none does on demand.

Needs no control plane. Pauses are read from a clock that notes them, never measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from remediator.adapters.kube.errors import RETRY_AFTER_S_MAX
from remediator.adapters.kube.listing import ReflectorSettings
from remediator.adapters.kube.reflector import Ending
from remediator.model.views import NodeView
from remediator.runtime.due import DueHeap
from tests.contract.live import until
from tests.contract.loopback import (
    CHUNKED,
    LAST_CHUNK,
    Received,
    Script,
    always,
    answer,
    chunk,
    connect,
    serve,
    then_close,
    then_reset,
)
from tests.contract.transport_calls import REAL, hang
from tests.contract.watched import Longest, NotingClock, Watched, watched_nodes
from tests.unit.adapters.kube.kubeconfigs import kubeconfig
from tests.unit.adapters.kube.scripted import a_bookmark, a_node, a_page, an_event

pytestmark = pytest.mark.asyncio
HASTY = ReflectorSettings(backoff_first_s=0.01, backoff_max_s=0.02)
UNAVAILABLE = answer(503, b"the server is currently unable to do it")


class Server:
    """Answers lists and watches by scripts, in order; the last one of each answers for ever."""

    def __init__(self, *, lists: tuple[Script, ...] = (), watches: tuple[Script, ...]) -> None:
        self._scripts = {"list": list(lists), "watch": list(watches)}
        self.asked: list[str] = []

    async def __call__(self, received: Received, writer: asyncio.StreamWriter) -> None:
        kind = "watch" if "watch=1" in received.target else "list"
        self.asked.append(received.target.partition("?")[2])
        scripts = self._scripts[kind]
        await (scripts.pop(0) if len(scripts) > 1 else scripts[0])(received, writer)

    @property
    def watches(self) -> list[str]:
        return [each for each in self.asked if "watch=1" in each]


def page(version: int, *items: object) -> Script:
    return always(answer(200, a_page(version, *items).body))


def lines(*events: bytes) -> bytes:
    # An empty chunk would be the last one.
    return CHUNKED + (chunk(b"".join(each + b"\n" for each in events)) if events else b"")


def lives(*events: bytes) -> Script:
    """A watch that says this and then goes on without a word."""

    async def script(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(lines(*events))
        await hang(received, writer)

    return script


def added(name: str, version: int, **spec: object) -> bytes:
    return an_event("ADDED", a_node(name, version, **spec))


@asynccontextmanager
async def following(tmp_path: Path, server: Server, **more: Any) -> AsyncIterator[Watched[NodeView]]:
    """A reflector that runs against the server, without waiting for anything."""
    async with serve(server) as served, connect(kubeconfig(tmp_path, served.url)) as transport:
        watched = watched_nodes(transport, "", **{"settings": HASTY, "clock": NotingClock(), **more})
        async with watched.running(at_once=True):
            yield watched


HALF = lines(added("a", 4), added("ghost", 5))
STATUS = b'{"kind":"Status","code":422,"reason":"Invalid","message":"sendInitialEvents is forbidden"}'


@pytest.mark.parametrize(
    ("script", "ending", "asked_again"),
    [
        (lives(added("a", 4), added("ghost", 5)), Ending.SILENT, True),
        (then_close(HALF + LAST_CHUNK), Ending.NO_WATCH_LIST, True),
        (then_reset(HALF), Ending.RESET, True),
        (then_close(HALF), Ending.RESET, True),
        (lives(added("a", 4), added("ghost", 5), a_bookmark(5)), Ending.NO_WATCH_LIST, False),
        (always(answer(422, STATUS)), Ending.NO_WATCH_LIST, False),
        (always(answer(400, b"unknown parameter")), Ending.NO_WATCH_LIST, False),
    ],
    ids=[
        "silence",
        "end",
        "reset",
        "closed in chunk",
        "bookmark before its end",
        "refused",
        "not understood",
    ],
)
async def test_a_watch_list_that_does_not_end_is_replaced_by_pages(
    tmp_path: Path, script: Script, ending: Ending, asked_again: bool
):
    """Half a state is no state: were it taken over, all that is missing would count as deleted.

    What broke off is tried again after a list; a server that can't do it is not asked again.
    """
    gone = lives(added("b", 7), an_event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"}))
    server = Server(lists=(page(6, a_node("a", 4)),), watches=(script, gone, lives()))
    idle_s = 0.5 if ending is Ending.SILENT else 70.0
    settings = ReflectorSettings(idle_s=idle_s, backoff_first_s=0.01, backoff_max_s=0.02)
    async with following(tmp_path, server, settings=settings) as watched:
        await until(lambda: len(server.watches) > 2, "watch after the second list")

    assert watched.news()[:2] == [("a", "added"), ("b", "added")]
    assert "ghost" not in {key for key, _ in watched.news()}
    assert [("sendInitialEvents" in each) for each in server.watches[:3]] == [True, False, asked_again]
    assert "resourceVersion=6" in server.watches[1]
    assert watched.reflector.endings[ending] >= 1


@pytest.mark.parametrize(
    ("rest", "broken"),
    [(b"", then_close), (b"", then_reset), (LAST_CHUNK, then_close)],
    ids=["fin", "rst", "end of the body"],
)
async def test_a_line_that_is_cut_in_the_middle_comes_again(
    tmp_path: Path, rest: bytes, broken: Callable[[bytes], Script]
):
    """The half of an event is no event, and the watch goes on behind the last whole one."""
    event = added("b", 7)
    seen = asyncio.Event()

    async def cut(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(lines(added("a", 6)))
        await seen.wait()  # a reset may overtake what was sent before it
        await broken(chunk(event[: len(event) // 2]) + rest)(received, writer)

    server = Server(lists=(page(5),), watches=(cut, lives(event)))
    async with following(tmp_path, server, watch_list=False) as watched:
        await until(lambda: "a" in watched.store, "whole event")
        seen.set()
        await until(lambda: "b" in watched.store, "event that was cut")

    assert watched.news() == [("a", "added"), ("b", "added")]
    assert ["resourceVersion=5" in server.watches[0], "resourceVersion=6" in server.watches[1]] == [True] * 2
    assert (watched.reflector.relists, watched.reflector.endings[Ending.RESET]) == (1, 1)
    assert set(watched.reflector.undecodable) == set()


EXPIRED = b'{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version"}'


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        (lives(added("b", 7), added("c", 8)[:40]), Ending.GARBLED),
        (lives(added("b", 7), b'{"type":"RENAMED","object":{}}'), Ending.GARBLED),
        (lives(added("b", 7), b'{"type":"ADDED","object":{"a":"\xff"}}'), Ending.GARBLED),
        (always(answer(410, EXPIRED)), Ending.EXPIRED),
        (lives(an_event("ERROR", {"kind": "Status", "code": 410})), Ending.EXPIRED),
        (lives(added("b", 7), an_event("MODIFIED", a_node("b", 6))), Ending.BACKWARDS),
    ],
    ids=["half an event", "unknown type", "no UTF-8", "status 410", "event 410", "object goes back"],
)
async def test_a_watch_that_can_not_be_trusted_ends_in_a_list_and_its_difference(
    tmp_path: Path, script: Script, ending: Ending
):
    """An event may be lost: the list says which one, as if it had come by the watch."""
    first = page(5, a_node("a", 1), a_node("gone", 2), a_node("same", 3))
    second = page(9, a_node("a", 8, unschedulable=True), a_node("b", 7), a_node("same", 3))
    server = Server(lists=(first, second), watches=(script, lives()))
    async with following(tmp_path, server, watch_list=False) as watched:
        await until(lambda: watched.reflector.relists == 2, "second list")
        await until(lambda: len(server.watches) == 2, "watch from the second list")

    assert sorted(watched.news()[3:]) == [("a", "changed"), ("b", "added"), ("gone", "deleted")]
    assert "resourceVersion=9" in server.watches[1]
    assert watched.reflector.endings[ending] == 1
    assert watched.reflector.alarms == (ending is Ending.BACKWARDS)


@pytest.mark.parametrize(
    ("healthy_after_s", "next_s"), [(0.05, 0.01), (3600.0, 0.08)], ids=["healthy", "not yet healthy"]
)
async def test_backoff_grows_and_is_forgotten_only_after_health(
    tmp_path: Path, healthy_after_s: float, next_s: float
):
    """A server that falls over as soon as it has answered once must not be asked at full speed again."""
    enough = asyncio.Event()

    async def falls_over(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(lines(added("a", 6)))
        await writer.drain()
        await enough.wait()
        await then_reset(b"")(received, writer)

    refuses = always(UNAVAILABLE)
    server = Server(lists=(refuses, refuses, refuses, page(5)), watches=(falls_over, lives()))
    settings = ReflectorSettings(backoff_first_s=0.01, backoff_max_s=0.3, healthy_after_s=healthy_after_s)
    clock = NotingClock()
    dice = {"rng": Longest(1), "clock": clock}
    async with following(tmp_path, server, watch_list=False, settings=settings, **dice) as watched:
        await until(lambda: "a" in watched.store, "watch that lives")
        await REAL.sleep(2 * 0.05)  # the watch is at least as old as it must be
        enough.set()
        await until(lambda: len(server.watches) == 2, "next watch")

    assert clock.pauses == pytest.approx([0.01, 0.02, 0.04, next_s])
    assert watched.reflector.relists == 1


async def test_backoff_ends_at_its_limit_and_has_jitter(tmp_path: Path):
    """Many controllers that lost the same server must not come back at the same moment."""
    server = Server(lists=(always(UNAVAILABLE),), watches=(lives(),))
    settings = ReflectorSettings(backoff_first_s=0.01, backoff_max_s=0.04)

    async def six_pauses(rng: Random) -> list[float]:
        clock = NotingClock()
        given = {"watch_list": False, "settings": settings, "clock": clock, "rng": rng}
        async with following(tmp_path, server, **given):
            await until(lambda: len(clock.pauses) >= 6, "six failures")
        return clock.pauses[:6]

    longest, drawn = await six_pauses(Longest(1)), await six_pauses(Random(1))

    assert longest == pytest.approx([0.01, 0.02, 0.04, 0.04, 0.04, 0.04])
    assert all(0 <= pause <= limit for pause, limit in zip(drawn, longest, strict=True))
    assert len(set(drawn)) == 6


BUSY = {"kind": "Status", "code": 429, "reason": "TooManyRequests", "details": {"retryAfterSeconds": 1}}


@pytest.mark.parametrize(
    ("lists", "watches", "pause_s"),
    [
        ((always(answer(429, Retry_After="1")),), (lives(),), 1.0),
        ((always(answer(503, Retry_After="1")),), (lives(),), 1.0),
        ((page(5),), (always(answer(429, Retry_After="1")),), 1.0),
        ((page(5),), (lives(an_event("ERROR", BUSY)),), 1.0),
        ((always(answer(429, Retry_After="86400")),), (lives(),), RETRY_AFTER_S_MAX),
    ],
    ids=["list 429", "list 503", "watch 429", "error event", "a day"],
)
async def test_the_servers_own_time_to_come_back_is_heeded(
    tmp_path: Path, lists: tuple[Script, ...], watches: tuple[Script, ...], pause_s: float
):
    """It knows its load; but no header may send a watch to sleep for a day."""
    clock = NotingClock()
    server = Server(lists=lists, watches=watches)
    async with following(tmp_path, server, watch_list=False, clock=clock):
        await until(lambda: clock.pauses, "pause")

    assert clock.pauses[0] == pause_s


FLOOD = 20_000
NAMES = 20


async def test_a_flood_leaves_others_their_turn_and_fills_no_queue(tmp_path: Path):
    """The Lease is renewed by the same loop; and what waits is names, however often each of them changed."""
    events = [
        an_event("MODIFIED", a_node(f"n-{i % NAMES}", 100 + i, unschedulable=bool(i // NAMES % 2)))
        for i in range(FLOOD)
    ]
    start = page(50, *(a_node(f"n-{i}", 1 + i) for i in range(NAMES)))
    server = Server(lists=(start,), watches=(lives(*events),))
    due = DueHeap(REAL)
    turns: list[int] = []
    waiting: list[tuple[int, int]] = []
    async with following(tmp_path, server, watch_list=False) as watched:
        watched.store.subscribe(lambda key, *_: due.add(key))
        while watched.reflector.events < FLOOD:
            turns.append(watched.reflector.events)
            waiting.append((len(due), due.entries))
            await REAL.sleep(0)

    turns.append(FLOOD)
    assert max(after - before for before, after in pairwise(turns)) <= HASTY.burst_events
    assert max(names for names, _ in waiting) <= NAMES
    assert max(entries for _, entries in waiting) <= NAMES
    assert {await due.take() for _ in range(NAMES)} == {f"n-{i}" for i in range(NAMES)}
    assert len(due) == 0
    assert watched.store.version == 99 + FLOOD


async def test_a_long_list_is_read_and_told_in_slices(tmp_path: Path):
    """After an outage everything may be different, and the loop belongs to others too meanwhile."""
    many, slice_items = 3_000, 50
    server = Server(
        lists=(page(many, *(a_node(f"n-{i:04}", 1 + i) for i in range(many))),), watches=(lives(),)
    )
    settings = ReflectorSettings(page_items=slice_items, slice_items=slice_items)
    turns: list[int] = []
    async with following(tmp_path, server, watch_list=False, settings=settings) as watched:
        while len(watched.told) < many:
            turns.append(len(watched.told))
            await REAL.sleep(0)

    turns.append(many)
    assert max(after - before for before, after in pairwise(turns)) <= slice_items
    assert {len(shown) for shown in watched.shown} == {many}
