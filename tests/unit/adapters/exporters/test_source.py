"""How the scraped pages follow the policy, in virtual time."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from remediator.adapters.exporters.source import ExporterSource
from remediator.core.dcgm import XID
from remediator.errors import ContractError, PageError
from remediator.model.meta import LabelSelector
from remediator.model.policy import ExporterSpec
from remediator.model.signal import PageReading, PageTrouble
from remediator.model.views import NodeView
from remediator.ports import PageSource

pytestmark = pytest.mark.asyncio
T0 = datetime(2026, 11, 22, tzinfo=UTC)
EXTRA = "DCGM_FI_DEV_FB_USED"
BODY = f'{XID}{{gpu="0",UUID="GPU-1"}} 0\n{EXTRA}{{gpu="0",UUID="GPU-1"}} 5\n'.encode()


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
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self.sleepers, (self.time + seconds, self.slept, wake))
        await wake

    async def advance(self, seconds: float) -> None:
        end = self.time + seconds
        await self.settle()
        while self.sleepers and self.sleepers[0][0] <= end:
            self.time, _, wake = heapq.heappop(self.sleepers)
            if not wake.done():
                wake.set_result(None)
            await self.settle()
        self.time = end

    async def settle(self) -> None:
        for _ in range(60):
            await Turn()


class FakePages:
    """Answers at once, or hangs until its time-out where the URL is in ``hanging``."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.fetched: list[tuple[float, str, float]] = []
        self.hanging: set[str] = set()
        self.held: asyncio.Future[None] | None = None  # answers wait for it
        self.in_flight = 0

    async def fetch(self, url: str, *, timeout_s: float, bytes_max: int) -> bytes:
        self.fetched.append((self.clock.time, url, timeout_s))
        self.in_flight += 1
        try:
            if url in self.hanging:
                await self.clock.sleep(timeout_s)
                raise PageError("TimedOut", f"{url}: no complete page within {timeout_s:g} s")
            if self.held is not None:
                await self.held
            return BODY
        finally:
            self.in_flight -= 1


