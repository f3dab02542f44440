"""What a reflector says of itself: since when its watch does not live, and why."""

from __future__ import annotations

from datetime import timedelta

import pytest

from remediator.errors import PermanentError, TransientError
from remediator.ports import FeedState
from tests.unit.adapters.kube.manual_clock import START
from tests.unit.adapters.kube.reflected_world import World, initial
from tests.unit.adapters.kube.scripted import Pause, Silence, a_bookmark, a_node, an_event

pytestmark = pytest.mark.asyncio
BEGAN = START + timedelta(seconds=1000)  # what a manual clock begins with


async def test_a_watch_that_is_opened_again_was_never_broken():
    """Proxies close watches all day long: whoever calls that broken cries wolf."""
    world = World()
    world.serve(*initial(5, a_node("a", 2)), Pause(30), TransientError("reset"))
    world.serve(a_bookmark(6), Silence())

    async with world.running():
        for _ in range(35):
            await world.clock.advance(1)
            assert world.reflector.state().broken_since is None

    assert len(world.server.watches) == 2


async def test_a_watch_that_never_came_to_life_is_broken_from_the_first_try():
    """The moment is what people compare with their own changes; the newest error is what they read."""
    world = World()
    world.serve(TransientError("no route"))
    world.server.answer = lambda _: TransientError("still no route")  # it lists in pages then

    async with world.running():
        first = world.reflector.state()
        await world.clock.advance(5)
        later = world.reflector.state()

    assert (first.broken_since, first.trouble) == (BEGAN, "reset: no route")
    assert (later.broken_since, later.trouble) == (BEGAN, "reset: still no route")


async def test_a_quiet_watch_that_could_be_continued_is_not_broken():
    """Of a kind that nobody changes the first word is a bookmark, a minute later."""
    world = World()
    world.serve(*initial(5, a_node("a", 2)), TransientError("reset"))
    world.serve(TransientError("reset"))  # before it said anything
    world.serve(Silence())

    async with world.running():
        await world.clock.advance(5)
        tried = world.reflector.state()
        await world.clock.advance(10)
        quiet = world.reflector.state()

    assert len(world.server.watches) == 3
    assert (tried.broken_since is not None, tried.trouble) == (True, "reset: reset")
    assert (quiet.broken_since, quiet.trouble) == (None, "")


async def test_a_refused_watch_is_broken_at_once_and_heals():
    """A right that was taken away lasts until a person gives it back."""
    world = World()
    world.serve(*initial(5, a_node("a", 2)), PermanentError("nodes is forbidden", status=403))
    world.serve(*initial(9, a_node("a", 8)), Silence())

    async with world.running():
        state = world.reflector.state()
        assert (state.broken_since, state.trouble) == (BEGAN, "refused: nodes is forbidden")

        await world.clock.advance(2)
        healed = world.reflector.state()
        assert (healed.broken_since, healed.trouble) == (None, "")


async def test_a_state_is_of_its_moment():
    """What is compared with the next one must not change meanwhile."""
    world = World()
    stream = world.serve(*initial(5, a_node("a", 2), a_node("b", 3)), Pause(1))
    bad = a_node("a", 7)
    bad["status"] = "nonsense"
    stream.push(an_event("MODIFIED", bad), Silence())

    async with world.running():
        before = world.reflector.state()
        await world.clock.advance(1.5)
        after = world.reflector.state()

    assert before == FeedState(events=2, relists=1)
    assert (list(after.undecodable), after.events, after.alarms) == (["a"], 3, 0)
