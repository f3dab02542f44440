"""Asks the second witness of a silent kubelet: its Lease, read from the server before the grant.

It only reads and remembers; whether the silence is believed is the coverage gate's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from remediator.core.silence import contradiction
from remediator.errors import PermanentError, TransientError
from remediator.model.views import NodeView
from remediator.ports import Clock, Reader

FRESH_S: Final = 10.0
LOOKS_PER_PASS_MAX: Final = 20


class Witnesses:
    """What the Leases of silent nodes said, by Node uid, for ten seconds."""

    def __init__(self, *, reader: Reader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._said: dict[str, tuple[float, str]] = {}

    def said(self) -> Mapping[str, str]:
        """What speaks against each node's silence; empty text where its Lease confirms it."""
        now = self._clock.monotonic()
        self._said = {uid: found for uid, found in self._said.items() if now - found[0] <= FRESH_S}
        return {uid: against for uid, (_, against) in self._said.items()}

    async def look(self, silent: Callable[[], Iterable[NodeView]]) -> None:
        """Read the Lease of every node that needs a witness now, one after another, at most 20.

        Args:
            silent: these nodes, asked again after each read: another may have come meanwhile.
        """
        for _ in range(LOOKS_PER_PASS_MAX):
            known = self.said()
            node = next((each for each in silent() if each.uid not in known), None)
            if node is None:
                return
            against = await self._ask(node.name)
            self._said[node.uid] = (self._clock.monotonic(), against)

    async def _ask(self, node: str) -> str:
        try:
            return contradiction(await self._reader.heartbeat(node)) or ""
        except (TransientError, PermanentError) as error:
            return f"its Lease can't be read: {error}"
