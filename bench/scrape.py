"""Pages per second and core that the scraper fetches and reads, beside a GET loop that reads nothing.

A core is a core of this process: pages are divided by the CPU time that it used, so that the page
server, which runs on another core, and whoever else is busy count for little. Blocks alternate.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from random import Random
from typing import Final

import aiohttp

from bench.context import Context
from bench.results import Finding, a_series, at_least
from remediator.adapters.clock import SystemClock
from remediator.adapters.exporters.fetch import HttpPages
from remediator.adapters.exporters.scan import Scanner
from remediator.adapters.exporters.scraper import Scraper, ScrapeSettings
from remediator.errors import PermanentError
from remediator.model.signal import PageReading, PageTrouble

AT_ONCE: Final = 16
TARGETS: Final = 4_096
PERIOD_S: Final = 1.0
BLOCKS: Final = 10
PAGES_PER_S_MIN: Final = 1_500


def measure(context: Context) -> Finding:
    """Alternate the scraper and the bare loop for ``context.seconds`` in all."""
    with _pages() as (url, page_bytes):
        block_s = max(1.0, context.seconds / (2 * BLOCKS))
        asyncio.run(_scrape(url, block_s, context.seed))  # warm-up
        ours, plain, steps = [], [], []
        for number in range(BLOCKS):
            ours.append(asyncio.run(_scrape(url, block_s, context.seed + number)))
            steps.append(asyncio.run(_fetch_and_scan(url, block_s)))
            plain.append(asyncio.run(_bare(url, block_s)))
            context.tell(f"block {number + 1} of {BLOCKS}: {ours[-1]:.0f} and bare {plain[-1]:.0f} pages/s")
    series = (
        a_series("remediator, the whole scraper", "1/s", ours),
        a_series("remediator, fetch and scan in a loop", "1/s", steps),
        a_series("bare, aiohttp GET without reading", "1/s", plain),
    )
    rate = series[0].summary.p50
    return Finding(
        series=series,
        checks=(
            at_least("pages per second and core", rate, PAGES_PER_S_MIN),
            at_least("rate to the bare rate", rate / series[2].summary.p50, 0.0),
        ),
        conditions={
            "pageBytes": page_bytes,
            "blocks": BLOCKS,
            "blockSeconds": block_s,
            "fetchesAtOnce": AT_ONCE,
            "targets": TARGETS,
            "connections": "loopback, kept alive",
            "core": "CPU seconds of the reading process, system time included",
        },
    )


async def _scrape(url: str, seconds: float, seed: int) -> float:
    """The product's scraper on more targets than it can fetch in a period: it is never idle."""
    count = 0

    def read(reading: PageReading) -> None:
        nonlocal count
        if reading.bad_lines or len(reading.gpus) != 8:
            raise PermanentError(f"the page was not read: {len(reading.gpus)} GPUs")
        count += 1

    async with _http() as pages:
        scraper = Scraper(
            pages=pages,
            clock=SystemClock(),
            rng=Random(seed),
            settings=ScrapeSettings(period_s=PERIOD_S, timeout_s=PERIOD_S, healthy_max=AT_ONCE),
            on_reading=read,
            on_failure=_failed,
        )
        scraper.set_targets({f"node-{number}": url for number in range(TARGETS)})
        running = asyncio.ensure_future(scraper.run())
        began = time.process_time()
        await asyncio.wait((running,), timeout=seconds)
        used_s = time.process_time() - began
        if running.done():
            running.result()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return count / used_s


async def _fetch_and_scan(url: str, seconds: float) -> float:
    scanner, clock = Scanner(), SystemClock()
    async with _http() as pages:

        async def once() -> None:
            body = await pages.fetch(url, timeout_s=10.0, bytes_max=4 << 20)
            scanner.scan(body, node="gpu-a-01", at=clock.now(), at_monotonic=clock.monotonic())

        return await _rate(once, seconds)


async def _bare(url: str, seconds: float) -> float:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:

        async def once() -> None:
            async with session.get(url) as response:
                await response.read()

        return await _rate(once, seconds)


async def _rate(once: Callable[[], Awaitable[None]], seconds: float) -> float:
    count = 0
    until = time.monotonic() + seconds

    async def worker() -> None:
        nonlocal count
        while time.monotonic() < until:
            await once()
            count += 1

    began = time.process_time()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return count / (time.process_time() - began)


def _failed(node: str, trouble: PageTrouble) -> None:
    raise PermanentError(f"{node}: {trouble.text}")


@asynccontextmanager
async def _http() -> AsyncIterator[HttpPages]:
    async with HttpPages(connections_max=AT_ONCE, keepalive_s=60.0, user_agent="bench") as pages:
        yield pages


@contextmanager
def _pages() -> Iterator[tuple[str, int]]:
    """Run the page server; its URL and the page's size."""
    command = [sys.executable, "-m", "bench.pages_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port, size = process.stdout.readline().split()
        try:
            yield f"http://127.0.0.1:{port}/metrics", int(size)
        finally:
            process.communicate("", timeout=10)
