"""Keeps the readings of all exporters fresh: when to fetch which page. It judges nothing.

Every target has its own period and its own time-out. Targets that failed last time wait in a lane
of their own, so that those which hang can use up that lane and never the one of the healthy.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from remediator.adapters.exporters.scan import Scanner
from remediator.core.coverage import STALE_PERIODS
from remediator.errors import PageError
from remediator.model.signal import PageReading, PageTrouble
from remediator.ports import Clock, Pages

TICK_S: Final = 0.05  # how late a fetch may start
NAP_MAX_S: Final = 0.25  # how late a changed set of targets is seen
FIRST_ROUND_PER_S: Final = 500


@dataclass(frozen=True, slots=True)
class ScrapeSettings:
    """Limits of the scraper.

    ``healthy_max`` and ``failing_max`` are fetches in flight. At the start every target counts as
    healthy: a tenth of 10,000 targets that hang for 10 s of a period of 15 s are 670 at once.
    """

    period_s: float = 15.0
    timeout_s: float = 10.0
    bytes_max: int = 4 * 1024 * 1024
    healthy_max: int = 1_024
    failing_max: int = 512

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= self.period_s:
            raise ValueError(
                f"time-out {self.timeout_s:g} s must be above 0 and at most the period {self.period_s:g} s"
            )
        if min(self.bytes_max, self.healthy_max, self.failing_max) < 1:
            raise ValueError("bytes_max, healthy_max and failing_max must be at least 1")


class TargetState(enum.Enum):
    """What is known of one target. Only ``FRESH`` is knowledge about its node."""

    NONE = "none"  # no such target
    WAITING = "waiting"  # not answered yet
    FRESH = "fresh"
    STALE = "stale"  # no good page for three periods, or never one


@dataclass(slots=True)
class Counters:
    """Since the start. ``queued`` counts fetches that had to wait for a place in their lane."""

    fetches: int = 0
    readings: int = 0
    failures: int = 0
    bad_lines: int = 0
    queued: int = 0


@dataclass(slots=True, eq=False)
class _Target:
    node: str
    url: str
    phase_s: float
    due: float
    busy: bool = False
    answered: bool = False
    failing: bool = False
    good_at: float | None = None


@dataclass(slots=True)
class _Lane:
    size: int
    busy: int = 0
    waiting: deque[_Target] = field(default_factory=deque)  # each target at most once


class Scraper:
    """Fetches and reads every target once a period, until ``run`` is cancelled.

    Args:
        pages: where pages come from; ``fetch`` keeps to its time-out.
        clock: monotonic times and sleeping.
        rng: splays the targets over the period.
        settings: limits.
        on_reading: called with each page that was read, between two awaits.
        on_failure: called with node and trouble each time that no page could be read.
    """

    def __init__(
        self,
        *,
        pages: Pages,
        clock: Clock,
        rng: Random,
        settings: ScrapeSettings,
        on_reading: Callable[[PageReading], None],
        on_failure: Callable[[str, PageTrouble], None],
    ) -> None:
        self._pages = pages
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._on_reading = on_reading
        self._on_failure = on_failure
        self._scanner = Scanner()
        self._targets: dict[str, _Target] = {}
        self._heap: list[tuple[float, int, _Target]] = []
        self._pushed = 0
        self._unanswered = 0
        self._round_complete = False
        self._healthy = _Lane(settings.healthy_max)
        self._failing = _Lane(settings.failing_max)
        self._parsing = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None
        self.counters = Counters()

    @property
    def round_complete(self) -> bool:
        """True once every target of that moment was answered or had failed. It never falls back:
        a node that joins later is not covered yet, but the fleet is no longer unseen.
        """
        return self._round_complete

    @property
    def in_flight(self) -> int:
        return self._healthy.busy + self._failing.busy

    @property
    def targets(self) -> int:
        return len(self._targets)

    def state(self, node: str) -> TargetState:
        """What is known of the target of ``node`` right now."""
        target = self._targets.get(node)
        if target is None:
            return TargetState.NONE
        if not target.answered:
            return TargetState.WAITING
        age_s = None if target.good_at is None else self._clock.monotonic() - target.good_at
        fresh = age_s is not None and age_s <= STALE_PERIODS * self._settings.period_s
        return TargetState.FRESH if fresh else TargetState.STALE

    def set_fields(self, fields: Iterable[str]) -> None:
        """Read these metric fields too, from the next page on."""
        self._scanner = Scanner(fields)

    def set_targets(self, urls: Mapping[str, str]) -> None:
        """Replace all targets; ``urls`` by node name. What did not change keeps its state."""
        now = self._clock.monotonic()
        new = sorted(
            name for name, url in urls.items() if name not in self._targets or self._targets[name].url != url
        )
        for name in [name for name in self._targets if name not in urls]:
            self._drop(self._targets.pop(name))
        # The first round is spread over less than a period: until it is over nobody may act.
        spread_s = min(self._settings.period_s, len(new) / FIRST_ROUND_PER_S)
        for name in new:
            if name in self._targets:
                self._drop(self._targets[name])
            share = self._rng.random()
            target = _Target(name, urls[name], share * self._settings.period_s, now + share * spread_s)
            self._targets[name] = target
            self._unanswered += 1
            self._push(target)
        self._end_round()

    def scrape_now(self, node: str) -> bool:
        """Fetch this page at the next tick. False where there is no such target.

        Does nothing for a target that is being fetched or waits for its lane already.
        """
        target = self._targets.get(node)
        if target is None:
            return False
        if not target.busy:
            target.due = self._clock.monotonic()
            self._push(target)
        return True

    async def run(self) -> None:
        """Fetch until cancelled; once in the life of a scraper. An error that a callback raises ends it."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                while True:
                    self._start_due()
                    await self._clock.sleep(self._nap_s())
            finally:
                self._group = None

    def _nap_s(self) -> float:
        if not self._heap:
            return NAP_MAX_S
        return min(NAP_MAX_S, max(TICK_S, self._heap[0][0] - self._clock.monotonic()))

    def _push(self, target: _Target) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (target.due, self._pushed, target))

    def _is_current(self, target: _Target) -> bool:
        return self._targets.get(target.node) is target

    def _start_due(self) -> None:
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            due, _, target = heapq.heappop(self._heap)
            # An entry whose target was replaced, moved or started meanwhile is left over.
            if due != target.due or target.busy or not self._is_current(target):
                continue
            target.busy = True
            lane = self._failing if target.failing else self._healthy
            if lane.busy < lane.size:
                self._start(target, lane)
            else:
                self.counters.queued += 1
                lane.waiting.append(target)

    def _start(self, target: _Target, lane: _Lane) -> None:
        if self._group is not None:
            lane.busy += 1
            self._group.create_task(self._scrape(target, lane))

    async def _scrape(self, target: _Target, lane: _Lane) -> None:
        await self._fetch(target)
        lane.busy -= 1
        target.busy = False
        while lane.waiting and lane.busy < lane.size:
            waiting = lane.waiting.popleft()
            if self._is_current(waiting):
                self._start(waiting, lane)
        if self._is_current(target):
            target.due = self._next_due(target)
            self._push(target)

    async def _fetch(self, target: _Target) -> None:
        self.counters.fetches += 1
        settings = self._settings
        try:
            body = await self._pages.fetch(
                target.url, timeout_s=settings.timeout_s, bytes_max=settings.bytes_max
            )
            at, at_monotonic = self._clock.now(), self._clock.monotonic()
            async with self._parsing:  # one page per turn of the loop, however many arrive together
                reading = self._scanner.scan(body, node=target.node, at=at, at_monotonic=at_monotonic)
                await self._clock.sleep(0)
        except PageError as error:
            self._failed(target, PageTrouble(error.kind, str(error)))
            return
        if not self._is_current(target):
            return
        self.counters.readings += 1
        self.counters.bad_lines += reading.bad_lines
        target.good_at = at_monotonic
        target.failing = False
        self._on_reading(reading)
        self._answer(target)

    def _failed(self, target: _Target, trouble: PageTrouble) -> None:
        self.counters.failures += 1
        if not self._is_current(target):
            return
        target.failing = True
        self._on_failure(target.node, trouble)
        self._answer(target)

    def _next_due(self, target: _Target) -> float:
        """The target's own place in the next period; a slow answer does not move it."""
        now = self._clock.monotonic()
        period_s = self._settings.period_s
        due = now - (now - target.phase_s) % period_s + period_s
        # The first fetch and an extra one lie off the place; do not fetch twice in a row for that.
        return due if due - now >= period_s / 4 or target.failing else due + period_s

    def _answer(self, target: _Target) -> None:
        if not target.answered:
            target.answered = True
            self._unanswered -= 1
            self._end_round()

    def _drop(self, target: _Target) -> None:
        if not target.answered:
            self._unanswered -= 1

    def _end_round(self) -> None:
        if self._targets and not self._unanswered:
            self._round_complete = True
