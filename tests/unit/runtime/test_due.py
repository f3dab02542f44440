"""The heap of due names: the earliest time wins, and nothing is left behind."""

from __future__ import annotations

import asyncio

import pytest

from remediator.runtime.due import DueHeap
from tests.unit.adapters.kube.manual_clock import ManualClock


class Taker:
    """Takes names for as long as the test runs."""

    def __init__(self, heap: DueHeap) -> None:
        self.found: list[str] = []
        self._heap = heap
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            self.found.append(await self._heap.take())


@pytest.mark.asyncio
async def test_due_names_come_in_the_order_of_their_times():
    """What is due first is looked at first."""
    clock = ManualClock()
    heap = DueHeap(clock)
    heap.add("late", 9)
    heap.add("soon", 3)
    heap.add("now")
    taker = Taker(heap)

    await clock.advance(4)

    assert taker.found == ["now", "soon"]
    await clock.advance(5)
    assert taker.found == ["now", "soon", "late"]
    taker.task.cancel()


@pytest.mark.asyncio
async def test_due_name_keeps_its_earlier_time():
    """A later wish never puts off an earlier one, and a name comes once."""
    clock = ManualClock()
    heap = DueHeap(clock)
    heap.add("a", 5)
    heap.add("a", 60)
    taker = Taker(heap)

    await clock.advance(5)

    assert taker.found == ["a"]
    await clock.advance(60)
    assert taker.found == ["a"]
    taker.task.cancel()


@pytest.mark.asyncio
async def test_due_add_wakes_a_sleeper():
    """News does not wait for the time that was slept towards."""
    clock = ManualClock()
    heap = DueHeap(clock)
    heap.add("a", 60)
    taker = Taker(heap)
    await clock.advance(1)

    heap.add("a")
    await clock.settle()

    assert taker.found == ["a"]
    assert len(heap) == 0
    taker.task.cancel()


@pytest.mark.asyncio
async def test_due_discard_forgets_the_name():
    """A node that is gone is not looked at."""
    clock = ManualClock()
    heap = DueHeap(clock)
    heap.add("a", 1)
    heap.add("b", 2)
    heap.discard("a")
    taker = Taker(heap)

    await clock.advance(10)

    assert taker.found == ["b"]
    taker.task.cancel()


@pytest.mark.asyncio
async def test_due_two_takers_share_without_doubles():
    """Thirty-two workers wait side by side; each name goes to one of them."""
    clock = ManualClock()
    heap = DueHeap(clock)
    takers = [Taker(heap) for _ in range(4)]
    await clock.settle()

    for number in range(20):
        heap.add(f"run-{number}", number % 3)
    await clock.advance(3)

    found = [name for taker in takers for name in taker.found]
    assert sorted(found) == sorted(f"run-{number}" for number in range(20))
    for taker in takers:
        taker.task.cancel()


@pytest.mark.asyncio
async def test_due_heap_stays_as_small_as_its_names():
    """A name that is woken early again and again leaves no trail of old times in memory."""
    clock = ManualClock()
    heap = DueHeap(clock)

    for _ in range(1_000):
        heap.add("a", 3_600)
        heap.add("a")
        await heap.take()

    assert heap.entries <= 128
