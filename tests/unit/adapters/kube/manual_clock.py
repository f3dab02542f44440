"""A clock that moves only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta

from remediator.adapters.clock import SystemClock

REAL = SystemClock()
START = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """``ports.Clock`` in virtual time."""

    def __init__(self) -> None:
        self._now_s = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self._now_s)

    def monotonic(self) -> float:
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await REAL.sleep(0)
            return
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._order), wake))
        await wake

    async def advance(self, seconds: float) -> None:
        """Pass time, waking sleepers in order and letting every task run at each instant."""
        end_s = self._now_s + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end_s:
            due_s, _, wake = heapq.heappop(self._sleepers)
            self._now_s = max(self._now_s, due_s)
            if not wake.done():
                wake.set_result(None)
                await self.settle()
        self._now_s = end_s
        await self.settle()

    def stand_still(self, seconds: float) -> None:
        """Pass time without waking anybody, as for a process that is stopped."""
        self._now_s += seconds

    async def settle(self) -> None:
        """Let every task run until it waits for the clock."""
        for _ in range(20):
            await REAL.sleep(0)
