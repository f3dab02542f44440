"""Periodic jobs in virtual time keep to what ``ports.Ticks`` promises."""

from __future__ import annotations

import pytest

from remediator.errors import ContractError
from remediator.sim.loop import VirtualClock, run_virtual, virtual_clock
from remediator.sim.ticks import ClockTicks

Errors = list[tuple[str, str]]


def ticks(clock: VirtualClock, errors: Errors) -> ClockTicks:
    return ClockTicks(clock, on_error=lambda job, error: errors.append((job, str(error))))


def test_job_runs_each_period_from_one_period_on() -> None:
    async def main() -> list[float]:
        clock, seen = virtual_clock(), []

        async def job() -> None:
            seen.append(clock.monotonic())

        made = ticks(clock, [])
        made.every(10, job, "job")
        made.start()
        await clock.sleep(35)
        made.stop()
        await clock.sleep(100)
        return seen

    assert run_virtual(main()) == [10, 20, 30]


def test_turns_that_a_slow_job_missed_are_made_up_by_one() -> None:
    async def main() -> list[float]:
        clock, seen = virtual_clock(), []

        async def job() -> None:
            seen.append(clock.monotonic())
            await clock.sleep(25)

        made = ticks(clock, [])
        made.every(10, job, "job")
        made.start()
        await clock.sleep(75)
        made.stop()
        return seen

    assert run_virtual(main()) == [10, 35, 60]


def test_job_that_raises_is_told_and_ticks_on() -> None:
    errors: Errors = []

    async def main() -> None:
        clock = virtual_clock()

        async def job() -> None:
            raise ValueError("broken")

        made = ticks(clock, errors)
        made.every(10, job, "job")
        made.start()
        await clock.sleep(25)
        made.stop()

    run_virtual(main())
    assert errors == [("job", "broken")] * 2


@pytest.mark.parametrize("seconds", [0, -1])
def test_period_that_is_none_is_refused(seconds: float) -> None:
    async def main() -> None:
        async def job() -> None: ...

        with pytest.raises(ContractError, match="not above zero"):
            ticks(virtual_clock(), []).every(seconds, job, "job")

    run_virtual(main())


def test_name_that_is_taken_is_refused() -> None:
    async def main() -> None:
        async def job() -> None: ...

        made = ticks(virtual_clock(), [])
        made.every(1, job, "job")
        with pytest.raises(ContractError, match="there already"):
            made.every(1, job, "job")

    run_virtual(main())
