"""When which page is fetched, in virtual time."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Generator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest

from remediator.adapters.exporters.scraper import NAP_MAX_S, Scraper, ScrapeSettings, TargetState
from remediator.core.dcgm import XID
from remediator.errors import ContractError, PageError
from remediator.model.signal import PageReading, PageTrouble

T0 = datetime(2026, 11, 22, tzinfo=UTC)
GOOD = f'{XID}{{gpu="0",UUID="GPU-1"}} 0\n'.encode()


class Turn:
    """Lets every other task run once."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class VirtualClock:
    """Time that passes only in ``advance``."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self.slept = 0

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.time)

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await Turn()
            return
        self.slept += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self.sleepers, (self.time + seconds, self.slept, future))
        await future

    async def advance(self, seconds: float) -> None:
        end = self.time + seconds
        await self.settle()
        while self.sleepers and self.sleepers[0][0] <= end:
            self.time = self.sleepers[0][0]
            while self.sleepers and self.sleepers[0][0] <= self.time:
                future = heapq.heappop(self.sleepers)[2]
                if not future.done():
                    future.set_result(None)
            await self.settle()
        self.time = end

    async def settle(self) -> None:
        for _ in range(100):  # enough for all the pages of one tick, two turns each
            await Turn()


class FakePages:
    """Answers after ``delays`` seconds, or what ``bodies`` says; keeps to the time-out."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.delays: dict[str, float] = {}
        self.bodies: dict[str, bytes | Exception] = {}
        self.started: list[tuple[float, str]] = []
        self.in_flight = 0
        self.in_flight_max = 0

    async def fetch(self, url: str, *, timeout_s: float, bytes_max: int) -> bytes:
        self.started.append((self.clock.time, url))
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight, self.in_flight_max)
        delay = self.delays.get(url, 0.0)
        try:
            await self.clock.sleep(min(delay, timeout_s))
        finally:
            self.in_flight -= 1
        body = self.bodies.get(url, GOOD)
        if delay >= timeout_s:
            raise PageError("TimedOut", f"{url}: no complete page within {timeout_s} s")
        if isinstance(body, Exception):
            raise body
        return body


