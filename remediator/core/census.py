"""Head counts of every pool, kept up to date node by node. No IO, no clock.

A fleet pass must not walk 10,000 nodes, so membership and serving are counted when a node
changes. ``rebuild`` after a change of pools or policy gives the same result as all the updates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from remediator.core.joins.gate import is_gated
from remediator.core.serving import not_serving, pools_of
from remediator.model.pool import ResourcePool
from remediator.model.views import NodeView


class Census:
    """Members and not-serving members by pool name.

    A node whose join gate is shut is neither: it has never served, so that it is missed by nobody, and a
    storm of new nodes must not use up the budget of the old ones (decision 0033).
    """

    def __init__(self) -> None:
        self._pools: tuple[ResourcePool, ...] = ()
        self._serving_taints: tuple[str, ...] = ()
        self._home: dict[str, str] = {}
        self._members: dict[str, set[str]] = {}
        self._out: dict[str, dict[str, str]] = {}
        self._several: dict[str, tuple[str, ...]] = {}
        self._gate = ""
        self._joining: dict[str, set[str]] = {}

    def rebuild(
        self,
        nodes: Iterable[NodeView],
        pools: Iterable[ResourcePool],
        serving_taints: Iterable[str],
        gate: str = "",
    ) -> None:
        """Start afresh from all nodes; call it when a pool, the policy or the join gate changed.

        ``gate`` is the key of the join gate's taint; empty: there is none.
        """
        self._gate = gate
        self._pools = tuple(sorted(pools, key=lambda pool: pool.metadata.name))
        self._serving_taints = tuple(serving_taints)
        self._home, self._several = {}, {}
        self._members = {pool.metadata.name: set() for pool in self._pools}
        self._out = {pool.metadata.name: {} for pool in self._pools}
        self._joining = {pool.metadata.name: set() for pool in self._pools}
        for node in nodes:
            self.update(node.name, node)

    def update(self, name: str, node: NodeView | None) -> None:
        """Take in the newest view of one node; None when it is gone."""
        old = self._home.pop(name, None)
        if old is not None:
            self._members[old].discard(name)
            self._out[old].pop(name, None)
            self._joining[old].discard(name)
        self._several.pop(name, None)
        pools = pools_of(node, self._pools) if node is not None else ()
        if node is None or not pools:
            return
        pool, home = pools[0], pools[0].metadata.name
        if len(pools) > 1:
            self._several[name] = tuple(each.metadata.name for each in pools)
        self._home[name] = home
        if self._gate and is_gated(node, self._gate):
            self._joining[home].add(name)
            return
        self._members[home].add(name)
        reason = not_serving(node, pool, self._serving_taints)
        if reason is not None:
            self._out[home][name] = reason

    def home(self, node: str) -> str | None:
        """Name of the pool that the node is, or is about to be, a member of; the first of ``several``."""
        return self._home.get(node)

    @property
    def several(self) -> Mapping[str, tuple[str, ...]]:
        """Nodes that are in more than one pool, and the names of these: nobody's budget counts them right."""
        return self._several

    def sharing(self, pool: str) -> Mapping[str, str]:
        """Pools that share a node with this one, each with the first such node."""
        found: dict[str, str] = {}
        for node in sorted(self._several):
            if pool in self._several[node]:
                found.update({name: node for name in self._several[node] if name not in (pool, *found)})
        return found

    def members(self, pool: str) -> frozenset[str]:
        return frozenset(self._members.get(pool, ()))

    @property
    def managed(self) -> int:
        """How many nodes are a member of some pool."""
        return sum(len(members) for members in self._members.values())

    def size(self, pool: str) -> int:
        return len(self._members.get(pool, ()))

    def joining(self, pool: str) -> frozenset[str]:
        """Nodes that bear the pool's label and whose join gate is shut."""
        return frozenset(self._joining.get(pool, ()))

    def out(self, pool: str) -> Mapping[str, str]:
        """Members that do not serve: node name to reason."""
        return self._out.get(pool, {})
