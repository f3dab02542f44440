"""Periodic jobs by APScheduler: the production ``Ticks``. It only ticks; what a job does is the job's.

Nothing safety-relevant and nothing per run may hang on it: it follows the machine's wall clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import Final

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from remediator.errors import ContractError

MISFIRE_GRACE_S_MIN: Final = 1


class SchedulerTicks:
    """``ports.Ticks`` over one ``AsyncIOScheduler``.

    A tick that comes later than its own period (at least a second) is left out; several that were
    missed are made up by one; a job never runs twice at once.

    Args:
        on_error: called with job name and exception when a job raised. The job's next tick comes
            all the same; a ``ContractError`` has to end the process, which is the caller's to do.
    """

    def __init__(self, *, on_error: Callable[[str, BaseException], None]) -> None:
        self._on_error = on_error
        self._names: set[str] = set()
        # A zone of its own: without one the scheduler asks the machine, and periods would jump
        # with summer time.
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._scheduler.add_listener(self._failed, EVENT_JOB_ERROR)

    def every(self, seconds: float, job: Callable[[], Awaitable[None]], name: str) -> None:
        """Run ``job`` each ``seconds``; see ``ports.Ticks``.

        Raises:
            ContractError: a period that is not above zero, or a name that is taken.
        """
        if not seconds > 0:
            raise ContractError(f"tick {name!r}: a period of {seconds:g} s is not above zero")
        if name in self._names:
            raise ContractError(f"tick {name!r} is there already")
        self._names.add(name)

        async def run() -> None:
            await job()

        self._scheduler.add_job(
            run,  # the scheduler awaits coroutine functions only, and a bound method may be none
            "interval",
            seconds=seconds,
            id=name,
            name=name,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=max(MISFIRE_GRACE_S_MIN, round(seconds)),
        )

    def start(self) -> None:
        """Begin to tick on the running loop."""
        self._scheduler.start()

    def stop(self) -> None:
        """Tick no more, and cancel the jobs that are running, by the loop's next turn."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _failed(self, event: JobExecutionEvent) -> None:
        self._on_error(event.job_id, event.exception)
