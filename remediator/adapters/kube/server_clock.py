"""The API server's time, told by the Date of its answers: one wall clock for every replica."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import structlog
from msgspec import Struct

from remediator.ports import Clock

DATE_S: Final = 1.0  # a Date is cut off to whole seconds
STEP_S: Final = 2.0  # within this, a difference is the network's; beyond it, somebody's clock is wrong
ODD_ANSWERS: Final = 3

_log = structlog.get_logger(__name__)


class Bounds(Struct, frozen=True):
    """Between what the server's time minus our monotonic clock lies, in seconds."""

    low: float
    high: float

    def nearest(self, value: float) -> float:
        """The value itself where it is possible, else the bound that it misses by least."""
        return min(max(value, self.low), self.high)

    def and_(self, other: Bounds) -> Bounds | None:
        """What both allow, or None."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Bounds(low, high) if low <= high else None


class ServerClock:
    """``ports.Clock`` whose wall time is the API server's, whatever this machine believes.

    Deadlines and soaks are kept as times in the cluster, where a successor reads them. Measured by
    the clock of whoever happens to lead, a machine an hour off would end them at once, or never.

    The first answer sets the time, later ones correct it. What differs by more than the network
    explains is believed once ``ODD_ANSWERS`` answers in a row agree: behind a load balancer one server
    of three may be wrong. The machine's own wall clock counts until the first answer only.
    """

    def __init__(self, machine: Clock) -> None:
        self._machine = machine
        self._ahead: float | None = None  # server's time minus our monotonic clock
        self._doubt: Bounds | None = None
        self._odd = 0

    def now(self) -> datetime:
        if self._ahead is None:
            return self._machine.now()
        return datetime.fromtimestamp(self._ahead + self._machine.monotonic(), UTC)

    def monotonic(self) -> float:
        return self._machine.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._machine.sleep(seconds)

    def skew_s(self) -> float:
        """Seconds that this machine's wall clock is ahead of the server's; 0 before the first answer."""
        return (self._machine.now() - self.now()).total_seconds() if self._ahead is not None else 0.0

    def hear(self, date: str, sent: float, answered: float) -> None:
        """Learn from one answer.

        Args:
            date: the answer's Date header; one that can't be read teaches nothing.
            sent: monotonic time before the request went out.
            answered: monotonic time when the answer's head was there.
        """
        try:
            told = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return
        bounds = Bounds(told - answered, told + DATE_S - sent)
        if self._ahead is None:
            own = self._machine.now().timestamp() - self._machine.monotonic()
            self._set(bounds.nearest(own), own)
        elif abs(bounds.nearest(self._ahead) - self._ahead) <= STEP_S:
            self._ahead = bounds.nearest(self._ahead)
            self._doubt, self._odd = None, 0
        else:
            self._weigh(bounds)

    def _weigh(self, bounds: Bounds) -> None:
        assert self._ahead is not None
        agreed = self._doubt.and_(bounds) if self._doubt is not None else None
        self._odd = self._odd + 1 if agreed is not None else 1
        self._doubt = agreed or bounds
        if self._odd >= ODD_ANSWERS:
            before, self._doubt, self._odd = self._ahead, None, 0
            self._set(bounds.nearest(before), before)

    def _set(self, ahead: float, before: float) -> None:
        self._ahead = ahead
        if abs(ahead - before) > STEP_S:
            _log.warning(
                "the API server's clock differs; its time counts from now on",
                ahead_s=round(ahead - before, 1),
                skew_s=round(self.skew_s(), 1),
            )
