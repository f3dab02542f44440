"""Writes the status of pools and playbooks when it changed. Bulk work, never in the way."""

from __future__ import annotations

from collections import Counter
from typing import Final

import structlog
from msgspec import UNSET

from remediator.core.pages import EXPORTER_PAGES, pages_condition
from remediator.core.request import FleetView
from remediator.core.spare_search import SpareSearch
from remediator.core.summary import drifted, machines_away, playbook_status, pool_status
from remediator.errors import PermanentError, TransientError
from remediator.model.action import Attribution, SavePlaybookStatus, SavePoolStatus
from remediator.model.instant import write_instant
from remediator.model.meta import Condition
from remediator.model.pool import ResourcePool
from remediator.ports import Clock, PageSource, Records
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.matching import Matching
from remediator.runtime.scout import Scout
from remediator.runtime.world import World

PERIOD_S: Final = 5.0
SLICE: Final = 256  # pages judged before the loop gets its turn

_log = structlog.get_logger(__name__)


class Statuses:
    """Keeps `kubectl get rpool,rpb` true."""

    def __init__(
        self,
        *,
        world: World,
        scout: Scout,
        diagnoses: Diagnoses,
        pages: PageSource,
        records: Records,
        clock: Clock,
    ) -> None:
        self._world = world
        self._scout = scout
        self._diagnoses = diagnoses
        self._pages = pages
        self._records = records
        self._clock = clock
        self._matching = Matching()
        self.term = 0

    async def run(self) -> None:
        while True:
            await self.once()
            await self._clock.sleep(PERIOD_S)

    async def once(self) -> None:
        """Write every status that is not what it should be; one that can't be written stops no other."""
        if self._world.caches.missing():
            return
        view = self._scout.view()
        away = machines_away(view.ledgers, view.runs.values())
        for name in sorted(view.pools):
            await self._pool(view.pools[name], view, away[name])
        await self._playbooks(view)

    async def _pool(self, pool: ResourcePool, view: FleetView, away: int) -> None:
        name = pool.metadata.name
        members = [view.nodes[each] for each in sorted(view.census.members(name)) if each in view.nodes]
        quiet = [node for node in members if node.name not in view.census.out(name)]
        fit = 0
        if pool.spec.role == "Workload" and members:
            ranked = SpareSearch(view).ranked(pool, members[0], frozenset(_reserved(view)))
            fit = sum(not candidate.refused for candidate in ranked)
        wanted = pool_status(
            pool,
            view.census,
            view.policy,
            fit_spares=fit,
            away=away,
            overlaps=_overlaps(pool, view),
            drift=tuple(node.name for node in quiet if drifted(node, pool)),
            shared=tuple(node.name for node in members if node.name in view.conflicted),
            # A uid is a good object name, so a machine is called like its Node's uid only for want of more.
            weak=tuple(node.name for node in members if self._world.machine(node) == node.uid),
            pages=await self._pages_of(pool, view),
            now=write_instant(view.now.replace(microsecond=0)),
        )
        if wanted != pool.status:
            await self._save(
                SavePoolStatus(
                    name=name,
                    resource_version=pool.metadata.resource_version,
                    before=pool.status,
                    status=wanted,
                )
            )

    async def _pages_of(self, pool: ResourcePool, view: FleetView) -> Condition | None:
        """The condition about the pool's exporter pages; as it was, while the first round is under way."""
        if not self._pages.round_complete:
            before = pool.status.conditions if pool.status is not UNSET else ()
            return next((each for each in before if each.type == EXPORTER_PAGES), None)
        name = pool.metadata.name
        expected, troubles = 0, {}
        for index, node in enumerate(sorted(view.census.members(name))):
            if index % SLICE == 0:
                await self._clock.sleep(0)  # a pool of thousands must not keep the loop
            if self._diagnoses.expects_page(node):
                expected += 1
                trouble = self._diagnoses.page_trouble(node)
                if trouble is not None:
                    troubles[node] = trouble
        return pages_condition(
            None if self._world.policy_spec.exporter is UNSET else troubles,
            expected=expected,
            uncovered=view.uncovered.get(name, ""),
        )

    async def _save(self, action: SavePoolStatus | SavePlaybookStatus) -> None:
        try:
            await self._records.save(action, Attribution(term=self.term))
        except (TransientError, PermanentError) as error:
            _log.warning("status not written", object=action.name, error=str(error))

    async def _playbooks(self, view: FleetView) -> None:
        playbooks = self._world.caches.playbooks.views()
        matching = self._matching.counted(playbooks, view.nodes)
        active = Counter(run.spec.playbook.name for run in view.runs.values())
        for name, playbook in sorted(playbooks.items()):
            wanted = playbook_status(
                playbook,
                matching=matching.get(name, 0),
                active=active[name],
                now=write_instant(view.now.replace(microsecond=0)),
            )
            if wanted != playbook.status:
                await self._save(
                    SavePlaybookStatus(
                        name=name,
                        resource_version=playbook.metadata.resource_version,
                        before=playbook.status,
                        status=wanted,
                    )
                )


def _reserved(view: FleetView) -> set[str]:
    return {grant.spare for grant in view.status.grants if grant.spare}


def _overlaps(pool: ResourcePool, view: FleetView) -> dict[str, str]:
    """Pools with the same membership label, were it empty, and those that share a node."""
    name = pool.metadata.name
    same = {
        other: "its membership label"
        for other, each in view.pools.items()
        if other != name and each.spec.membership == pool.spec.membership
    }
    return {other: f"node {node}" for other, node in view.census.sharing(name).items()} | same
