"""Ticks on the real scheduler and the real loop, with periods of hundredths of a second."""

from __future__ import annotations

import asyncio

import pytest

from remediator.adapters.ticks import SchedulerTicks
from remediator.errors import ContractError, TransientError
from remediator.ports import Ticks

pytestmark = pytest.mark.asyncio
WAIT_S = 10.0


class Failures:
    """What the scheduler told about jobs that raised."""

    def __init__(self) -> None:
        self.told: list[tuple[str, BaseException]] = []
        self.some = asyncio.Event()

    def __call__(self, name: str, error: BaseException) -> None:
        self.told.append((name, error))
        self.some.set()


class Counter:
    """A job that counts its turns and says when there were enough."""

    def __init__(self, enough: int) -> None:
        self.turns = 0
        self.enough = enough
        self.done = asyncio.Event()

    async def __call__(self) -> None:
        self.turns += 1
        if self.turns >= self.enough:
            self.done.set()


async def soon(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), WAIT_S)


async def pass_time() -> None:
    """Let the scheduler's own timers run for a few periods."""
    never = asyncio.create_task(asyncio.Event().wait())
    await asyncio.wait({never}, timeout=0.1)
    never.cancel()


async def test_job_runs_each_period_until_stopped():
    """Also a job that is an object with __call__, a bound method or a partial."""
    ticks: Ticks = SchedulerTicks(on_error=Failures())
    job, other = Counter(3), Counter(1)
    ticks.every(0.02, job, "count")
    ticks.every(0.02, other.__call__, "other")
    assert job.turns == 0

    ticks.start()
    await soon(job.done)
    await soon(other.done)
    ticks.stop()
    ticks.stop()
    await pass_time()
    turns = job.turns

    await pass_time()
    assert job.turns == turns


async def test_slow_job_never_runs_twice_at_once_and_stop_cancels_it():
    """Two sweeps at once would do everything twice."""
    ticks = SchedulerTicks(on_error=Failures())
    other = Counter(5)
    running: list[str] = []
    cancelled = asyncio.Event()

    async def slow() -> None:
        running.append("begin")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    ticks.every(0.02, slow, "slow")
    ticks.every(0.03, other, "other")
    ticks.start()
    await soon(other.done)
    assert running == ["begin"]

    ticks.stop()

    await soon(cancelled)


@pytest.mark.parametrize("error", [TransientError("reset"), ContractError("broken"), ValueError("odd")])
async def test_error_of_a_job_is_told_and_the_next_tick_comes(error):
    """The scheduler would swallow it, a broken contract too."""
    failures = Failures()
    ticks = SchedulerTicks(on_error=failures)
    other = Counter(3)

    async def fail() -> None:
        await other()
        raise error

    ticks.every(0.02, fail, "fail")
    ticks.start()
    await soon(other.done)
    await soon(failures.some)
    ticks.stop()

    assert ("fail", error) in failures.told
    assert other.turns >= 3


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
async def test_period_must_be_above_zero(seconds):
    """A period of zero would spin."""
    with pytest.raises(ContractError, match="not above zero"):
        SchedulerTicks(on_error=Failures()).every(seconds, Counter(1), "x")


async def test_name_is_unique():
    """The second of a name would silently replace the first, or never run."""
    ticks = SchedulerTicks(on_error=Failures())
    ticks.every(1, Counter(1), "x")

    with pytest.raises(ContractError, match="there already"):
        ticks.every(1, Counter(1), "x")
