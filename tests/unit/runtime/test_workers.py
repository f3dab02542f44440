"""The workers: one turn per run at a time, and no run in the way of another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest

from remediator.errors import ContractError
from remediator.runtime.run_pass import RunPass
from remediator.runtime.workers import ERROR_PAUSE_S, RESYNC_S, WORKERS, Workers
from tests.unit.core.builders import a_run
from tests.unit.runtime.api_server import a_custom
from tests.unit.runtime.rig import Rig


class Turns:
    """A run pass that does what the test says: counts turns, and waits inside them."""

    def __init__(self, after_s: float | None = None) -> None:
        self.after_s = after_s
        self.begun: Counter[str] = Counter()
        self.inside: set[str] = set()
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Callable[[str], Exception | None] = lambda _: None

    async def turn(self, name: str) -> float | None:
        assert name not in self.inside, "two turns of one run at once"
        self.begun[name] += 1
        self.inside.add(name)
        self.most = max(self.most, len(self.inside))
        try:
            await self.gate.wait()
            error = self.error(name)
            if error is not None:
                raise error
            return self.after_s
        finally:
            self.inside.discard(name)


class Shop:
    """Workers at work on runs that exist."""

    def __init__(self, turns: Turns, *runs: str) -> None:
        self.rig = Rig(playbooks=[])
        for name in runs:
            record = a_run(name)
            self.rig.server.put("runs", name, a_custom("Remediation", record.spec))
        self.rig.server.flush()
        self.workers = Workers(
            world=self.rig.world,
            run_pass=cast("RunPass", turns),
            clock=self.rig.clock,
            telemetry=self.rig.metrics,
        )
        self.task = asyncio.ensure_future(self.workers.run())

    async def __aenter__(self) -> Shop:
        await self.rig.clock.settle()
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.mark.asyncio
async def test_workers_begin_with_every_open_run():
    """After a restart nobody has to wake what is under way."""
    turns = Turns()
    async with Shop(turns, "m-1", "n-1"):
        assert turns.begun == {"m-1": 1, "n-1": 1}


@pytest.mark.asyncio
async def test_workers_come_back_when_the_turn_said_so():
    """A pause is what the pass asked for, no more."""
    turns = Turns(after_s=5.0)
    async with Shop(turns, "m-1") as shop:
        await shop.rig.clock.advance(4)
        assert turns.begun["m-1"] == 1
        await shop.rig.clock.advance(1)
        assert turns.begun["m-1"] == 2


@pytest.mark.asyncio
async def test_workers_wake_during_a_turn_gives_one_more_turn():
    """What changed while a turn was under way is looked at right after it, never beside it."""
    turns = Turns()
    turns.gate.clear()
    async with Shop(turns, "m-1") as shop:
        for _ in range(3):
            shop.workers.wake("m-1")
        await shop.rig.clock.settle()
        assert turns.begun["m-1"] == 1

        turns.gate.set()
        await shop.rig.clock.settle()

        assert turns.begun["m-1"] == 2
        assert shop.workers.busy == 0


@pytest.mark.asyncio
async def test_workers_are_a_fixed_number():
    """Ten thousand open runs must not mean ten thousand calls at once."""
    turns = Turns()
    turns.gate.clear()
    names = [f"m{number}-1" for number in range(WORKERS + 8)]
    async with Shop(turns, *names) as shop:
        assert turns.most == WORKERS
        turns.gate.set()
        await shop.rig.clock.advance(1)
        assert len(turns.begun) == len(names)


@pytest.mark.asyncio
async def test_workers_error_of_one_run_stops_no_other():
    """One odd record is a log line and a pause, and the others go on."""
    turns = Turns(after_s=1.0)
    turns.error = lambda name: ValueError("odd") if name == "m-1" else None
    async with Shop(turns, "m-1", "n-1") as shop:
        await shop.rig.clock.advance(ERROR_PAUSE_S - 1)
        assert turns.begun["m-1"] == 1
        assert turns.begun["n-1"] > 10
        await shop.rig.clock.advance(1)
        assert turns.begun["m-1"] == 2
        assert shop.rig.metrics.counts["remediator_pass_errors_total"] == 2


@pytest.mark.asyncio
async def test_workers_let_a_contract_error_end_the_process():
    """We broke a rule of our own: to go on would be worse than to stop."""
    turns = Turns()
    turns.error = lambda _: ContractError("broken")
    shop = Shop(turns, "m-1")

    with pytest.raises(BaseExceptionGroup) as raised:
        await shop.task

    assert raised.group_contains(ContractError)


@pytest.mark.asyncio
async def test_workers_begin_nothing_after_stop():
    """Parked at a safe point: the turn under way ends, no further one begins."""
    turns = Turns(after_s=0.5)
    turns.gate.clear()
    async with Shop(turns, "m-1") as shop:
        shop.workers.stop()
        assert shop.workers.busy == 1
        turns.gate.set()
        await shop.rig.clock.advance(RESYNC_S + 1)
        assert turns.begun["m-1"] == 1
        assert shop.workers.busy == 0


@pytest.mark.asyncio
async def test_workers_look_at_every_run_now_and_then():
    """A wake that got lost costs half a minute and not the run."""
    turns = Turns()
    async with Shop(turns, "m-1") as shop:
        await shop.rig.clock.advance(RESYNC_S)
        assert turns.begun["m-1"] == 2


@pytest.mark.asyncio
async def test_workers_ignore_a_run_that_is_not_open():
    """A name that nobody knows must not stay in the heap for ever."""
    turns = Turns()
    async with Shop(turns, "m-1") as shop:
        shop.workers.wake("who-9")
        await shop.rig.clock.settle()
        assert turns.begun == {"m-1": 1}


@pytest.mark.asyncio
async def test_workers_node_wakes_the_runs_that_look_at_it():
    """A change of the leaver or of the claimed spare is news to its run, and to no other."""
    turns = Turns()
    async with Shop(turns, "m-1") as shop:
        rig = shop.rig
        grant = {"run": "m-1", "uid": "uid-gpu-1", "pool": "train", "spare": "spare-2"}
        rig.change("policies", "cluster", {"status": {"grants": [grant]}})

        for node, expected in [("gpu-1", 2), ("spare-2", 3), ("gpu-3", 3)]:
            view = rig.world.node(node)
            shop.workers.node_changed(node, view, view)
            await rig.clock.settle()
            assert turns.begun["m-1"] == expected
