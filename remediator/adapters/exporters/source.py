"""Follows the policy: which pages are fetched how often, over scrapers that come and go with it.

A scraper keeps its period for life; another period or time-out means another scraper.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Final

from remediator.adapters.exporters.scraper import Counters, Scraper, ScrapeSettings
from remediator.adapters.exporters.targets import targets
from remediator.model.duration import seconds
from remediator.model.policy import ExporterSpec
from remediator.model.signal import PageReading, PageTrouble
from remediator.model.views import NodeView
from remediator.ports import Clock, Pages

LIMITS: Final = ScrapeSettings()


class ExporterSource:
    """``ports.PageSource``. ``follow`` may be called before, while and after ``run`` runs.

    Args:
        pages: where pages come from.
        clock, rng: as of ``Scraper``.
        on_reading: called with each page that was read.
        on_failure: called with node and trouble each time that no page could be read.
    """

    def __init__(
        self,
        *,
        pages: Pages,
        clock: Clock,
        rng: Random,
        on_reading: Callable[[PageReading], None],
        on_failure: Callable[[str, PageTrouble], None],
    ) -> None:
        self._pages = pages
        self._clock = clock
        self._rng = rng
        self._on_reading = on_reading
        self._on_failure = on_failure
        self._scraper: Scraper | None = None
        self._settings: ScrapeSettings | None = None
        self._fields: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._told = False  # what to follow
        self._round_complete = False  # before this scraper, with the same policy but for its period

    @property
    def round_complete(self) -> bool:
        """True once every target was answered or had failed; at once where nothing is to be fetched.

        Another period does not take it back. Exporters that are switched off and on again do.
        """
        if self._scraper is None:
            return self._told
        return self._round_complete or self._scraper.round_complete

    @property
    def targets(self) -> int:
        return self._scraper.targets if self._scraper is not None else 0

    @property
    def counters(self) -> Counters:
        """Those of the present scraper."""
        return self._scraper.counters if self._scraper is not None else Counters()

    def follow(
        self,
        spec: ExporterSpec | None,
        nodes: Iterable[NodeView],
        addresses: Mapping[str, tuple[str, ...]],
        fields: frozenset[str],
    ) -> tuple[str, ...]:
        """Fetch the pages of these nodes from now on; with no ``spec`` none at all.

        Args:
            spec: where the pages are, and how often to fetch them.
            nodes: all nodes; ``spec.nodes`` selects.
            addresses: of the running exporter pods by node, as ``spec.podSelector`` found them.
            fields: read besides those that are always read.

        Returns:
            What is wrong, one line each, at most 33.
        """
        self._told = True
        if spec is None:
            self._replace(None)
            return ()
        settings, problems = _settings(spec)
        scraper = self._scraper
        if scraper is None or settings != self._settings:
            self._round_complete = scraper is not None and self.round_complete
            scraper = self._make(settings)
            self._replace(scraper)
            self._settings = settings
            scraper.set_fields(fields)
        elif fields != self._fields:
            scraper.set_fields(fields)
        self._fields = fields
        found = targets(spec, nodes, addresses)
        scraper.set_targets(found.urls)
        return *problems, *found.problems

    async def run(self) -> None:
        """Fetch until cancelled; once in the life of a source. An error that a callback raises ends it."""
        while True:
            self._changed.clear()
            scraper = self._scraper
            if scraper is None:
                await self._changed.wait()
            else:
                await self._run_until_replaced(scraper)

    async def _run_until_replaced(self, scraper: Scraper) -> None:
        work = asyncio.create_task(scraper.run())
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait((work, changed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            changed.cancel()
            # Fetches in flight end here, so that two scrapers never ask one exporter at once.
            ended = await asyncio.gather(work, return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                raise error

    def _replace(self, scraper: Scraper | None) -> None:
        if scraper is not self._scraper:
            self._scraper = scraper
            self._settings = None
            self._changed.set()

    def _make(self, settings: ScrapeSettings) -> Scraper:
        def read(reading: PageReading) -> None:
            if self._scraper is made:  # what a replaced scraper had in flight is not wanted any more
                self._on_reading(reading)

        def failed(node: str, trouble: PageTrouble) -> None:
            if self._scraper is made:
                self._on_failure(node, trouble)

        made = Scraper(
            pages=self._pages,
            clock=self._clock,
            rng=self._rng,
            settings=settings,
            on_reading=read,
            on_failure=failed,
        )
        return made


def _settings(spec: ExporterSpec) -> tuple[ScrapeSettings, tuple[str, ...]]:
    """The scraper's limits; a time-out that is longer than the period is cut to it, and said."""
    period_s, timeout_s = float(seconds(spec.period)), float(seconds(spec.timeout))
    if period_s <= 0 or timeout_s <= 0:
        problem = (
            f"exporter period {spec.period} and timeout {spec.timeout} must be above zero; "
            f"{LIMITS.period_s:g} s and {LIMITS.timeout_s:g} s apply"
        )
        return LIMITS, (problem,)
    if timeout_s <= period_s:
        return ScrapeSettings(period_s=period_s, timeout_s=timeout_s), ()
    problem = f"exporter timeout {spec.timeout} is longer than the period {spec.period}, which applies"
    return ScrapeSettings(period_s=period_s, timeout_s=period_s), (problem,)
