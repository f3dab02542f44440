"""Looks for spares in one view of the fleet, for many leavers: what no leaver changes is found out once.

A storm has hundreds of requests that wait, and each is told which spare it would get.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from remediator.core.request import FleetView, Request
from remediator.core.spares import Candidate, misfit, out_of_use, rank
from remediator.model.pool import ResourcePool
from remediator.model.views import NodeView

OTHERS_MAX: Final = 16  # how many requests' only choices are spared


class SpareSearch:
    """For one view, which must not change; reservations may."""

    def __init__(self, view: FleetView) -> None:
        self._view = view
        self._out_of_use: dict[str, str | None] = {}
        self._buffers_of: dict[str, list[tuple[ResourcePool, list[NodeView]]]] = {}
        self._sole: dict[tuple[str, frozenset[str]], str] = {}

    def ranked(self, pool: ResourcePool, leaver: NodeView, reserved: frozenset[str]) -> tuple[Candidate, ...]:
        """Every node of the pool's buffers, judged for this leaver."""
        return rank(leaver, pool.spec, self._buffers(pool), reserved, self._view.fleetwide, self._busy)

    def sole_choices(
        self, request: Request, others: Sequence[Request], reserved: frozenset[str]
    ) -> frozenset[str]:
        """Spares that are the only fit one for another request; looked at for the first few only."""
        found = set()
        for other in others[:OTHERS_MAX]:
            if other.machine != request.machine and (sole := self._sole_choice(other, reserved)):
                found.add(sole)
        return frozenset(found)

    def _sole_choice(self, request: Request, reserved: frozenset[str]) -> str:
        """The name of the only spare that fits, or empty text."""
        key = (request.machine, reserved)
        known = self._sole.get(key)
        if known is None:
            known = self._sole[key] = self._find_sole_choice(request, reserved)
        return known

    def _find_sole_choice(self, request: Request, reserved: frozenset[str]) -> str:
        home = self._view.census.home(request.node.name)
        pool = self._view.pools.get(home or "")
        if pool is None or "swap" not in request.playbook.actions:
            return ""
        fit = tuple(islice(self._fit(pool, request.node, reserved), 2))
        return fit[0] if len(fit) == 1 else ""

    def _fit(self, pool: ResourcePool, leaver: NodeView, reserved: frozenset[str]) -> Iterator[str]:
        """Names of spares that fit, one by one: who asks for two must not pay for hundreds."""
        for buffer, nodes in self._buffers(pool):
            for node in nodes:
                if (
                    node.name not in reserved
                    and self._busy(node, buffer) is None
                    and misfit(node, leaver, pool.spec) is None
                ):
                    yield node.name

    def _buffers(self, pool: ResourcePool) -> list[tuple[ResourcePool, list[NodeView]]]:
        found = self._buffers_of.get(pool.metadata.name)
        if found is None:
            found = self._buffers_of[pool.metadata.name] = buffers_of(self._view, pool)
        return found

    def _busy(self, spare: NodeView, buffer: ResourcePool) -> str | None:
        known = self._out_of_use.get(spare.name, "")
        if known == "":
            known = self._out_of_use[spare.name] = out_of_use(spare, buffer, self._view.fleetwide)
        return known


def buffers_of(view: FleetView, pool: ResourcePool) -> list[tuple[ResourcePool, list[NodeView]]]:
    """The buffers that feed a pool, each with its nodes."""
    return [
        (each, [view.nodes[name] for name in view.census.members(each.metadata.name) if name in view.nodes])
        for each in view.pools.values()
        if each.spec.role == "Buffer" and (not pool.spec.buffers or each.metadata.name in pool.spec.buffers)
    ]
