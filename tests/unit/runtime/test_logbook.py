"""What the log says of the process itself: enough at three in the morning, and not a line more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from remediator.model.signal import PageReading
from remediator.ports import FeedState, Refusal
from remediator.runtime.logbook import BROKEN_AFTER_S, LOOK_EVERY_S, SAY_EVERY_S
from tests.unit.runtime.fates import Refused
from tests.unit.runtime.rig import Rig, hard, roomy, with_exporter, xid_book

HOUR_S = 3600


class Lines:
    """What was logged, in order."""

    def __init__(self, all_lines: list[Any]) -> None:
        self.all = all_lines

    def of(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.all if each["event"] == event]

    def events(self) -> set[str]:
        return {each["event"] for each in self.all}


@contextmanager
def listening() -> Iterator[Lines]:
    with capture_logs() as captured:
        yield Lines(captured)


@asynccontextmanager
async def alive(rig: Rig, *, leads: bool = True) -> AsyncIterator[Lines]:
    """The whole controller at work, in command or beside it; heard from the moment it has settled in."""
    task = asyncio.ensure_future(rig.controller.run())
    await rig.clock.settle()
    try:
        if leads:
            rig.lease.elected.set()
        await rig.clock.advance(1)
        with listening() as lines:
            yield lines
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def at_work(rig: Rig, *, leads: bool = True) -> AsyncIterator[Lines]:
    """Only the loops that these lines come from: hours of them take no time."""
    rig.logbook.leading = lambda: leads
    rig.scout.own_nodes = lambda: rig.own_nodes
    jobs = [rig.logbook.run(), rig.diagnoses.run(), *([rig.fleet.run()] if leads else [])]
    tasks = [rig.background(job) for job in jobs]
    await rig.clock.advance(1)
    try:
        with listening() as lines:
            yield lines
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def pass_time(rig: Rig, seconds: float) -> None:
    """Time passes, and the watches go on saying that they live."""
    for _ in range(round(seconds / 30)):
        rig.fresh()
        await rig.clock.advance(30)


@pytest.mark.asyncio
@pytest.mark.parametrize("leads", [True, False], ids=["leader", "standby"])
async def test_an_hour_of_idleness_is_twelve_lines(leads):
    """A log that fills by itself is a log that nobody reads; one that is silent may be dead."""
    rig = Rig()
    async with at_work(rig, leads=leads) as lines:
        await pass_time(rig, HOUR_S)

    assert [each["event"] for each in lines.all] == ["watching"] * 12
    assert {each["role"] for each in lines.all} == {"leader" if leads else "standby"}


@pytest.mark.asyncio
async def test_the_five_minute_line_says_what_is_watched():
    """One line has to answer: does it see the cluster, and does it act?"""
    rig = Rig(playbooks=[xid_book(79, name="x"), hard()], policy=with_exporter(), nodes=3, spares=1)
    rig.break_node("gpu-1")
    rig.own_nodes = frozenset({"gpu-1"})
    async with alive(rig) as lines:
        rig.page("gpu-2")
        old = rig.clock.monotonic() - 120
        rig.diagnoses.page_read(PageReading("gpu-3", rig.clock.now() - timedelta(seconds=120), old, ()))
        rig.logbook.say_alive()

    (line,) = lines.of("watching")
    assert (line["nodes"], line["pools"], line["playbooks"]) == (4, 2, 2)
    assert (line["pages_fresh"], line["pages_stale"], line["pages_waiting"]) == (1, 1, 2)
    assert (line["runs"], line["waiting"], line["term"], line["role"]) == (0, 1, 1, "leader")
    assert line["holder"] == "me"
    assert not {"broken", "blind", "lease"} & line.keys()


@pytest.mark.asyncio
async def test_a_pass_that_decided_is_one_line():
    """Counts, and when it looks again; the runs have lines of their own."""
    rig = Rig(policy=roomy(max_concurrent=1))
    rig.break_node("gpu-1", "gpu-2", "gpu-3")
    with listening() as lines:
        await rig.fleet_pass()

    (line,) = lines.of("fleet pass")
    assert (line["granted"], line["waiting"], line["gates"]) == (1, 2, {"ConcurrencyReached": 2})
    assert (line["would_act"], line["reported"], line["not_granted"], line["grants"]) == (0, 0, 0, 1)
    assert line["next_s"] == 1.0


@pytest.mark.asyncio
async def test_unchanged_refusals_are_not_repeated():
    """A pass a second looks at what waits: the log must not say so 86,400 times a day."""
    rig = Rig()
    rig.own_nodes = frozenset({"gpu-1", "gpu-2"})
    rig.break_node("gpu-1")
    async with at_work(rig) as lines:
        await pass_time(rig, 10 * 60)
        assert lines.of("fleet pass") == []
        assert [each["waiting"] for each in lines.of("watching")] == [1, 1]
        rig.break_node("gpu-2")
        await rig.clock.advance(2)
        rig.heal_node("gpu-1", "gpu-2")
        await rig.clock.advance(2)

    waiting = [each["waiting"] for each in lines.of("fleet pass")]
    assert waiting in ([2, 0], [2, 1, 0])  # two nodes heal, in one pass or in two


@pytest.mark.asyncio
async def test_a_pass_says_what_audit_and_orphans_came_to():
    """Neither holds anything back, so nothing else would show them."""
    audit = Rig(playbooks=[hard(mode="Audit")])
    audit.break_node("gpu-1")
    orphan = Rig()
    orphan.break_node("gpu-1")
    orphan.server.fate("SavePolicy", Refused(Refusal.CONFLICT))
    await orphan.fleet_pass()
    with listening() as lines:
        await audit.fleet_pass()
        await orphan.fleet_pass()

    assert [(each["would_act"], each["not_granted"]) for each in lines.of("fleet pass")] == [(1, 0), (0, 1)]


@pytest.mark.asyncio
async def test_a_breaker_that_opens_and_half_opens_is_said():
    """It stops new harm for the whole fleet: nobody should learn that from a missing line."""
    rig = Rig(policy=roomy(breaker=storm()), nodes=8)
    rig.break_node(*(f"gpu-{number}" for number in range(1, 6)))
    with listening() as lines:
        await rig.fleet_pass()
        await rig.fleet_pass()
        rig.heal_node(*(f"gpu-{number}" for number in range(1, 6)))
        rig.clock.stand_still(2 * HOUR_S)
        rig.fresh()
        await rig.fleet_pass()
        await rig.fleet_pass()

    assert [each["breakers"].get("fleet") for each in lines.of("fleet pass")] == ["Open", "HalfOpen"]


def storm() -> Any:
    return roomy().breaker.__class__(count=2)


# -- watches, objects, the Lease


def broken(rig: Rig, error: str = "reset: no route") -> FeedState:
    return FeedState(broken_since=rig.clock.now(), trouble=error)


@pytest.mark.asyncio
async def test_a_broken_watch_is_one_line_and_its_return_another():
    """Six reflectors try again every few seconds for as long as the server is away."""
    rig = Rig()
    async with alive(rig) as lines:
        for kind in ("nodes", "playbooks"):
            rig.feeds[kind] = broken(rig)
        for number in range(12):  # each try fails in another way
            rig.feeds["nodes"] = FeedState(
                broken_since=rig.feeds["nodes"].broken_since, trouble=f"reset: try {number}"
            )
            await rig.clock.advance(LOOK_EVERY_S)
        rig.feeds.clear()
        rig.feeds |= {"nodes": FeedState(), "playbooks": FeedState()}
        await rig.clock.advance(LOOK_EVERY_S)

    (down,) = lines.of("watches broken")
    (up,) = lines.of("watches live again")
    assert (down["kinds"], down["error"]) == (["nodes", "playbooks"], "reset: try 3")
    assert (up["kinds"], up["after_s"]) == (["nodes", "playbooks"], 64)


@pytest.mark.asyncio
async def test_a_watch_that_is_back_in_a_moment_is_not_worth_a_line():
    """A proxy that is restarted resets all of them, and they are back before anybody could read it."""
    rig = Rig()
    async with alive(rig) as lines:
        rig.feeds["nodes"] = broken(rig)
        await rig.clock.advance(BROKEN_AFTER_S - 2)
        rig.feeds["nodes"] = FeedState()
        await rig.clock.advance(60)

    assert lines.all == []


@pytest.mark.asyncio
async def test_the_five_minute_line_names_what_is_broken():
    """Whoever opens the log in the middle of it must not have to find its beginning."""
    rig = Rig()
    rig.lease.last_error = "GET lease: 403 forbidden"
    rig.feeds["resourcepools"] = broken(rig, "refused: 403")
    async with alive(rig, leads=False) as lines:
        await rig.clock.advance(SAY_EVERY_S)

    (line,) = lines.of("watching")
    assert "403" in line["broken"]["resourcepools"]
    assert line["lease"] == "GET lease: 403 forbidden"
    assert "nothing was heard about nodes" in line["blind"]


@pytest.mark.asyncio
async def test_objects_that_can_not_be_read_are_said_on_change():
    """One garbled object is ignored as new content: nobody sees that it counts as it was."""
    rig = Rig()
    async with alive(rig) as lines:
        for undecodable in ({"a": "bad"}, {"a": "bad"}, {"a": "worse"}, {"a": "bad", "b": "bad"}, {}):
            rig.feeds["playbooks"] = FeedState(undecodable=undecodable)
            await rig.clock.advance(LOOK_EVERY_S)

    assert [each["names"] for each in lines.of("objects not readable")] == [["a"], ["a", "b"]]
    assert len(lines.of("objects readable again")) == 1


@pytest.mark.asyncio
async def test_a_cache_that_went_back_in_time_is_said_each_time():
    """It means a restored etcd, or a server that lags: what was decided meanwhile is in doubt."""
    rig = Rig()
    async with alive(rig) as lines:
        for alarms in (0, 1, 1, 3):
            rig.feeds["nodes"] = FeedState(alarms=alarms)
            await rig.clock.advance(LOOK_EVERY_S)

    assert [each["times"] for each in lines.of("cache went back in time")] == [1, 2]


@pytest.mark.asyncio
async def test_a_lease_that_can_not_be_had_is_said_once():
    """A standby without rights on the Lease waits for ever, every two seconds, in silence."""
    rig = Rig()
    async with alive(rig, leads=False) as lines:
        rig.lease.last_error = "403"
        await rig.clock.advance(60)
        rig.lease.last_error = ""
        await rig.clock.advance(60)

    assert [each["error"] for each in lines.of("lease attempt failed")] == ["403"]
    assert len(lines.of("lease attempts work again")) == 1


@pytest.mark.asyncio
async def test_a_lost_leadership_says_why():
    """The process ends by itself: its last lines are all that is left of the reason."""
    rig = Rig()
    async with alive(rig) as lines:
        rig.lease.last_error = "lease remediator/remediator lost: not renewed in 10 s"
        rig.lease.lost.set()
        await rig.clock.advance(1)

    (line,) = lines.of("leadership lost")
    assert "not renewed in 10 s" in line["error"]
    assert lines.of("stopping")[0]["reason"] == "leadership lost"


@pytest.mark.asyncio
async def test_a_lease_that_could_not_be_given_back_is_said():
    """The next leader waits for it to expire: whoever watches the upgrade wonders why."""
    rig = Rig()
    rig.lease.release_error = "PUT lease: no complete reply within 3 s"
    async with alive(rig) as lines:
        rig.controller.stop()
        await rig.clock.advance(1)

    assert [each["error"] for each in lines.of("lease not released")] == [rig.lease.release_error]
    assert lines.of("stopping")[0]["reason"] == "asked to"
