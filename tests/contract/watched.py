"""A reflector that runs in real time, what it told and how long it paused: for the tests of watches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from remediator.adapters.clock import SystemClock
from remediator.adapters.kube.listing import ReflectorSettings
from remediator.adapters.kube.projection import node_decoder
from remediator.adapters.kube.reader import kind_decoder
from remediator.adapters.kube.records import LEDGERS
from remediator.adapters.kube.reflector import Reflector
from remediator.adapters.kube.store import Store, node_changed, object_changed
from remediator.adapters.kube.wire import ObjectDecoder
from remediator.app.relay import Call, Relay, WatchCall
from remediator.model.keys import API_VERSION
from remediator.model.ledger import ManagedNode
from remediator.model.views import NodeView
from remediator.ports import Clock, Response, Transport
from tests.contract.live import CLOCK, NODES, until

T = TypeVar("T")
DECODER = node_decoder(gpu_resource="nvidia.com/gpu")


class NotingClock(SystemClock):
    """Real time, and every pause that was asked for."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.pauses.append(seconds)
        await super().sleep(seconds)


class Longest(random.Random):
    """Dice that always show the upper end, so that a pause with jitter is its own limit."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


class Meddling(Relay):
    """A transport that sends watches on from another version, ends them, or waits behind each page.

    ``next_version`` is for the next watch that names one. ``cut`` ends a watch after its next line.
    ``behind_page`` is called with the query of each list request when its answer is there.
    """

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.next_version = ""
        self.watches: list[dict[str, str]] = []
        self.lists: list[dict[str, str]] = []
        self.cut = asyncio.Event()
        self.behind_page: Callable[[Mapping[str, str], Response], None] | None = None

    async def call(self, call: Call) -> Response:
        reply = await self.send(call)
        self.lists.append(dict(call.query or {}))
        if self.behind_page is not None:
            await asyncio.to_thread(self.behind_page, self.lists[-1], reply)
        return reply

    async def watch(self, call: WatchCall) -> AsyncIterator[bytes]:
        asked = dict(call.query or {})
        self.watches.append(dict(asked))
        if self.next_version and "resourceVersion" in asked:
            asked["resourceVersion"], self.next_version = self.next_version, ""
        async for line in self.open(replace(call, query=asked)):
            yield line
            if self.cut.is_set():
                self.cut.clear()
                return


@dataclass
class Watched(Generic[T]):
    """One reflector of the objects with one label, and what it told, oldest first.

    ``shown`` is what the store had, by key, at the moment of each call.
    """

    transport: Transport
    group: str
    path: str
    decoder: ObjectDecoder[T]
    changed: Callable[[T, T], bool]
    watch_list: bool = True
    settings: ReflectorSettings = field(default_factory=ReflectorSettings)
    clock: Clock = CLOCK
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    told: list[tuple[str, T | None, T | None]] = field(default_factory=list)
    shown: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store: Store[T] = Store(clock=self.clock, changed=self.changed)
        self.store.subscribe(self._hear)
        self.reflector = Reflector(
            self.transport,
            self.store,
            self.decoder,
            self.path,
            clock=self.clock,
            rng=self.rng,
            query={"labelSelector": f"test-group={self.group}"} if self.group else None,
            settings=self.settings,
            watch_list=self.watch_list,
        )

    def _hear(self, key: str, before: T | None, after: T | None) -> None:
        self.told.append((key, before, after))
        self.shown.append(sorted(self.store))

    def news(self) -> list[tuple[str, str]]:
        """What was told, as name and added, changed or deleted."""
        return [
            (key, "added" if before is None else "deleted" if after is None else "changed")
            for key, before, after in self.told
        ]

    def forget(self) -> None:
        self.told.clear()
        self.shown.clear()

    @asynccontextmanager
    async def running(self, *, at_once: bool = False) -> AsyncIterator[None]:
        """Run it for the block; wait for its first state or refusal, unless the block wants to do that."""
        task = asyncio.create_task(self.reflector.run())
        try:
            if not at_once:
                await until(
                    lambda: self.store.synced or self.reflector.problem or task.done(), "first answer"
                )
            yield
            if task.done():
                task.result()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def watched_nodes(transport: Transport, group: str, **more: Any) -> Watched[NodeView]:
    given = {"path": NODES, "decoder": DECODER, "changed": node_changed, **more}
    return Watched(transport, group, **given)


def watched_ledgers(transport: Transport, group: str, **more: Any) -> Watched[ManagedNode]:
    """Of a kind that nobody but the test writes to."""
    given = {"path": LEDGERS, "decoder": kind_decoder(ManagedNode), "changed": object_changed, **more}
    return Watched(transport, group, **given)


def a_ledger(name: str, group: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"test-group": group}}
    return {"apiVersion": API_VERSION, "kind": "ManagedNode", "metadata": metadata}
