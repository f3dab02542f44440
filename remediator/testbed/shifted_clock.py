"""The clock of a machine that nobody told the time."""

from __future__ import annotations

from datetime import datetime, timedelta

from remediator.adapters.clock import SystemClock


class ShiftedClock(SystemClock):
    """The real clocks, but for a wall clock that is ahead by ``offset_s`` seconds."""

    def __init__(self, offset_s: float) -> None:
        self._offset = timedelta(seconds=offset_s)

    def now(self) -> datetime:
        return super().now() + self._offset
