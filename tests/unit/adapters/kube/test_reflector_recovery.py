"""Every way in which a watch can break, what is asked for next, and how soon."""

from __future__ import annotations

import itertools

import pytest

from remediator.adapters.kube.reflector import Ending
from remediator.errors import PermanentError, TransientError
from remediator.ports import Response
from tests.unit.adapters.kube.reflected_world import EXPIRED, World, initial
from tests.unit.adapters.kube.scripted import Asked, End, Pause, Silence, a_bookmark, a_node, a_page, an_event

pytestmark = pytest.mark.asyncio


async def test_relist_tells_the_difference_after_the_swap():
    """What happened unseen is told as if it had been seen, and each listener sees the new whole."""
    world = World()
    world.serve(
        *initial(5, a_node("gone", 1), a_node("same", 2), a_node("changed", 3)),
        an_event("ERROR", {"code": 410, "reason": "Expired"}),
    )
    world.serve(*initial(9, a_node("same", 8), a_node("changed", 7, unschedulable=True), a_node("new", 6)))
    seen: list[set[str]] = []

    async with world.running():
        world.take_told()
        world.store.subscribe(lambda *_: seen.append(set(world.store)))
        await world.clock.advance(1.0)

    assert world.told == [("updated", "changed"), ("deleted", "gone"), ("added", "new")]
    assert all(keys == {"same", "changed", "new"} for keys in seen)
    assert world.store.version_of("same") == 8
    assert (world.reflector.relists, world.reflector.alarms) == (2, 0)


@pytest.mark.parametrize(
    ("item", "ending"),
    [
        (an_event("ERROR", EXPIRED), Ending.EXPIRED),
        (an_event("ERROR", {**EXPIRED, "code": None, "reason": "Gone"}), Ending.EXPIRED),
        (PermanentError("gone", status=410), Ending.EXPIRED),
        (b'{"type":"ADDED","obj', Ending.GARBLED),
        (an_event("ADDED", a_node("c", 9, x="?")).replace(b"?", b"\xff"), Ending.GARBLED),
        (an_event("MODIFIED", a_node("a", 1)), Ending.BACKWARDS),
        (an_event("DELETED", a_node("a", 1)), Ending.BACKWARDS),
        (Silence(), Ending.SILENT),
    ],
    ids=["410", "gone", "http-410", "cut", "utf8", "older", "older-delete", "silent"],
)
async def test_lost_certainty_leads_to_a_new_list(item, ending):
    """After each of these an event may be missing, so only a complete state helps."""
    world = World()
    world.serve(*initial(5, a_node("a", 2), a_node("b", 3)), item)
    world.serve(*initial(9, a_node("a", 8)))

    async with world.running():
        await world.clock.advance(72.0)

        assert world.reflector.endings[ending] == 1
        assert world.reflector.relists == 2
        assert sorted(world.store) == ["a"]
        assert world.told[-1] == ("deleted", "b")
        assert world.reflector.alarms == (1 if ending is Ending.BACKWARDS else 0)

    assert "sendInitialEvents" in world.server.watches[1].query


@pytest.mark.parametrize(
    ("item", "ending"),
    [
        (End(), Ending.CLEAN),
        (TransientError("reset"), Ending.RESET),
        (an_event("ERROR", {"code": 500, "reason": "InternalError"}), Ending.RESET),
        (PermanentError("token", status=401), Ending.RESET),
    ],
    ids=["clean", "reset", "error-500", "401"],
)
async def test_a_broken_connection_goes_on_where_it_stopped(item, ending):
    """A list of everything at each reconnect would be the storm that follows the outage."""
    world = World()
    world.serve(*initial(5, a_node("a", 2)), a_bookmark(8), item)
    world.serve(an_event("MODIFIED", a_node("a", 9, unschedulable=True)))

    async with world.running():
        world.take_told()
        await world.clock.advance(1.0)

        assert world.reflector.endings[ending] == 1
        assert world.server.watches[1].query["resourceVersion"] == "8"
        assert world.take_told() == [("updated", "a")]
        assert (world.reflector.relists, world.store.synced) == (1, True)


async def test_an_outage_while_listing_again_does_not_resume_the_old_watch():
    """The old version expired; going back to it after a failed list would lose what lay between."""
    world = World()
    world.serve(*initial(5, a_node("a", 2)), an_event("ERROR", EXPIRED))
    world.serve(TransientError("refused"))
    replies = iter([Response(503, {}, b""), a_page(9, a_node("b", 8))])
    world.server.answer = lambda asked: next(replies)

    async with world.running():
        await world.clock.advance(10.0)

        assert sorted(world.store) == ["b"]
        assert [each.query.get("resourceVersion") for each in world.server.watches] == [None, None, "9"]


async def test_a_restored_server_raises_the_alarm_and_is_believed():
    """After etcd was restored from a backup, versions go backwards; the server is still the truth."""
    world = World()
    world.serve(*initial(50, a_node("a", 40)), an_event("ERROR", EXPIRED))
    world.serve(*initial(30, a_node("a", 20, unschedulable=True)))

    async with world.running():
        await world.clock.advance(1.0)

        assert (world.reflector.alarms, world.store.version, world.store.version_of("a")) == (1, 30, 20)
        assert world.store.views()["a"].unschedulable


