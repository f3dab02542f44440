"""Event loops whose time is not the world's.

On a ``VirtualLoop`` time passes only when nobody has anything to do. Nothing sleeps for real: a wait of an
hour costs one turn of the loop. The same coroutines with the same seed take the same turns in every
process. On a ``ScaledLoop`` time passes so many times as fast as ours, and sockets work.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from remediator.errors import RemediatorError

T = TypeVar("T")

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
RESOLUTION_S: Final = 1e-6  # timers this close together are due in the same turn


class StalledError(RemediatorError):
    """Everybody waits for somebody, and no timer is set: real time would never end this."""


class _Idle(selectors.SelectSelector):
    """Instead of waiting for the network, lets time pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StalledError("no task can go on and no timer is set")
        self.passed_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on virtual time. It serves no socket, pipe, child process or thread."""

    def __init__(self) -> None:
        self._idle = _Idle()
        super().__init__(self._idle)
        self._clock_resolution = RESOLUTION_S

    def time(self) -> float:
        """Seconds since this loop was made."""
        return self._idle.passed_s


class _Hasty(selectors.DefaultSelector):
    """Waits for the network a share of the time that it is asked to."""

    def __init__(self, speed: float) -> None:
        super().__init__()
        self._speed = speed

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout if timeout is None else timeout / self._speed)


class ScaledLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose time is ``speed`` times as fast as the world's."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._began_s = time.monotonic()
        super().__init__(_Hasty(speed))
        self._clock_resolution = speed * time.get_clock_info("monotonic").resolution

    def time(self) -> float:
        """Seconds of its own since this loop was made."""
        return (time.monotonic() - self._began_s) * self._speed


class VirtualClock:
    """``ports.Clock`` on one of these loops: wall time begins at ``start`` (aware UTC)."""

    def __init__(self, loop: VirtualLoop | ScaledLoop, *, start: datetime = EPOCH) -> None:
        self._loop = loop
        self._start = start

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end on a loop of its own, which ``main`` finds as the running one.

    Raises:
        StalledError: it waits for something that can never come.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def run_scaled(main: Coroutine[Any, Any, T], speed: float) -> T:
    """Run ``main`` to its end on a loop whose time is ``speed`` times as fast as the world's."""
    with asyncio.Runner(loop_factory=partial(ScaledLoop, speed)) as runner:
        return runner.run(main)


def virtual_clock(*, start: datetime = EPOCH) -> VirtualClock:
    """The clock of the running loop.

    Raises:
        TypeError: the running loop's time is real.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, (VirtualLoop, ScaledLoop)):
        raise TypeError(f"{type(loop).__name__} runs in real time; use run_virtual or run_scaled")
    return VirtualClock(loop, start=start)
