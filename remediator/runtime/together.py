"""Two ways to wait that several loops share: for news or a while, and for many things a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from remediator.ports import Clock

T = TypeVar("T")


async def news_or(wake: asyncio.Event, seconds: float, clock: Clock) -> None:
    """Wait until ``wake`` is set, ``seconds`` at most."""
    nap = asyncio.ensure_future(clock.sleep(seconds))
    news = asyncio.ensure_future(wake.wait())
    try:
        await asyncio.wait((nap, news), return_when=asyncio.FIRST_COMPLETED)
    finally:
        nap.cancel()
        news.cancel()


async def spread(work: Callable[[T], Awaitable[None]], items: Iterable[T], *, at_once: int) -> None:
    """Do all of them, a few at a time; what fails stops no other, and the first error is raised."""
    turn = asyncio.Semaphore(at_once)

    async def one(item: T) -> None:
        async with turn:
            await work(item)

    ends = await asyncio.gather(*(one(item) for item in items), return_exceptions=True)
    for error in ends:
        if error is not None:
            raise error
