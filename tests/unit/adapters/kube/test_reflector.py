"""What the cache says of a list, of a watch that works, and when its listeners hear of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from remediator.adapters.kube.listing import ReflectorSettings, consistent_list
from remediator.errors import PermanentError, TransientError
from remediator.ports import Response
from tests.unit.adapters.kube.manual_clock import ManualClock
from tests.unit.adapters.kube.reflected_world import DECODER, EXPIRED, PATH, World, initial, pages
from tests.unit.adapters.kube.scripted import (
    End,
    ScriptedTransport,
    Silence,
    a_bookmark,
    a_node,
    a_page,
    an_event,
)

pytestmark = pytest.mark.asyncio


async def test_watch_list_takes_the_initial_state_over_at_its_end():
    """Half a state is not a state: nothing may be decided on it."""
    world = World()
    stream = world.serve(an_event("ADDED", a_node("b", 3)), an_event("ADDED", a_node("a", 2)))

    async with world.running():
        assert (world.store.synced, len(world.store), world.told) == (False, 0, [])
        stream.push(a_bookmark(5, initial_end=True))
        await world.clock.settle()

        assert world.store.synced
        assert world.take_told() == [("added", "a"), ("added", "b")]
        assert world.store.version == 5
        stream.push(
            an_event("MODIFIED", a_node("a", 6, unschedulable=True)), an_event("DELETED", a_node("b", 7))
        )
        await world.clock.settle()
        assert world.take_told() == [("updated", "a"), ("deleted", "b")]

    query = world.server.watches[0].query
    assert (query["sendInitialEvents"], query["resourceVersionMatch"]) == ("true", "NotOlderThan")
    assert "resourceVersion" not in query
    assert query["allowWatchBookmarks"] == "true"
    assert world.server.lists == []


async def test_watch_list_applies_changes_that_come_before_its_end():
    """The server mixes them in while it is still sending."""
    world = World()
    world.serve(
        an_event("ADDED", a_node("a", 2)),
        an_event("ADDED", a_node("b", 3)),
        an_event("MODIFIED", a_node("a", 6, unschedulable=True)),
        an_event("DELETED", a_node("b", 7)),
        a_bookmark(7, initial_end=True),
    )

    async with world.running():
        assert world.take_told() == [("added", "a")]
        assert world.store.views()["a"].unschedulable


@pytest.mark.parametrize("status", [400, 422])
async def test_pages_are_listed_where_the_server_refuses_watch_list(status):
    """Older servers do not have it, and must work all the same."""
    world = World()
    world.serve(PermanentError("sendInitialEvents is forbidden", status=status))
    world.server.answer = pages(a_page(4, a_node("a", 2), token="next"), a_page(4, a_node("b", 3)))
    world.serve(an_event("MODIFIED", a_node("a", 5, unschedulable=True)), Silence())

    async with world.running():
        assert world.take_told() == [("added", "a"), ("added", "b"), ("updated", "a")]

        await world.clock.advance(120)  # the silence ends in a new list, and again no watch-list

    assert [each.query.get("continue") for each in world.server.lists[:2]] == [None, "next"]
    assert {each.query["limit"] for each in world.server.lists} == {"500"}
    assert all("resourceVersion" not in each.query for each in world.server.lists)
    assert world.server.watches[1].query["resourceVersion"] == "4"
    assert [("sendInitialEvents" in each.query) for each in world.server.watches[1:]] == [False] * (
        len(world.server.watches) - 1
    )


@pytest.mark.parametrize(
    "items",
    [(a_bookmark(9),), (an_event("ADDED", a_node("x", 3)), End()), (TransientError("reset"),)],
    ids=["bookmark", "end", "reset"],
)
async def test_pages_are_listed_when_the_initial_events_do_not_end(items):
    """A server that ignores sendInitialEvents never sends the end mark."""
    world = World()
    world.serve(*items)
    world.server.answer = pages(a_page(4, a_node("a", 2)))

    async with world.running():
        await world.clock.advance(1.0)

        assert world.store.synced
        assert world.take_told() == [("added", "a")]


async def test_stale_and_equal_versions_are_dropped():
    """A replay must neither wake a pass nor bring a deleted node back to life."""
    world = World()
    stream = world.serve(*initial(5, a_node("a", 2), a_node("b", 3)), an_event("DELETED", a_node("b", 6)))

    async with world.running():
        world.take_told()
        stream.push(
            an_event("MODIFIED", a_node("a", 2, unschedulable=True)),
            an_event("ADDED", a_node("b", 3)),
            an_event("DELETED", a_node("b", 6)),
        )
        await world.clock.settle()

        assert world.told == []
        assert sorted(world.store) == ["a"]
        assert (world.reflector.stale, world.reflector.alarms) == (3, 0)


async def test_heartbeats_tell_nobody_and_prove_freshness():
    """Most events of a large cluster are these."""
    world = World()
    stream = world.serve(*initial(5, a_node("a", 2)))

    async with world.running():
        world.take_told()
        await world.clock.advance(30)
        stream.push(an_event("MODIFIED", a_node("a", 6)))
        await world.clock.settle()

        assert world.told == []
        assert world.store.views()["a"].resource_version == "6"
        assert world.store.age_s() == 0.0


async def test_bookmarks_prove_freshness_and_move_the_version():
    """A quiet kind would otherwise look dead, and its version would expire."""
    world = World()
    stream = world.serve(*initial(5, a_node("a", 2)))

    async with world.running():
        await world.clock.advance(59)
        assert world.store.age_s() == 59.0
        stream.push(a_bookmark(77))
        await world.clock.settle()

        assert (world.store.age_s(), world.store.version) == (0.0, 77)


async def test_an_undecodable_object_stops_nobody_else():
    """One bad playbook must not blind us for the others; its last good version stays in force."""
    world = World()
    odd = a_node("a", 6, conditions="none")
    stream = world.serve(*initial(5, a_node("a", 2), a_node("b", 3)))

    async with world.running():
        world.take_told()
        stream.push(an_event("MODIFIED", odd), an_event("MODIFIED", a_node("b", 7, unschedulable=True)))
        await world.clock.settle()
        assert world.take_told() == [("updated", "b")]
        assert world.store.views()["a"].resource_version == "2"
        assert "conditions" in world.reflector.undecodable["a"]

        stream.push(an_event("ERROR", EXPIRED))
        world.serve(*initial(9, odd, a_node("b", 7, unschedulable=True)))
        await world.clock.advance(1.0)
        assert (world.take_told(), sorted(world.store)) == ([], ["a", "b"])
        assert list(world.reflector.undecodable) == ["a"]


async def test_an_undecodable_object_is_good_again_or_gone():
    """Its report ends with its reason."""
    world = World()
    odd = {"conditions": "none"}
    stream = world.serve(*initial(5, a_node("a", 2, **odd), a_node("b", 3, **odd)))

    async with world.running():
        assert sorted(world.reflector.undecodable) == ["a", "b"]
        stream.push(an_event("MODIFIED", a_node("a", 6)), an_event("DELETED", a_node("b", 7, **odd)))
        await world.clock.settle()

        assert (dict(world.reflector.undecodable), world.told) == ({}, [("added", "a")])


async def test_a_flood_lets_other_tasks_run():
    """A full socket buffer is no reason to miss the lease's deadline."""
    world = World()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await world.clock.sleep(0)

    stream = world.serve(*initial(1, a_node("a", 1)))
    async with world.running():
        stream.push(*(an_event("MODIFIED", a_node("a", 2 + n)) for n in range(640)))
        counter = asyncio.create_task(count())
        while world.store.version < 641:
            await world.clock.sleep(0)
        counter.cancel()

    assert turns >= 10


