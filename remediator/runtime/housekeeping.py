"""What the leader does by the wall clock: delete old records. Never urgent."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from remediator.core.retention import expired
from remediator.errors import PermanentError, TransientError
from remediator.model.action import Attribution, DeleteRun
from remediator.ports import Clock, Records, Ticks
from remediator.runtime.world import World

RETENTION_EVERY_S: Final = 600.0
RETENTION_BATCH: Final = 50

_log = structlog.get_logger(__name__)


class Housekeeping:
    """One job on ``Ticks``; nothing that keeps a fleet safe hangs on it."""

    def __init__(self, *, world: World, records: Records, clock: Clock, ticks: Ticks) -> None:
        self._world = world
        self._records = records
        self._clock = clock
        self._ticks = ticks
        self.term = 0

    async def run(self) -> None:
        """Tick until cancelled."""
        self._ticks.every(RETENTION_EVERY_S, self.retain, "retention")
        self._ticks.start()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._ticks.stop()

    async def retain(self) -> None:
        """Delete records that are old, or too many; a bounded number a time."""
        world = self._world
        gone = expired(world.ended_runs.values(), world.settled_ledgers(), self._clock.now())
        for run in gone[:RETENTION_BATCH]:
            meta = run.metadata
            action = DeleteRun(name=meta.name, uid=meta.uid, resource_version=meta.resource_version)
            try:
                await self._records.save(action, Attribution(term=self.term))
            except (TransientError, PermanentError) as error:
                _log.warning("old record not deleted", run=meta.name, error=str(error))
