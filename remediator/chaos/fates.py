"""Counts the writes of a history, and gives the chosen ones a fate: a crash, or time on the way."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from typing import Final

from remediator.app.lifeline import WRITES, Lifeline
from remediator.app.relay import Call
from remediator.chaos.history import Killed
from remediator.errors import TransientError
from remediator.ports import Response, Transport
from remediator.sim.loop import virtual_clock

LATE_S: Final = 0.4  # enough for everybody else's messages to overtake
HELD_S: Final = 25.0  # longer than a Lease
# Written again and again by design, or asking for nothing but an answer.
_NOT_COUNTED: Final = ("leases", "events", "selfsubjectaccessreviews", "selfsubjectreviews")


class Fate(enum.Enum):
    """What becomes of a request, and of the process that sent it."""

    BEFORE = "before"  # dead before the server heard of it
    AFTER = "after"  # dead after it was done
    LOST = "lost"  # alive, and never told that it was done
    LATE = "late"  # the request is overtaken by others
    HELD = "held"  # the request arrives after a Lease's time, also where its process is dead by then
    REPLY_LATE = "reply late"  # it is done, and others come before the answer


CRASHES: Final = (Fate.BEFORE, Fate.AFTER, Fate.LOST)


class Writes:
    """All writes of all processes of one history.

    Args:
        fates: by the number of the write, from 0.
    """

    def __init__(self, fates: Mapping[int, Fate]) -> None:
        self.seen: list[str] = []
        self.struck = 0
        self._fates = fates

    def between(self, way: Transport) -> Transport:
        """One process' way to the server."""
        return _Way(way, self)

    def next_fate(self, write: Call) -> Fate | None:
        """Take one more write down."""
        fate = self._fates.get(len(self.seen))
        self.seen.append(write.what)
        self.struck += fate is not None
        return fate


class _Way(Lifeline):
    """The way of one process; at the chosen writes it is cut, or takes its time."""

    def __init__(self, inner: Transport, writes: Writes) -> None:
        super().__init__(inner)
        self._writes = writes
        self._under_way: set[asyncio.Task[Response]] = set()

    async def call(self, call: Call) -> Response:
        await self._while_alive()
        counts = call.method in WRITES and not any(part in _NOT_COUNTED for part in call.path.split("/"))
        match self._writes.next_fate(call) if counts else None:
            case Fate.BEFORE:
                self._die()
            case Fate.AFTER:
                await super().call(call)
                self._die()
            case Fate.LOST:
                await super().call(call)
                raise TransientError(f"{call.what}: connection reset (chaos)")
            case Fate.LATE:
                await virtual_clock().sleep(LATE_S)
            case Fate.HELD:
                return await self._held(call)
            case Fate.REPLY_LATE:
                reply = await super().call(call)
                await virtual_clock().sleep(LATE_S)
                return reply
        return await super().call(call)

    async def _held(self, call: Call) -> Response:
        """It is in the network: whatever becomes of its sender, it arrives."""

        async def arrive() -> Response:
            await virtual_clock().sleep(HELD_S)
            return await self.send(call)

        task = asyncio.get_running_loop().create_task(arrive())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            async with asyncio.timeout(call.timeout_s):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise TransientError(f"{call.what}: no answer within {call.timeout_s:g} s (chaos)") from error

    def _die(self) -> None:
        self.cut = True
        raise Killed
