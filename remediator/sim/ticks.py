"""``ports.Ticks`` on any clock, so that housekeeping runs in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from remediator.errors import ContractError
from remediator.ports import Clock


class ClockTicks:
    """Periodic jobs, each a task of its own.

    Args:
        clock: whose seconds count.
        on_error: called with job name and exception when a job raised; its next tick comes all the same.
    """

    def __init__(self, clock: Clock, *, on_error: Callable[[str, Exception], None]) -> None:
        self._clock = clock
        self._on_error = on_error
        self._jobs: dict[str, tuple[float, Callable[[], Awaitable[None]]]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def every(self, seconds: float, job: Callable[[], Awaitable[None]], name: str) -> None:
        """See ``ports.Ticks``.

        Raises:
            ContractError: a period that is not above zero, or a name that is taken.
        """
        if not seconds > 0:
            raise ContractError(f"tick {name!r}: a period of {seconds:g} s is not above zero")
        if name in self._jobs:
            raise ContractError(f"tick {name!r} is there already")
        self._jobs[name] = (seconds, job)

    def start(self) -> None:
        """Begin to tick on the running loop."""
        for name, (seconds, job) in self._jobs.items():
            self._tasks.append(asyncio.get_running_loop().create_task(self._tick(seconds, job, name)))

    def stop(self) -> None:
        """Tick no more. Twice does no harm."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    async def _tick(self, seconds: float, job: Callable[[], Awaitable[None]], name: str) -> None:
        due = self._clock.monotonic()
        while True:
            due += seconds
            late = self._clock.monotonic() - due
            if late > 0:  # turns that were missed are made up by one
                due += late - late % seconds
            await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
            try:
                await job()
            except ContractError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a job does is told, and the next tick comes
                self._on_error(name, error)
