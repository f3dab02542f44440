"""What a simulated process stands on: it stands still when it is told to, and no sooner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

from remediator.app.lifeline import Lifeline, Machine
from remediator.app.relay import Call, Relay, WatchCall
from remediator.ports import Lane, Response
from remediator.sim.loop import VirtualClock, run_virtual, virtual_clock


class Server(Relay):
    """Answers everything, and keeps what it was asked when."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(self)
        self.asked: list[tuple[str, float]] = []
        self._clock = clock

    async def call(self, call: Call) -> Response:
        self.asked.append((call.what, self._clock.monotonic()))
        return Response(200, {}, b"")

    async def watch(self, call: WatchCall) -> AsyncIterator[bytes]:
        yield b"line"


async def ask(way: Lifeline, method: str, path: str) -> None:
    await way.request(method, path, timeout_s=5.0, lane=Lane.NORMAL)


def test_process_stands_still_right_before_the_write_that_was_meant() -> None:
    async def main() -> None:
        clock = virtual_clock()
        server, machine = Server(clock), Machine(clock)
        way = Lifeline(server, machine)
        machine.halt_at_write(20.0, "nodes")
        await ask(way, "GET", "/api/v1/nodes/a")
        await ask(way, "PUT", "/apis/coordination.k8s.io/v1/leases/mine")
        await ask(way, "POST", "/api/v1/pods")
        assert machine.to_halt
        await ask(way, "PATCH", "/api/v1/nodes/a")
        assert not machine.to_halt
        await ask(way, "PATCH", "/api/v1/nodes/a")
        assert [at for _, at in server.asked] == [0, 0, 0, 20, 20]

    run_virtual(main())


def test_process_that_stands_still_does_nothing_by_its_clock() -> None:
    async def main() -> None:
        clock = virtual_clock()
        machine = Machine(clock)
        way = Lifeline(Server(clock), machine)
        machine.halt_at_write(30.0)
        held = asyncio.get_running_loop().create_task(ask(way, "POST", "/api/v1/pods"))
        await clock.sleep(1)
        await machine.sleep(5)
        assert clock.monotonic() == 30.0
        await held

    run_virtual(main())


def test_wall_clock_jumps_and_monotonic_time_does_not() -> None:
    async def main() -> None:
        clock = virtual_clock()
        machine = Machine(clock)
        machine.jump(-3_600)
        assert machine.now() - clock.now() == timedelta(hours=-1)
        assert machine.monotonic() == clock.monotonic()

    run_virtual(main())


def test_cut_process_is_never_answered() -> None:
    async def main() -> None:
        clock = virtual_clock()
        server = Server(clock)
        way = Lifeline(server)
        way.cut = True
        asked = asyncio.get_running_loop().create_task(ask(way, "GET", "/api/v1/nodes"))
        await clock.sleep(1_000)
        assert not asked.done()
        assert server.asked == []
        asked.cancel()

    run_virtual(main())