async def test_cancelling_closes_the_watch():
    """A pod watch ends with its run, and its connection with it."""
    world = World()
    stream = world.serve(*initial(5, a_node("a", 2)))

    async with world.running():
        assert stream.open

    assert not stream.open


async def test_cancelling_in_the_middle_of_the_news_tells_the_rest():
    """The store has changed already: what is not told now is never told."""
    world = World()
    world.reflector._settings = ReflectorSettings(page_items=2)
    world.serve(*initial(99, *(a_node(f"n{n}", n) for n in range(1, 10))))
    task = asyncio.create_task(world.reflector.run())
    while not world.told:
        await world.clock.sleep(0)

    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    assert len(world.told) == 9


async def test_the_watch_is_opened_again_before_a_token_grows_old():
    """The server lets a watch outlive the token it began with."""
    world = World()

    async with world.running():
        pass

    assert 300 <= int(world.server.watches[0].query["timeoutSeconds"]) <= 600


async def test_consistent_list_reads_all_pages_or_nothing():
    """A node counts as empty only by one complete list."""
    clock = ManualClock()
    server = ScriptedTransport(clock)
    server.answer = pages(a_page(4, a_node("a", 2), token="t"), a_page(4, a_node("b", 3)))

    listing = await consistent_list(server, PATH, DECODER, clock=clock, query={"fieldSelector": "x=y"})

    assert (sorted(listing.views), listing.version) == (["a", "b"], 4)
    assert [each.query["fieldSelector"] for each in server.asked] == ["x=y", "x=y"]
    for broken in (Response(410, {}, b""), Response(500, {}, b""), Response(200, {}, b"{")):
        server.answer = pages(a_page(4, a_node("a", 2), token="t"), broken)
        with pytest.raises(TransientError):
            await consistent_list(server, PATH, DECODER, clock=clock)
    server.answer = pages(a_page(4, a_node("a", 2), token="for ever"))
    with pytest.raises(PermanentError, match="more than 20 objects"):
        await consistent_list(
            server, PATH, DECODER, clock=clock, settings=ReflectorSettings(page_items=10, pages_max=2)
        )