@pytest.mark.parametrize("status", [403, 404])
async def test_a_refusal_is_unknown_and_never_a_deletion(status):
    """`kubectl delete crd` must not look like every quarantine having been lifted by hand."""
    world = World()
    world.serve(*initial(5, a_node("a", 2)), End())
    world.serve(PermanentError("WATCH /api/v1/nodes: refused", status=status))
    world.serve(PermanentError("WATCH /api/v1/nodes: refused", status=status))
    world.serve(*initial(9, a_node("a", 8)))

    async with world.running():
        world.take_told()
        await world.clock.advance(0.8)
        assert (world.store.synced, sorted(world.store), world.told) == (False, ["a"], [])
        assert world.reflector.problem == "WATCH /api/v1/nodes: refused"

        await world.clock.advance(61.0)
        recovered = world.reflector
        assert (recovered.store.synced, recovered.problem, world.told) == (True, None, [])

    assert len(world.server.watches) == 4  # not 47 in two seconds


async def test_refusal_of_a_moment_is_over_in_a_moment():
    """An API server that has just started answers 403 until it knows its roles; nobody acts meanwhile."""
    world = World()
    world.serve(*initial(5, a_node("a", 2)), End())
    world.serve(PermanentError("WATCH /api/v1/nodes: forbidden", status=403))
    world.serve(*initial(9, a_node("a", 8)))

    async with world.running():
        await world.clock.advance(3.0)

        assert world.store.synced


async def test_refusal_that_lasts_is_asked_about_ever_more_rarely():
    """A permission that is missing for days must not cost the server a request a second."""
    world = World(watch_list=False)
    times: list[float] = []

    def answer(asked: Asked) -> Response:
        times.append(world.clock.monotonic())
        return Response(403, {}, b"")

    world.server.answer = answer
    async with world.running():
        await world.clock.advance(600)

    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses[0] <= 1.0
    assert all(15.0 <= pause <= 30.0 for pause in pauses[6:])
    assert len(pauses) < 50


async def test_backoff_grows_with_jitter_to_its_limit():
    """A server in trouble must not be asked 47 times in two seconds by each of us."""
    world = World(watch_list=False)
    times: list[float] = []

    def answer(asked: Asked) -> Response:
        times.append(world.clock.monotonic())
        return Response(503, {}, b"")

    world.server.answer = answer
    async with world.running():
        await world.clock.advance(600)

    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert all(pause <= min(30.0, 0.8 * 2**n) for n, pause in enumerate(pauses))
    assert len(set(pauses)) == len(pauses)
    assert 600 / 30 < len(times) < 120
    assert max(pauses) > 15


@pytest.mark.parametrize(
    ("lived_s", "item", "longest_s"),
    [
        (61, TransientError("reset"), 0.8),
        (30, TransientError("reset"), 30.0),
        (61, End(), 0.0),
        (30, End(), 0.8),
        (1, End(), 30.0),
    ],
    ids=["healthy-reset", "short-reset", "healthy-end", "proxy-end", "brief-end"],
)
async def test_backoff_is_forgotten_only_after_health(lived_s, item, longest_s):
    """A server that accepts and breaks off at once is still in trouble; a proxy's cut is none."""
    world = World()
    world.serve(*initial(5, a_node("a", 2)), Pause(lived_s), item)
    for _ in range(12):
        world.serve(a_bookmark(6), Pause(lived_s), item)

    async with world.running():
        await world.clock.advance(12 * (lived_s + 30))

    starts = [each.at for each in world.server.watches[:13]]
    pauses = [after - before - lived_s for before, after in itertools.pairwise(starts)]
    assert max(pauses) <= longest_s + 1e-6
    assert longest_s <= 0.8 or max(pauses) > 4
    assert world.reflector.relists == 1


async def test_watches_cut_before_any_proof_end_in_a_list():
    """A proxy that cuts each watch before its bookmark must not leave a quiet kind in doubt for ever."""
    world = World()
    world.serve(*initial(5, a_node("a", 2)), Pause(50), End())
    world.serve(Pause(50), End())
    world.serve(*initial(5, a_node("a", 2)))

    async with world.running():
        await world.clock.advance(130)

        cut, listed = world.server.watches[1:3]
        assert cut.query["resourceVersion"] == "5"  # one cut alone is no reason to read everything
        assert listed.query["sendInitialEvents"] == "true"
        assert world.reflector.relists == 2
        assert world.store.age_s() == pytest.approx(130 - listed.at + world.server.watches[0].at)


async def test_retry_after_is_heeded():
    """The server knows better than we when it can bear us again."""
    world = World(watch_list=False)
    times: list[float] = []

    def answer(asked: Asked) -> Response:
        times.append(world.clock.monotonic())
        return Response(429, {"retry-after": "40"}, b"")

    world.server.answer = answer
    async with world.running():
        await world.clock.advance(100)

    assert [after - before for before, after in itertools.pairwise(times)] == [40.0, 40.0]
