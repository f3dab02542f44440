"""What one simulated process stands on: its machine, which may stand still, and its way to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from remediator.adapters.kube.wire import close_lines
from remediator.app.relay import Call, Relay, WatchCall
from remediator.ports import Clock, Response, Transport

WRITES: Final = frozenset(("POST", "PUT", "PATCH", "DELETE"))


Wrap = Callable[[Transport], Transport]


def as_it_is(way: Transport) -> Transport:
    """Puts nothing in between."""
    return way


class Machine:
    """``ports.Clock`` of a process that can be stopped, as by SIGSTOP, and whose wall clock may jump.

    A stopped process sends nothing and hears nothing. Monotonic time goes on meanwhile, as it does in life.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running = asyncio.Event()
        self._running.set()
        self._ahead = timedelta()
        self._halt_s, self._halt_at = 0.0, ""

    def now(self) -> datetime:
        return self._clock.now() + self._ahead

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        await self.runs()

    async def runs(self) -> None:
        """Wait while the process is stopped."""
        await self._running.wait()

    @property
    def to_halt(self) -> bool:
        """Has it been told to stop at a write that has not come yet?"""
        return self._halt_s > 0

    def jump(self, seconds: float) -> None:
        """Move the wall clock."""
        self._ahead += timedelta(seconds=seconds)

    def halt_at_write(self, seconds: float, resource: str = "") -> None:
        """Stop the process right before its next write, for so long: the write goes out afterwards.

        ``resource``, in the plural: before its next write of that; empty: of any. Renewals of a Lease are no
        such writes: one that comes late is refused by its version, always.
        """
        self._halt_s, self._halt_at = seconds, resource

    def about_to(self, call: Call) -> None:
        """The process is about to send a request."""
        parts = call.path.split("/")
        meant = call.method in WRITES and "leases" not in parts
        if self._halt_s and meant and (not self._halt_at or self._halt_at in parts):
            self._running.clear()
            asyncio.get_running_loop().call_later(self._halt_s, self._running.set)
            self._halt_s = 0.0


class Lifeline(Relay):
    """The way of one process to the server, until it is cut: then nothing leaves and nothing comes back."""

    def __init__(self, inner: Transport, machine: Machine | None = None) -> None:
        super().__init__(inner)
        self._machine = machine
        self.cut = False

    async def call(self, call: Call) -> Response:
        if self._machine is not None:
            self._machine.about_to(call)
        await self._while_alive()
        reply = await self.send(call)
        await self._while_alive()
        return reply

    async def watch(self, call: WatchCall) -> AsyncIterator[bytes]:
        await self._while_alive()
        lines = self.open(call)
        try:
            async for line in lines:
                await self._while_alive()
                yield line
        finally:
            await close_lines(lines)

    async def _while_alive(self) -> None:
        if self._machine is not None:
            await self._machine.runs()
        if self.cut:
            await asyncio.Event().wait()


class Life:
    """One process from start to end: a task, the machine that it runs on, and its way to the server."""

    def __init__(self, main: Coroutine[Any, Any, bool], lifeline: Lifeline, machine: Machine) -> None:
        self.machine = machine
        self._lifeline = lifeline
        self._task = asyncio.get_running_loop().create_task(main)

    @property
    def alive(self) -> bool:
        """Has it not ended by itself?"""
        return not self._task.done()

    async def ended(self) -> bool:
        """Wait for its end. True after a clean one.

        Raises:
            Exception: by which it ended, where it did so on its own; killed, it raises nothing.
        """
        await asyncio.wait([self._task])
        return not self._task.cancelled() and self._task.result()

    async def kill(self) -> None:
        """End it as SIGKILL does: nothing more of it reaches the server."""
        self._lifeline.cut = True
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