class World:
    """One scraper and all it touches."""

    def __init__(
        self, settings: ScrapeSettings | None = None, on_reading: Callable[[PageReading], None] | None = None
    ):
        self.clock = VirtualClock()
        self.pages = FakePages(self.clock)
        self.readings: dict[str, list[float]] = {}
        self.failures: dict[str, list[PageTrouble]] = {}
        self.scraper = Scraper(
            pages=self.pages,
            clock=self.clock,
            rng=Random(7),
            settings=settings or ScrapeSettings(),
            on_reading=on_reading or self.note,
            on_failure=lambda node, reason: self.failures.setdefault(node, []).append(reason),
        )

    def note(self, reading: PageReading) -> None:
        self.readings.setdefault(reading.node, []).append(reading.at_monotonic)

    def aim(self, count: int) -> list[str]:
        nodes = [f"n{index:04d}" for index in range(count)]
        self.scraper.set_targets({node: f"http://{node}/" for node in nodes})
        return nodes

    @asynccontextmanager
    async def running(self):
        task = asyncio.get_running_loop().create_task(self.scraper.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


@pytest.mark.asyncio
async def test_scraper_reads_every_target_once_a_period():
    """The first round is quick, the others are spread over the period."""
    async with World().running() as world:
        nodes = world.aim(100)
        await world.clock.advance(0.5)
        first = {node: len(world.readings.get(node, ())) for node in nodes}
        await world.clock.advance(150)

    assert set(first.values()) == {1}
    assert all(10 <= len(world.readings[node]) <= 12 for node in nodes)
    assert max(gap for node in nodes for gap in gaps(world.readings[node])) <= 15 * 1.25 + NAP_MAX_S
    starts = [time % 15 for time, _ in world.pages.started[200:1_000]]
    assert max(sum(low <= time < low + 1 for time in starts) for low in range(15)) < len(starts) / 5


@pytest.mark.asyncio
async def test_scraper_lets_no_slow_target_delay_another():
    """A tenth of the fleet hangs for the whole time-out; the others keep their period."""
    settings = ScrapeSettings(healthy_max=256, failing_max=32)
    async with World(settings).running() as world:
        nodes = world.aim(1_000)
        hanging, healthy = nodes[::10], [node for node in nodes if node not in set(nodes[::10])]
        world.pages.delays = {f"http://{node}/": 60.0 for node in hanging}
        await world.clock.advance(90)

    assert max(gap for node in healthy for gap in gaps(world.readings[node])) <= 15 * 1.25 + NAP_MAX_S
    assert min(len(world.readings[node]) for node in healthy) >= 5
    assert all(world.failures.get(node) for node in hanging)
    assert world.pages.in_flight_max <= 256 + 32


@pytest.mark.asyncio
async def test_scraper_keeps_hanging_targets_out_of_the_way_of_the_healthy():
    """More hang than there are places: after their first time-out they have a lane of their own."""
    async with World(ScrapeSettings(healthy_max=64, failing_max=32)).running() as world:
        nodes = world.aim(500)
        world.pages.delays = {f"http://{node}/": 60.0 for node in nodes[::2]}
        await world.clock.advance(60)
        world.readings.clear()
        await world.clock.advance(90)

    assert min(len(world.readings[node]) for node in nodes[1::2]) >= 5
    assert max(gap for node in nodes[1::2] for gap in gaps(world.readings[node])) <= 15 * 1.25 + NAP_MAX_S
    assert world.pages.in_flight_max <= 64 + 32


@pytest.mark.asyncio
async def test_scraper_brings_a_target_back_after_it_failed():
    """A target in the failing lane is fetched there until it answers, then with the healthy ones."""
    async with World(ScrapeSettings(healthy_max=1, failing_max=1)).running() as world:
        world.aim(2)
        world.pages.delays = {"http://n0000/": 60.0}
        await world.clock.advance(60)
        world.pages.delays = {}
        await world.clock.advance(60)

    assert world.failures["n0000"]
    assert len(world.readings["n0000"]) >= 3
    assert world.scraper.state("n0000") is TargetState.FRESH


@pytest.mark.asyncio
async def test_scraper_calls_a_target_stale_after_three_periods():
    """One lost page is no news; three are blindness. A failure before any page is blindness at once."""
    async with World().running() as world:
        world.aim(1)
        states = [world.scraper.state("n0000"), world.scraper.state("other")]
        await world.clock.advance(1)
        good_at = world.readings["n0000"][-1]
        world.pages.bodies["http://n0000/"] = PageError("Unreachable", "refused")
        await world.clock.advance(good_at + 45 - world.clock.time)
        states.append(world.scraper.state("n0000"))
        await world.clock.advance(0.1)
        states.append(world.scraper.state("n0000"))

    assert states == [TargetState.WAITING, TargetState.NONE, TargetState.FRESH, TargetState.STALE]
    assert world.failures["n0000"][0] == PageTrouble("Unreachable", "refused")


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"<html>", "NotMetrics"), (b"", "NotMetrics"), (PageError("TooLarge", "of more"), "TooLarge")],
)
@pytest.mark.asyncio
async def test_scraper_reports_what_it_cannot_read(body, kind):
    """What is no metrics page is no reading, and no reading is no news about a GPU."""
    async with World().running() as world:
        world.pages.bodies["http://n0000/"] = body
        world.aim(1)
        await world.clock.advance(1)

    assert world.failures["n0000"][0].kind == kind
    assert not world.readings
    assert (world.scraper.counters.failures, world.scraper.counters.readings) == (1, 0)


@pytest.mark.asyncio
async def test_scraper_completes_its_round_when_all_were_answered_or_failed():
    """Until then the fleet was not seen; a node that joins later does not undo it."""
    async with World().running() as world:
        rounds = [world.scraper.round_complete]
        world.scraper.set_targets({})
        rounds.append(world.scraper.round_complete)
        world.pages.delays = {"http://n0003/": 60.0}
        world.aim(10)
        await world.clock.advance(5)
        rounds.append(world.scraper.round_complete)
        await world.clock.advance(6)
        rounds.append(world.scraper.round_complete)
        world.aim(11)
        rounds.append(world.scraper.round_complete)

    assert rounds == [False, False, False, True, True]


@pytest.mark.asyncio
async def test_scraper_completes_its_round_when_the_last_unanswered_target_goes():
    """A node that is deleted before its page came must not hold up the fleet."""
    async with World().running() as world:
        world.pages.delays = {"http://n0001/": 60.0}
        world.aim(2)
        await world.clock.advance(1)
        before = world.scraper.round_complete
        world.aim(1)

    assert (before, world.scraper.round_complete) == (False, True)


