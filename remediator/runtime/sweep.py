"""Takes back what nobody owns any more: marks of a run that was deleted, or that a dead leader left.

A node is swept only when its run is proved to be gone by a read from the server, twice the same
with a pause in between: a cache that lags must not lift a quarantine.
"""

from __future__ import annotations

from typing import Final

import structlog

from remediator.core import patches
from remediator.core.custody import owner_of, run_named_by
from remediator.core.prior import Prior, read_prior
from remediator.errors import PermanentError, TransientError
from remediator.model.action import Attribution, PatchNode
from remediator.model.views import NodeView
from remediator.ports import Clock, Outcome, Reader, Telemetry, Writer
from remediator.runtime.events import Events
from remediator.runtime.world import World

PERIOD_S: Final = 2.0
ORPHAN_FOR_S: Final = 4.0

_log = structlog.get_logger(__name__)


class Sweep:
    """Looks at every node that carries our marks and restores those without an owner."""

    def __init__(
        self,
        *,
        world: World,
        writer: Writer,
        reader: Reader,
        events: Events,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._world = world
        self._writer = writer
        self._reader = reader
        self._events = events
        self._clock = clock
        self._telemetry = telemetry
        self._marked: set[str] = set()
        self._orphan_since: dict[str, float] = {}
        self.term = 0

    def node_changed(self, name: str, after: NodeView | None) -> None:
        """Keep the set of nodes that carry a mark: a sweep must not walk the whole fleet."""
        if after is not None and (run_named_by(after) or owner_of(after, "", {}, {}) is None):
            self._marked.add(name)
        else:
            self._marked.discard(name)
            self._orphan_since.pop(name, None)

    async def run(self) -> None:
        while True:
            await self._clock.sleep(PERIOD_S)
            await self.once()

    async def once(self) -> None:
        """One round over the marked nodes; one that can't be read or written stops no other."""
        if self._world.caches.missing():
            return
        ledgers = self._world.settled_ledgers()
        now = self._clock.monotonic()
        for name in sorted(self._marked):
            node = self._world.node(name)
            if node is None:
                continue
            owner = owner_of(node, self._world.machine(node), self._world.open_runs, ledgers)
            if owner is not None:
                self._orphan_since.pop(name, None)
                continue
            since = self._orphan_since.setdefault(name, now)
            if now - since < ORPHAN_FOR_S:
                continue
            try:
                await self._restore(node)
            except (TransientError, PermanentError) as error:
                _log.warning("sweep failed", node=name, error=str(error))

    async def _restore(self, node: NodeView) -> None:
        run = run_named_by(node)
        if run and await self._still_open(run):
            return  # the cache lags, or the run is ending right now
        pools = self._world.pools
        leaving = tuple(pool.spec for pool in pools.values() if pool.spec.role == "Repair")
        patch = patches.restore(node, read_prior(node) or Prior(unschedulable=node.unschedulable), leaving)
        action = PatchNode(name=node.name, uid=node.uid, resource_version=node.resource_version, patch=patch)
        written = await self._writer.apply(action, Attribution(term=self.term, run=run, step="sweep"))
        if written.outcome is not Outcome.APPLIED:
            _log.warning("orphaned marks not taken back", node=node.name, run=run, error=written.message)
            return
        _log.warning("orphaned marks taken back", node=node.name, run=run)
        self._telemetry.count("remediator_orphans_swept_total", {})
        note = f"run {run or 'unknown'} is gone; the node is as it was before it"
        machine = self._world.machine(node)
        self._events.tell(
            machine=machine,
            node=node.name,
            node_uid=node.uid,
            reason="OrphanSwept",
            action="Sweep",
            note=note,
            run=run,
        )
        self._world.veto(machine, f"{run or 'its run'} was deleted")

    async def _still_open(self, run: str) -> bool:
        known = self._world.run(run)
        return await self._reader.run_exists(run) and (known is None or run in self._world.open_runs)
