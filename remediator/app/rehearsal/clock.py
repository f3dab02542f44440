"""Time that stands still until the story goes on."""

from __future__ import annotations

from datetime import datetime, timedelta

from remediator.errors import ContractError


class StoryClock:
    """``ports.Clock`` of one story. It never sleeps: a rehearsal goes from one event to the next."""

    def __init__(self, start: datetime) -> None:
        self.start = start
        self.elapsed_s = 0.0

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.elapsed_s)

    def monotonic(self) -> float:
        return self.elapsed_s

    def advance(self, to_s: float) -> None:
        """Go on to ``to_s`` seconds after the start; never back."""
        self.elapsed_s = max(self.elapsed_s, to_s)

    async def sleep(self, seconds: float) -> None:
        """Yield once where no time is asked for.

        Raises:
            ContractError: a pass of the controller waits by itself instead of saying when to look again.
        """
        if seconds > 0:
            raise ContractError(f"a pass slept for {seconds} s in a rehearsal")


class NoTelemetry:
    """``ports.Telemetry`` that counts nothing: a story is judged by what it wrote."""

    def count(self, metric: str, labels: object, by: float = 1.0) -> None:
        del metric, labels, by

    def gauge(self, metric: str, labels: object, value: float) -> None:
        del metric, labels, value

    def observe(self, metric: str, labels: object, seconds: float) -> None:
        del metric, labels, seconds
