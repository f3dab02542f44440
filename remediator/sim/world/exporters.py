"""``ports.Pages`` without sockets: the pages of the machines, and the troubles on the way to them."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from remediator.errors import PageError
from remediator.fleet.exporter_state import ExporterStates
from remediator.fleet.pages import BINARY_BODY, HTML_BODY, Trouble
from remediator.ports import Clock

ADDRESS: Final = "http://{node}.exporters.test/metrics"


class SimPages:
    """Answers URLs with the state that the exporters are in.

    ``address`` is how a node's URL is made; whoever serves the pages on a socket sets another one.
    """

    def __init__(self, states: ExporterStates, *, clock: Clock, seed: int) -> None:
        self.address = ADDRESS
        self._states = states
        self._clock = clock
        self._rng = Random(f"pages {seed}")

    async def fetch(self, url: str, *, timeout_s: float, bytes_max: int) -> bytes:
        """See ``ports.Pages``."""
        before, _, after = self.address.partition("{node}")
        node = url.removeprefix(before).removesuffix(after)
        try:
            async with asyncio.timeout(timeout_s):
                await self._clock.sleep(self._rng.uniform(0.001, 0.01))
                answer = self._states.answer(node)
                await self._clock.sleep(answer.slow_s)
        except TimeoutError as error:
            raise PageError("TimedOut", f"{url}: no page within {timeout_s:g} s") from error
        match answer.trouble:
            case Trouble.DOWN:
                raise PageError("Unreachable", f"{url}: connection refused")
            case Trouble.TRUNCATED:
                raise PageError("Unreachable", f"{url}: ended in the middle of the page")
            case Trouble.ENDLESS:
                raise PageError("TooLarge", f"{url}: more than {bytes_max} bytes")
            case Trouble.EMPTY:
                return b""
            case Trouble.HTML:
                return HTML_BODY
            case Trouble.BINARY:
                return BINARY_BODY
            case _:
                return answer.body
