"""Gives every open run its turns: when it is due, or when something it looks at has changed.

At most one turn per run at a time, a fixed number side by side. The one broad ``except`` of the
program is here: an error of one run never stops another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from remediator.errors import ContractError
from remediator.model.views import NodeView
from remediator.ports import Clock, Telemetry
from remediator.runtime.due import DueHeap
from remediator.runtime.run_pass import RunPass
from remediator.runtime.world import World

WORKERS: Final = 32
RESYNC_S: Final = 30.0
ERROR_PAUSE_S: Final = 15.0
BLIND_PAUSE_S: Final = 1.0

_log = structlog.get_logger(__name__)


class Workers:
    """A bounded number of workers over one heap of runs."""

    def __init__(self, *, world: World, run_pass: RunPass, clock: Clock, telemetry: Telemetry) -> None:
        self._world = world
        self._pass = run_pass
        self._clock = clock
        self._telemetry = telemetry
        self._due = DueHeap(clock)
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._stopping = False
        self.blind: Callable[[], str] = lambda: ""

    def wake(self, run: str) -> None:
        """Look at this run now, or right after the turn it is in."""
        if run in self._busy:
            self._again.add(run)
        elif run in self._world.open_runs:
            self._due.add(run)

    def node_changed(self, name: str, _before: NodeView | None, after: NodeView | None) -> None:
        """Wake the runs that look at this node, as leaver or as spare."""
        uid = after.uid if after is not None else ""
        for grant in self._world.policy_status.grants:
            if grant.spare == name or (uid and grant.uid == uid):
                self.wake(grant.run)
        for run_name, run in self._world.open_runs.items():
            if run.spec.node.name == name:
                self.wake(run_name)

    def stop(self) -> None:
        """Begin no further turn; the ones under way end at their next safe point."""
        self._stopping = True

    @property
    def busy(self) -> int:
        return len(self._busy)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resync())
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _resync(self) -> None:
        while True:
            for name in self._world.open_runs:
                self.wake(name)
            await self._clock.sleep(RESYNC_S)

    async def _work(self) -> None:
        while True:
            name = await self._due.take()
            if self._stopping or name in self._busy:
                continue
            if self.blind():
                self._due.add(name, BLIND_PAUSE_S)  # what a run would look at may be long past
                continue
            self._busy.add(name)
            try:
                after_s = await self._turn(name)
            finally:
                self._busy.discard(name)
            if name in self._again:
                self._again.discard(name)
                self._due.add(name)
            elif after_s is not None:
                self._due.add(name, after_s)

    async def _turn(self, name: str) -> float | None:
        try:
            return await self._pass.turn(name)
        except ContractError:
            raise  # we broke our own rule: the process ends, the cluster holds the state
        except Exception:  # noqa: BLE001 - the pass boundary: one run stops no other
            _log.exception("run pass failed", run=name)
            self._telemetry.count("remediator_pass_errors_total", {})
            return ERROR_PAUSE_S
