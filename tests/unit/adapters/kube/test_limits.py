"""The client-side limiter: order, bounds, and nothing lost when a waiter gives up."""

from __future__ import annotations

import asyncio

import pytest

from remediator.adapters.kube.errors import NotSentError
from remediator.adapters.kube.limits import Limiter, LimitSettings, Rate
from remediator.ports import Lane
from tests.unit.adapters.kube.manual_clock import ManualClock

pytestmark = pytest.mark.asyncio

ONE_A_SECOND = LimitSettings(urgent=Rate(1, 1), shared=Rate(1, 1), waiting_max=3)


class CancellingClock(ManualClock):
    """Cancels a task between the end of a sleep and the moment its turn wakes it."""

    victim: asyncio.Task[None] | None = None

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        if self.victim is not None:
            asyncio.get_running_loop().call_soon(self.victim.cancel)


class Crowd:
    """Starts requests and notes in which order they were let through."""

    def __init__(self, settings: LimitSettings, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.limiter = Limiter(settings, clock=self.clock)
        self.through: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def send(self, name: str, lane: Lane) -> None:
        async def go() -> None:
            await self.limiter.acquire(lane)
            self.through.append(name)

        self.tasks.append(asyncio.create_task(go()))


async def test_limiter_lets_the_burst_through_then_keeps_the_rate():
    """The burst serves a storm's first seconds; the rate protects the server after it."""
    crowd = Crowd(LimitSettings(shared=Rate(50, 100)))
    for i in range(200):
        crowd.send(str(i), Lane.NORMAL)
    await crowd.clock.settle()
    at_once = len(crowd.through)
    await crowd.clock.advance(1.0)
    after_a_second = len(crowd.through)
    await crowd.clock.advance(1.01)

    assert (at_once, after_a_second, len(crowd.through)) == (100, 150, 200)
    assert crowd.through == [str(i) for i in range(200)]
    assert all(task.done() for task in crowd.tasks)


async def test_limiter_serves_normal_before_bulk():
    """Records and Events must not delay the steps of a run."""
    crowd = Crowd(ONE_A_SECOND)
    crowd.send("first", Lane.BULK)
    crowd.send("bulk", Lane.BULK)
    await crowd.clock.settle()
    crowd.send("normal", Lane.NORMAL)
    await crowd.clock.advance(2.1)

    assert crowd.through == ["first", "normal", "bulk"]


async def test_limiter_never_lets_urgent_or_lease_wait_for_others():
    """A quarantine or a renewal behind a thousand records would come too late."""
    crowd = Crowd(ONE_A_SECOND)
    for i in range(3):
        crowd.send(f"bulk-{i}", Lane.BULK)
        crowd.send(f"normal-{i}", Lane.NORMAL)
    crowd.send("urgent", Lane.URGENT)
    for i in range(50):
        crowd.send(f"lease-{i}", Lane.LEASE)
    await crowd.clock.settle()

    assert "urgent" in crowd.through
    assert sum(name.startswith("lease") for name in crowd.through) == 50
    await crowd.limiter.close()


async def test_limiter_refuses_what_exceeds_the_queue():
    """Without a bound, an overload would turn into memory and ever later writes."""
    crowd = Crowd(ONE_A_SECOND)
    for i in range(4):
        crowd.send(str(i), Lane.BULK)
    await crowd.clock.settle()

    with pytest.raises(NotSentError, match="3 already wait"):
        await crowd.limiter.acquire(Lane.BULK)
    assert crowd.limiter.waiting(Lane.BULK) == 3
    await crowd.limiter.close()


async def test_limiter_loses_no_turn_when_waiters_are_cancelled():
    """A time-out in the queue must neither block the next one nor eat its token."""
    crowd = Crowd(ONE_A_SECOND)
    for name in ("a", "b", "c"):
        crowd.send(name, Lane.NORMAL)
    await crowd.clock.settle()
    crowd.tasks[1].cancel()
    await crowd.clock.advance(1.01)

    assert crowd.through == ["a", "c"]


async def test_limiter_gives_the_turn_on_when_its_owner_is_cancelled_in_the_same_instant():
    """The turn was already given and is not used: the next waiter gets it."""
    clock = CancellingClock()
    crowd = Crowd(ONE_A_SECOND, clock)
    for name in ("a", "b", "c"):
        crowd.send(name, Lane.NORMAL)
    await crowd.clock.settle()
    clock.victim = crowd.tasks[1]
    await crowd.clock.advance(1.01)

    assert crowd.through == ["a", "c"]


async def test_limiter_ends_waits_when_closed():
    """A stop must not hang behind a full queue."""
    crowd = Crowd(ONE_A_SECOND)
    for i in range(3):
        crowd.send(str(i), Lane.NORMAL)
    await crowd.clock.settle()
    await crowd.limiter.close()
    results = await asyncio.gather(*crowd.tasks, return_exceptions=True)

    assert [type(result) for result in results] == [type(None), NotSentError, NotSentError]
    with pytest.raises(NotSentError):
        await crowd.limiter.acquire(Lane.URGENT)


async def test_rate_of_zero_is_refused():
    """A zero would mean waiting for ever."""
    with pytest.raises(ValueError, match="above zero"):
        Rate(0, 1)