@pytest.mark.asyncio
async def test_scraper_drops_the_answer_of_a_target_that_changed():
    """The page on its way comes from the old address, which may be another machine by now."""
    async with World().running() as world:
        world.pages.delays = {"http://old/": 3.0}
        world.scraper.set_targets({"n": "http://old/"})
        await world.clock.advance(1)
        world.scraper.set_targets({"n": "http://new/"})
        await world.clock.advance(1)
        after_new = dict(world.readings)
        await world.clock.advance(5)

    assert len(after_new["n"]) == 1
    assert len(world.readings["n"]) == 1


@pytest.mark.asyncio
async def test_scraper_keeps_the_state_of_targets_that_stay():
    """Each new node sets all targets again; nobody else's schedule may move for that."""
    async with World().running() as world:
        world.aim(50)
        await world.clock.advance(2)
        for count in range(51, 90):
            world.aim(count)
            await world.clock.advance(1)

    assert max(gap for times in world.readings.values() for gap in gaps(times)) <= 15 * 1.25 + NAP_MAX_S
    assert world.scraper.state("n0000") is TargetState.FRESH


@pytest.mark.asyncio
async def test_scrape_now_fetches_at_the_next_tick_and_never_twice_at_once():
    """A verify step wants a page now; asking often must not make it many."""
    async with World().running() as world:
        world.aim(1)
        await world.clock.advance(2)
        before = len(world.pages.started)
        world.pages.delays = {"http://n0000/": 1.0}
        answers = [world.scraper.scrape_now("n0000") for _ in range(5)] + [world.scraper.scrape_now("other")]
        await world.clock.advance(NAP_MAX_S)
        world.scraper.scrape_now("n0000")
        await world.clock.advance(0.5)

    assert answers == [True] * 5 + [False]
    assert len(world.pages.started) == before + 1


@pytest.mark.asyncio
async def test_scraper_reads_one_page_per_turn_of_the_loop():
    """Five hundred pages that arrive together must not block the loop for all their parsing."""
    turns: list[int] = []
    turn = [0]
    async with World(on_reading=lambda _: turns.append(turn[0])).running() as world:
        world.pages.delays = {f"http://n{index:04d}/": 1.0 for index in range(50)}
        world.aim(50)
        await world.clock.advance(0.5)  # all are under way now
        for _, _, future in world.clock.sleepers:
            future.set_result(None)
        for turn[0] in range(200):
            await Turn()

    assert len(turns) >= 50
    assert max(turns.count(each) for each in turns) <= 2


@pytest.mark.asyncio
async def test_scraper_reads_added_fields_from_the_next_page_on():
    """A new playbook may ask for a field that nobody read before."""
    seen: list[PageReading] = []
    async with World(on_reading=seen.append).running() as world:
        world.pages.bodies["http://n0000/"] = b'DCGM_FI_DEV_MEMORY_TEMP{gpu="0",UUID="GPU-1"} 71\n'
        world.aim(1)
        await world.clock.advance(1)
        world.scraper.set_fields(["DCGM_FI_DEV_MEMORY_TEMP"])
        world.scraper.scrape_now("n0000")
        await world.clock.advance(1)

    assert [len(reading.gpus) for reading in seen] == [0, 1]
    assert seen[1].gpus[0].value("DCGM_FI_DEV_MEMORY_TEMP") == 71


@pytest.mark.asyncio
async def test_scraper_ends_when_a_callback_breaks_a_rule():
    """A broken rule of our own must end the process and not hide in a task."""

    def broken(_: PageReading) -> None:
        raise ContractError("no")

    world = World(on_reading=broken)
    task = asyncio.get_running_loop().create_task(world.scraper.run())
    world.aim(1)
    await world.clock.advance(1)

    with pytest.raises(ExceptionGroup) as caught:
        await task
    assert caught.group_contains(ContractError)


@pytest.mark.parametrize(
    "limits",
    [{"timeout_s": 0.0}, {"timeout_s": 16.0}, {"healthy_max": 0}, {"failing_max": 0}, {"bytes_max": 0}],
)
def test_settings_refuse_limits_that_cannot_work(limits):
    """A time-out above the period would let one target take two places."""
    with pytest.raises(ValueError, match="must be"):
        ScrapeSettings(**limits)
