"""Client-side rate limit in front of the API server, one queue per lane.

Decides only when a request may go; it knows neither paths nor replies. Watches do not pass here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from remediator.adapters.kube.errors import NotSentError
from remediator.ports import Clock, Lane


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: ``per_s`` requests a second, ``burst`` at once from rest."""

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        if self.per_s <= 0 or self.burst < 1:
            raise ValueError(f"rate {self.per_s}/s with burst {self.burst}: both must be above zero")


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """``shared`` is for NORMAL and BULK together, NORMAL first; ``waiting_max`` is per lane."""

    urgent: Rate = field(default_factory=lambda: Rate(per_s=200.0, burst=400))
    shared: Rate = field(default_factory=lambda: Rate(per_s=50.0, burst=100))
    waiting_max: int = 10_000


class Limiter:
    """Grants turns: LEASE at once, the others when their bucket has a token.

    Within a lane first come, first served. A waiter that is cancelled leaves no trace: the turn
    it may already have been given goes to the next one.
    """

    def __init__(self, settings: LimitSettings, *, clock: Clock) -> None:
        urgent = _Bucket(settings.urgent, 1, settings.waiting_max, clock)
        shared = _Bucket(settings.shared, 2, settings.waiting_max, clock)
        self._places = {Lane.URGENT: (urgent, 0), Lane.NORMAL: (shared, 0), Lane.BULK: (shared, 1)}

    async def acquire(self, lane: Lane) -> None:
        """Return when one request of ``lane`` may be sent.

        Raises:
            NotSentError: ``waiting_max`` requests wait already, or the limiter was closed.
        """
        if lane is Lane.LEASE:
            return
        bucket, rank = self._places[lane]
        await bucket.acquire(rank, lane)

    def waiting(self, lane: Lane) -> int:
        """How many requests of ``lane`` wait for a turn."""
        if lane is Lane.LEASE:
            return 0
        bucket, rank = self._places[lane]
        return bucket.waiting(rank)

    async def close(self) -> None:
        """End every wait with ``NotSentError``. Idempotent."""
        for bucket in {id(bucket): bucket for bucket, _ in self._places.values()}.values():
            await bucket.close()


class _Bucket:
    def __init__(self, rate: Rate, ranks: int, waiting_max: int, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._waiting_max = waiting_max
        self._tokens = float(rate.burst)
        self._filled_at = clock.monotonic()
        # One queue per rank; rank 0 is served first.
        self._queues: tuple[deque[asyncio.Future[None]], ...] = tuple(deque() for _ in range(ranks))
        self._pump: asyncio.Task[None] | None = None
        self._closed = False

    def waiting(self, rank: int) -> int:
        return len(self._queues[rank])

    async def acquire(self, rank: int, lane: Lane) -> None:
        if self._closed:
            raise NotSentError(f"{lane.value} request not sent: the connection is closed")
        self._fill()
        if self._tokens >= 1 and not any(self._queues[: rank + 1]):
            self._tokens -= 1
            return
        waiting = self.waiting(rank)
        if waiting >= self._waiting_max:
            limit = f"{self._rate.per_s:g}/s"
            raise NotSentError(f"{lane.value} request not sent: {waiting} already wait at {limit}")
        await self._wait(rank)

    async def _wait(self, rank: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues[rank].append(turn)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._serve(), name="limiter")
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._tokens += 1  # given and never used
                self._serve_next()
            elif turn in self._queues[rank]:
                self._queues[rank].remove(turn)
            raise

    async def _serve(self) -> None:
        while any(self._queues):
            self._fill()
            if self._tokens < 1:
                # The floor keeps rounding from making a wait too short to move the clock.
                await self._clock.sleep(max(0.001, (1 - self._tokens) / self._rate.per_s))
                continue
            self._serve_next()

    def _serve_next(self) -> None:
        queue = next(filter(None, self._queues), None)
        if queue is None:
            return
        turn = queue.popleft()
        if not turn.done():
            self._tokens -= 1
            turn.set_result(None)

    def _fill(self) -> None:
        now = self._clock.monotonic()
        earned = (now - self._filled_at) * self._rate.per_s
        self._tokens = min(float(self._rate.burst), self._tokens + earned)
        self._filled_at = now

    async def close(self) -> None:
        self._closed = True
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        for queue in self._queues:
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_exception(NotSentError("request not sent: the connection is closed"))
