"""Any history of changes and breaks ends in a cache equal to the server."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.adapters.kube.reflector import Reflector
from remediator.adapters.kube.store import Store, node_changed
from remediator.errors import TransientError
from remediator.model.views import NodeView
from remediator.ports import Clock
from tests.unit.adapters.kube.manual_clock import ManualClock
from tests.unit.adapters.kube.reflected_world import DECODER, EXPIRED, PATH, initial
from tests.unit.adapters.kube.scripted import (
    End,
    Item,
    ScriptedTransport,
    Silence,
    Stream,
    a_node,
    a_page,
    an_event,
)

pytestmark = pytest.mark.asyncio


class History:
    """A server with a few nodes that change, and a stream that may break off after any event."""

    def __init__(self) -> None:
        self.version = 1
        self.nodes: dict[str, dict[str, Any]] = {}
        self.log: list[tuple[int, bytes]] = []

    def change(self, name: str, kind: str) -> None:
        self.version += 1
        if kind == "delete":
            if name in self.nodes:
                del self.nodes[name]
                self.log.append((self.version, an_event("DELETED", a_node(name, self.version))))
            return
        type_ = "MODIFIED" if name in self.nodes else "ADDED"
        self.nodes[name] = a_node(name, self.version, unschedulable=kind == "cordon")
        self.log.append((self.version, an_event(type_, self.nodes[name])))


class HistoryServer(ScriptedTransport):
    """Serves the history: a watch-list of what is there, or all events since a version."""

    def __init__(self, clock: Clock, history: History) -> None:
        super().__init__(clock)
        self._history = history

    async def stream(self, path, *, query=None, headers=None, connect_timeout_s, idle_timeout_s):
        asked = dict(query or {})
        if "sendInitialEvents" in asked:
            lines = initial(self._history.version, *self._history.nodes.values())
        else:
            since = int(asked["resourceVersion"])
            lines = [line for version, line in self._history.log if version > since]
        self.streams.append(Stream(*lines))
        self.watching = self.streams[-1]
        async for line in super().stream(
            path, connect_timeout_s=connect_timeout_s, idle_timeout_s=idle_timeout_s
        ):
            yield line


STEPS = st.one_of(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["write", "cordon", "delete"])),
    st.sampled_from(["reset", "end", "expired", "garbled", "silent", "503", "repeat"]),
)


@given(steps=st.lists(STEPS, max_size=25), seed=st.integers(0, 3))
async def test_the_store_ends_equal_to_the_server_and_so_do_the_news(steps, seed):
    """Whatever breaks in between: no node is lost, none comes back, and each change is told once."""
    clock = ManualClock()
    history = History()
    server = HistoryServer(clock, history)
    server.answer = lambda asked: a_page(history.version, *history.nodes.values())
    store: Store[NodeView] = Store(clock=clock, changed=node_changed)
    replica: dict[str, NodeView] = {}

    def listen(key: str, before: NodeView | None, after: NodeView | None) -> None:
        known = replica.get(key)
        assert (known is None) == (before is None)
        if after is None:
            del replica[key]
        else:
            replica[key] = after

    store.subscribe(listen)
    reflector = Reflector(server, store, DECODER, PATH, clock=clock, rng=random.Random(seed))
    task = asyncio.create_task(reflector.run())
    await clock.settle()
    breaks: dict[str, Item] = {
        "reset": TransientError("reset"),
        "end": End(),
        "expired": an_event("ERROR", EXPIRED),
        "garbled": b'{"type":',
        "silent": Silence(),
        "503": an_event("ERROR", {"code": 503}),
    }
    for step in steps:
        if step == "repeat":
            server.watching.push(*(line for _, line in history.log[-1:]))
        elif isinstance(step, str):
            server.watching.push(breaks[step])
        else:
            logged = len(history.log)
            history.change(*step)
            server.watching.push(*(line for _, line in history.log[logged:]))
        await clock.settle()
    await clock.advance(300)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    cordoned = {name: bool(node["spec"].get("unschedulable")) for name, node in history.nodes.items()}
    assert {key: view.unschedulable for key, view in store.views().items()} == cordoned
    assert {key: view.unschedulable for key, view in replica.items()} == cordoned
    assert reflector.alarms == 0
    assert msgspec.json.encode(sorted(store)) == msgspec.json.encode(sorted(history.nodes))
