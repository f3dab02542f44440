"""The server's time: learned from answers, by whatever clock this machine has."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import format_datetime

import pytest
from structlog.testing import capture_logs

from remediator.adapters.kube.server_clock import ODD_ANSWERS, ServerClock
from tests.unit.adapters.kube.manual_clock import ManualClock

HOUR_S = 3_600.0


class Server:
    """Answers with a time that is ahead of the machine's by a constant, after a constant trip."""

    def __init__(self, *, ahead_s: float, trip_s: float = 0.02) -> None:
        self.machine = ManualClock()
        self.clock = ServerClock(self.machine)
        self.ahead_s, self._trip_s = ahead_s, trip_s

    def time(self) -> datetime:
        return self.machine.now() + timedelta(seconds=self.ahead_s)

    def off_s(self) -> float:
        return abs((self.clock.now() - self.time()).total_seconds())

    async def ask(self) -> None:
        sent = self.machine.monotonic()
        await self.machine.advance(self._trip_s / 2)
        date = format_datetime(self.time().replace(microsecond=0), usegmt=True)
        await self.machine.advance(self._trip_s / 2)
        self.clock.hear(date, sent, self.machine.monotonic())


def test_machine_s_time_counts_before_the_first_answer():
    """There is no other."""
    machine = ManualClock()

    assert ServerClock(machine).now() == machine.now()


@pytest.mark.asyncio
@pytest.mark.parametrize("ahead_s", [-HOUR_S, -5.0, 5.0, HOUR_S])
async def test_one_answer_sets_the_time(ahead_s):
    """A soak that an hour's error would end at once is judged right from the first pass on."""
    server = Server(ahead_s=ahead_s)
    await server.ask()

    assert server.off_s() <= 1.02
    assert server.clock.skew_s() == pytest.approx(-ahead_s, abs=1.02)


@pytest.mark.asyncio
async def test_agreeing_clock_is_left_alone():
    """A Date is cut off to seconds; a right clock must not jitter by that."""
    server = Server(ahead_s=0.0)
    for _ in range(50):
        await server.ask()
        await server.machine.advance(0.37)

        assert server.off_s() < 1e-6


@pytest.mark.asyncio
async def test_more_answers_make_the_time_finer():
    """Answers at all parts of a second leave less and less room."""
    server = Server(ahead_s=HOUR_S)
    for _ in range(100):
        await server.ask()
        await server.machine.advance(0.37)

    assert server.off_s() < 0.1


@pytest.mark.asyncio
async def test_slow_answer_does_not_move_the_time():
    """It may have been written at any moment of its trip."""
    server = Server(ahead_s=0.0, trip_s=30.0)
    await server.ask()

    assert server.off_s() < 1e-6


@pytest.mark.asyncio
async def test_one_odd_server_behind_a_balancer_is_not_believed():
    """An hour's jump would end every soak; it takes as many answers in a row as chance rarely brings."""
    server = Server(ahead_s=0.0)
    await server.ask()
    for _ in range(ODD_ANSWERS * 4):
        server.ahead_s = HOUR_S
        for _ in range(ODD_ANSWERS - 1):
            await server.ask()
        server.ahead_s = 0.0
        await server.ask()

        assert server.off_s() < 1e-6


@pytest.mark.asyncio
async def test_odd_answers_that_disagree_are_not_believed():
    """What agrees with nothing is noise."""
    server = Server(ahead_s=0.0)
    await server.ask()
    for number in range(2, 12):
        server.ahead_s = HOUR_S * number
        await server.ask()
    server.ahead_s = 0.0

    assert server.off_s() < 1e-6


@pytest.mark.asyncio
async def test_server_whose_clock_was_set_is_followed_and_told_once():
    """Its creation times are in the new time as well."""
    server = Server(ahead_s=0.0)
    await server.ask()
    server.ahead_s = HOUR_S
    with capture_logs() as logs:
        for _ in range(ODD_ANSWERS * 3):
            await server.ask()

    assert server.off_s() <= 1.02
    (told,) = logs
    assert told["ahead_s"] == pytest.approx(HOUR_S, abs=1.1)


@pytest.mark.asyncio
@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Jan 2026 00:00:00 GMT"])
async def test_date_that_can_t_be_read_teaches_nothing(date):
    """A proxy may leave it out."""
    server = Server(ahead_s=0.0)
    server.clock.hear(date, 0.0, 0.0)

    assert server.clock.now() == server.machine.now()
