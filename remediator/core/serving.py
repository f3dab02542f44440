"""Does a node do its pool's work? The one definition that budgets, status and gates share. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from remediator.model.keys import TAINT_UNSCHEDULABLE
from remediator.model.pool import ResourcePool
from remediator.model.views import NodeView

_BLOCKING = ("NoSchedule", "NoExecute")


def pools_of(node: NodeView, pools: Iterable[ResourcePool]) -> tuple[ResourcePool, ...]:
    """The pools whose membership label the node carries, in their order; more than one is a mistake."""
    return tuple(
        pool for pool in pools if node.labels.get(pool.spec.membership.key) == pool.spec.membership.value
    )


def not_serving(node: NodeView, pool: ResourcePool, serving_taints: Iterable[str]) -> str | None:
    """Why the node does not serve its pool, as one CamelCase word, or None when it serves.

    A fault signal alone is no reason. A taint that the pool's own projection carries, or that
    the policy lists in ``servingTaints``, is none either.
    """
    if not node.ready:
        found = node.condition("Ready")
        return "NotReady" if found is not None and found.status == "False" else "ReadyUnknown"
    if node.unschedulable:
        return "Cordoned"
    if node.deleting:
        return "Deleting"
    allowed = {taint.key for taint in pool.spec.projection.taints} | set(serving_taints)
    for taint in node.taints:
        # The unschedulable taint is the cordon's shadow and lags behind it by a few milliseconds.
        if taint.effect in _BLOCKING and taint.key not in allowed and taint.key != TAINT_UNSCHEDULABLE:
            return "Tainted"
    return None