class World:
    """One source and all it touches."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.pages = FakePages(self.clock)
        self.readings: list[PageReading] = []
        self.failures: list[tuple[str, PageTrouble]] = []
        self.source = ExporterSource(
            pages=self.pages,
            clock=self.clock,
            rng=Random(7),
            on_reading=self.readings.append,
            on_failure=lambda node, trouble: self.failures.append((node, trouble)),
        )

    def follow(
        self,
        spec: ExporterSpec | None,
        *names: str,
        addresses: Mapping[str, tuple[str, ...]] | None = None,
        fields: frozenset[str] = frozenset(),
    ) -> tuple[str, ...]:
        return self.source.follow(spec, [a_node(name) for name in names], addresses or {}, fields)

    def fetched_since(self, start: float) -> list[float]:
        return [at - start for at, _, _ in self.pages.fetched if at >= start]


@asynccontextmanager
async def running(world: World) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(world.source.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, ExceptionGroup):
            await task


def a_node(name: str, **labels: str) -> NodeView:
    return NodeView(name=name, uid=f"uid-{name}", resource_version="1", labels=labels)


def a_spec(period: str = "15s", timeout: str = "10s") -> ExporterSpec:
    return ExporterSpec(address="http://{node}:9400/metrics", period=period, timeout=timeout)


async def test_source_is_what_the_port_asks_for():
    """The runtime only knows the port."""
    source: PageSource = World().source

    assert not source.round_complete


async def test_pages_of_the_followed_nodes_are_read_each_period():
    """What was followed before the start counts too."""
    world = World()
    assert world.follow(a_spec(), "a", "b") == ()
    async with running(world):
        await world.clock.advance(61)

    assert {reading.node for reading in world.readings} == {"a", "b"}
    assert 8 <= len(world.readings) <= 12
    assert world.source.round_complete
    assert world.source.targets == 2


async def test_without_a_spec_nothing_is_fetched_and_nothing_is_awaited():
    """The exporter is optional: without it nobody may wait for its first round."""
    world = World()
    async with running(world):
        await world.clock.advance(30)
        assert not world.source.round_complete
        world.follow(None)
        await world.clock.advance(30)

    assert world.source.round_complete
    assert world.pages.fetched == []


async def test_switching_off_stops_at_once_and_on_again_starts_a_new_round():
    """Pages of before are no knowledge of now."""
    world = World()
    world.follow(a_spec(), "a")
    async with running(world):
        await world.clock.advance(20)
        world.follow(None)
        stopped_at = world.clock.time
        await world.clock.advance(60)
        assert world.fetched_since(stopped_at) == []

        world.pages.hanging.add("http://a:9400/metrics")
        world.follow(a_spec(), "a")
        await world.clock.advance(1)
        assert not world.source.round_complete
        await world.clock.advance(12)
        assert world.source.round_complete
        assert [node for node, _ in world.failures] == ["a"]


async def test_changed_period_and_timeout_hold_without_a_new_start():
    """The policy is edited while the controller runs, and nobody restarts it for that."""
    world = World()
    world.follow(a_spec("15s"), "a")
    async with running(world):
        await world.clock.advance(31)
        world.follow(a_spec("3s", "2s"), "a")
        changed_at = world.clock.time
        assert world.source.round_complete  # known before, and still known
        await world.clock.advance(30)

    assert 9 <= len(world.fetched_since(changed_at)) <= 12
    assert world.pages.fetched[-1][2] == 2


async def test_change_ends_the_fetches_in_flight_and_drops_their_word():
    """Two scrapers must never ask one exporter at once, nor tell of targets that are gone."""
    world = World()
    world.pages.hanging.add("http://a:9400/metrics")
    world.follow(a_spec("15s", "10s"), "a")
    async with running(world):
        await world.clock.advance(1)
        assert world.pages.in_flight == 1
        world.follow(a_spec("60s", "50s"), "b")
        await world.clock.settle()
        assert world.pages.in_flight == 0
        await world.clock.advance(20)

    assert world.failures == []
    assert {reading.node for reading in world.readings} == {"b"}


async def test_answer_that_arrives_with_the_change_is_dropped():
    """The page is there, but the exporter was switched off in the same turn of the loop."""
    world = World()
    world.pages.held = asyncio.get_running_loop().create_future()
    world.follow(a_spec(), "a")
    async with running(world):
        await world.clock.advance(1)
        assert world.pages.in_flight == 1
        world.pages.held.set_result(None)
        world.follow(None)
        await world.clock.settle()

    assert (world.readings, world.failures) == ([], [])


async def test_same_spec_again_disturbs_nothing():
    """It is told every few seconds; the rhythm of the fetches must not depend on that."""
    quiet, told = World(), World()
    for world in (quiet, told):
        world.follow(a_spec(), "a", "b", "c")
        async with running(world):
            for _ in range(60):
                if world is told:
                    world.follow(a_spec(), "a", "b", "c")
                await world.clock.advance(1)

    assert told.pages.fetched == quiet.pages.fetched


async def test_nodes_come_and_go():
    """A node that has left is not asked any more."""
    world = World()
    world.follow(a_spec(), "a", "b")
    async with running(world):
        await world.clock.advance(20)
        world.follow(a_spec(), "b", "c")
        at = world.clock.time
        await world.clock.advance(30)

    assert {url for when, url, _ in world.pages.fetched if when >= at} == {
        "http://b:9400/metrics",
        "http://c:9400/metrics",
    }


async def test_wanted_fields_are_read_besides_the_usual_ones():
    """A playbook's own field appears with the next page, and goes again."""
    world = World()
    world.follow(a_spec(), "a")
    async with running(world):
        await world.clock.advance(1)
        world.follow(a_spec(), "a", fields=frozenset((EXTRA,)))
        await world.clock.advance(15)
        world.follow(a_spec("30s"), "a", fields=frozenset((EXTRA,)))  # a new scraper knows them too
        await world.clock.advance(30)
        world.follow(a_spec("30s"), "a")
        await world.clock.advance(31)

    seen = [{field for gpu in each.gpus for field, _ in gpu.values} for each in world.readings]
    assert EXTRA not in seen[0]
    assert seen[1] == seen[0] | {EXTRA}
    assert EXTRA in seen[2]
    assert seen[-1] == seen[0]


async def test_problems_are_returned_and_the_rest_is_fetched():
    """One node without a pod must not cost the others their pages."""
    world = World()
    spec = ExporterSpec(pod_selector=LabelSelector(match_labels={"app": "dcgm"}), namespace="gpu")
    problems = world.follow(spec, "a", "b", addresses={"a": ("10.0.0.1",)})
    async with running(world):
        await world.clock.advance(20)

    assert problems == ("b: no running exporter pod",)
    assert {url for _, url, _ in world.pages.fetched} == {"http://10.0.0.1:9400/metrics"}


@pytest.mark.parametrize(
    ("period", "timeout", "problem", "timeout_s"),
    [
        ("5s", "10s", "exporter timeout 10s is longer than the period 5s, which applies", 5.0),
        ("0s", "10s", "exporter period 0s and timeout 10s must be above zero; 15 s and 10 s apply", 10.0),
    ],
    ids=["longer", "zero"],
)
async def test_limits_that_cannot_be_are_said_and_something_safe_applies(period, timeout, problem, timeout_s):
    """A slip in the policy must not make the fleet blind."""
    world = World()
    problems = world.follow(a_spec(period, timeout), "a")
    async with running(world):
        await world.clock.advance(20)

    assert problems == (problem,)
    assert world.pages.fetched[0][2] == timeout_s


async def test_broken_contract_in_a_callback_ends_the_run():
    """It must reach whoever ends the process."""
    world = World()

    def broken(_: PageReading) -> None:
        raise ContractError("no such node")

    source = ExporterSource(
        pages=world.pages, clock=world.clock, rng=Random(7), on_reading=broken, on_failure=lambda *_: None
    )
    source.follow(a_spec(), [a_node("a")], {}, frozenset())
    task = asyncio.create_task(source.run())
    await world.clock.advance(2)

    assert task.done()
    with pytest.raises(ExceptionGroup) as caught:
        task.result()
    assert caught.value.subgroup(ContractError) is not None
