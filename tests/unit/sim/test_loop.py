"""Virtual time: it passes at once, in order, and only when nobody has anything to do."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from remediator.sim.loop import EPOCH, StalledError, run_virtual, virtual_clock


def test_a_day_of_waiting_takes_no_time() -> None:
    async def main() -> tuple[float, timedelta]:
        clock = virtual_clock()
        await clock.sleep(86_400)
        return clock.monotonic(), clock.now() - EPOCH

    assert run_virtual(main()) == (86_400, timedelta(days=1))


def test_timers_are_due_in_their_order() -> None:
    async def main() -> list[tuple[float, int]]:
        clock = virtual_clock()
        seen: list[tuple[float, int]] = []

        async def wait(number: int, seconds: float) -> None:
            await clock.sleep(seconds)
            seen.append((clock.monotonic(), number))

        async with asyncio.TaskGroup() as group:
            for number, seconds in enumerate((3.0, 1.0, 2.0)):
                group.create_task(wait(number, seconds))
        return seen

    assert run_virtual(main()) == [(1.0, 1), (2.0, 2), (3.0, 0)]


def test_time_stands_still_while_somebody_works() -> None:
    async def main() -> float:
        clock = virtual_clock()
        for _ in range(1_000):
            await clock.sleep(0)
        return clock.monotonic()

    assert run_virtual(main()) == 0.0


def test_time_out_counts_virtual_seconds() -> None:
    async def main() -> float:
        clock = virtual_clock()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await asyncio.Event().wait()
        return clock.monotonic()

    assert run_virtual(main()) == 7.0


def test_waiting_for_what_never_comes_is_told_and_not_waited_for() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StalledError, match="no timer is set"):
        run_virtual(main())


@pytest.mark.asyncio
async def test_virtual_clock_needs_a_virtual_loop() -> None:
    with pytest.raises(TypeError, match="run_virtual"):
        virtual_clock()
