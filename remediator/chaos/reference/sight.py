"""What the reference controller believes about Nodes: a list, and a watch that goes on from there."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from remediator.adapters.kube.wire import close_lines
from remediator.chaos.reference.api import NODES, Api, condition
from remediator.chaos.reference.bugs import Bug
from remediator.errors import PermanentError, TransientError
from remediator.ports import Clock, Transport

PAUSE_S: Final = 1.0
IDLE_S: Final = 70.0  # the server sends a bookmark every minute


class Sight:
    """``nodes`` by name; ``stirred`` are those whose fault came up in an event of the watch."""

    def __init__(self, transport: Transport, api: Api, clock: Clock, bugs: frozenset[Bug]) -> None:
        self._transport = transport
        self._api = api
        self._clock = clock
        self._bugs = bugs
        self._version = ""
        self.nodes: dict[str, dict[str, Any]] = {}
        self.stirred: set[str] = set()

    async def follow(self) -> None:
        """Keep in step, for ever."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except TransientError:
                pass
            except PermanentError:
                self._gone()
            await self._clock.sleep(PAUSE_S)

    async def _list(self) -> None:
        found = await self._api.get(NODES)
        if not found.ok:
            return
        self.nodes = {each["metadata"]["name"]: each for each in found.body["items"]}
        self._version = found.version

    def _gone(self) -> None:
        """The history behind our version is gone: only a list tells what we have missed."""
        if Bug.DEAF_AFTER_410 not in self._bugs:
            self._version = ""

    async def _watch(self) -> None:
        if not self._version:
            return
        query = {"watch": "1", "resourceVersion": self._version, "allowWatchBookmarks": "true"}
        lines = self._transport.stream(
            NODES, query=query, headers=self._api.headers(), connect_timeout_s=10.0, idle_timeout_s=IDLE_S
        )
        try:
            async for line in lines:
                event = msgspec.json.decode(line)
                if event["type"] == "ERROR":
                    self._gone()
                    return
                self._take(event["type"], event["object"])
        finally:
            await close_lines(lines)

    def _take(self, what: str, node: dict[str, Any]) -> None:
        self._version = node["metadata"]["resourceVersion"]
        if what == "BOOKMARK":
            return
        name = node["metadata"]["name"]
        if what == "DELETED":
            self.nodes.pop(name, None)
            return
        before = self.nodes.get(name)
        self.nodes[name] = node
        if condition(node) != (condition(before) if before is not None else ""):
            self.stirred.add(name)
