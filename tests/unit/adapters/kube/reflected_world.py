"""A reflector of Nodes in front of a scripted server, for the tests of the cache."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from remediator.adapters.kube.projection import node_decoder
from remediator.adapters.kube.reflector import Reflector
from remediator.adapters.kube.store import Store, node_changed
from remediator.model.views import NodeView
from remediator.ports import Response
from tests.unit.adapters.kube.manual_clock import ManualClock
from tests.unit.adapters.kube.scripted import Item, ScriptedTransport, Stream, a_bookmark, an_event

DECODER = node_decoder(gpu_resource="nvidia.com/gpu")
PATH = "/api/v1/nodes"
EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


@dataclass
class World:
    """A reflector of Nodes in front of a scripted server, and what its listener was told."""

    watch_list: bool = True
    clock: ManualClock = field(default_factory=ManualClock)
    told: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = ScriptedTransport(self.clock)
        self.store: Store[NodeView] = Store(clock=self.clock, changed=node_changed)
        self.store.subscribe(self._listen)
        self.reflector = Reflector(
            self.server,
            self.store,
            DECODER,
            PATH,
            clock=self.clock,
            rng=random.Random(7),
            watch_list=self.watch_list,
        )

    def _listen(self, key: str, before: NodeView | None, after: NodeView | None) -> None:
        kind = "added" if before is None else "deleted" if after is None else "updated"
        self.told.append((kind, key))

    def serve(self, *items: Item) -> Stream:
        self.server.streams.append(Stream(*items))
        return self.server.streams[-1]

    def take_told(self) -> list[tuple[str, str]]:
        told, self.told[:] = list(self.told), []
        return told

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.reflector.run())
        await self.clock.settle()
        try:
            yield
            if task.done():
                task.result()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def initial(version: int, *nodes: dict[str, Any]) -> list[bytes]:
    return [*(an_event("ADDED", node) for node in nodes), a_bookmark(version, initial_end=True)]


def pages(*replies: Response) -> Any:
    """Answer LISTs in order, the last one for ever."""
    left = list(replies)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]
