"""Is a pool's budget gone before we have taken any node? Pure."""

from __future__ import annotations

from msgspec import Struct

from remediator.core.account import Account
from remediator.core.budget import limit_of, resolve, spell
from remediator.core.gates import out_of
from remediator.core.request import FleetView
from remediator.model.pool import ResourcePool


class Spent(Struct, frozen=True):
    """``others`` nodes of the pool do not serve, for no reason of ours; ``allowed`` spells its limit."""

    others: int
    allowed: str


def spent_by_others(view: FleetView, account: Account, pool: ResourcePool) -> Spent | None:
    """Say by how much others have spent a workload pool's budget; None while some of it is left."""
    if pool.spec.role != "Workload":
        return None
    out, size = out_of(view, account, [pool])
    limit = limit_of(pool.spec, view.policy)
    ours = {run.spec.node.name for run in view.runs.values()}
    others = len(out.keys() - ours)  # what runs of ours take is at work, and no news
    if not size or not others or others < resolve(limit, size):
        return None
    return Spent(others, spell(limit, size))
