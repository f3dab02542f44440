"""A heap of names and when to look at each again. Bounded by the number of names; earliest wins."""

from __future__ import annotations

import asyncio
import heapq
from typing import Final

from remediator.ports import Clock

SLACK: Final = 64  # outdated times that may stand in the heap besides one for each name


class DueHeap:
    """Names with due times on the monotonic clock. A name is in it once, at its earliest time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._due)

    @property
    def entries(self) -> int:
        """How many times are kept, outdated ones included."""
        return len(self._heap)

    def add(self, name: str, after_s: float = 0.0) -> None:
        """Look at ``name`` in ``after_s`` seconds, or earlier when that was asked for before."""
        at = self._clock.monotonic() + after_s
        if name in self._due and self._due[name] <= at:
            return
        self._due[name] = at
        heapq.heappush(self._heap, (at, name))
        if len(self._heap) > 2 * len(self._due) + SLACK:
            # A name that is woken early again and again would leave its later times behind.
            self._heap = [(due, each) for each, due in self._due.items()]
            heapq.heapify(self._heap)
        self._changed.set()

    def discard(self, name: str) -> None:
        self._due.pop(name, None)

    async def take(self) -> str:
        """Wait for the next due name and remove it. Of many who wait one looks at the times."""
        async with self._turn:
            while True:
                self._changed.clear()
                wait_s = self._next_in_s()
                if wait_s is None:
                    await self._changed.wait()
                elif wait_s > 0:
                    await self._sleep(wait_s)
                else:
                    at, name = heapq.heappop(self._heap)
                    if self._due.get(name) == at:
                        del self._due[name]
                        return name

    def _next_in_s(self) -> float | None:
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] - self._clock.monotonic() if self._heap else None

    async def _sleep(self, seconds: float) -> None:
        nap = asyncio.ensure_future(self._clock.sleep(seconds))
        wake = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((nap, wake), return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
            wake.cancel()
