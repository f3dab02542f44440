"""Head counts, budget and spares of one pool, in the words of the status screen. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from remediator.core.account import Account
from remediator.core.budget import limit_of, resolve
from remediator.core.gates import out_of
from remediator.core.request import FleetView
from remediator.core.spare_search import SpareSearch
from remediator.core.spares import on_probation
from remediator.core.spent import spent_by_others
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.pool import ResourcePool

MODES: Final = ("Disabled", "Audit", "Enforce")
_REASONS: Final[Mapping[str, str]] = {
    "Cordoned": "cordoned",
    "Tainted": "tainted by others",
    "ReadyUnknown": "silent",
    "Deleting": "being deleted",
}


class PoolRow(Struct, frozen=True):
    name: str
    mode: str
    nodes: int
    serving: str
    not_serving: str
    limit: str
    spares: str


def in_order(pools: Mapping[str, ResourcePool]) -> list[ResourcePool]:
    """Workload pools, then buffers, then repair; by name."""
    order = {"Workload": 0, "Buffer": 1, "Repair": 2}
    return sorted(pools.values(), key=lambda pool: (order[pool.spec.role], pool.metadata.name))


def pool_needs(view: FleetView, account: Account, pool: ResourcePool) -> Iterable[tuple[str, str]]:
    """What a person has to know of one pool: (its name, text)."""
    if pool.spec.role != "Workload":
        return
    name = pool.metadata.name
    spent = spent_by_others(view, account, pool)
    if spent is not None:
        said = f"budget spent: {spent.others} not serving, allowed {spent.allowed}; no serving node is taken"
        yield name, f"{said} (known ones: remediator adopt --cordoned)"
    spares = _spares(view, account, pool)
    if view.census.size(name) and spares == 0 and (pool.spec.spares_wanted or _buffers(view, pool)):
        wanted = f", {pool.spec.spares_wanted} wanted" if pool.spec.spares_wanted else ""
        yield name, f"no spare is ready{wanted}: remediator plan NODE says why"


def pool_row(view: FleetView, account: Account, pool: ResourcePool) -> PoolRow:
    """Head counts, budget and spares of one pool."""
    name = pool.metadata.name
    out = view.census.out(name)
    size = view.census.size(name)
    mode = min((pool.spec.max_mode, view.policy.max_mode), key=MODES.index)
    if not view.policy_exists:
        mode = "Audit"
    if pool.spec.role != "Workload":
        return PoolRow(name, "-", size, "-", _buffer_words(view, pool), "-", "-")
    gone, whole = out_of(view, account, [pool])
    allowed = resolve(limit_of(pool.spec, view.policy), whole)
    spares, wanted = _spares(view, account, pool), pool.spec.spares_wanted
    low = "  LOW" if spares < wanted else ""
    said = f"{spares}, want {wanted}{low}" if wanted else str(spares)
    words = _out_words(view, out)
    return PoolRow(name, mode, size, str(size - len(out)), words or "-", f"{len(gone)} of {allowed}", said)


def _out_words(view: FleetView, out: Mapping[str, str]) -> str:
    """``2 leaving, 3 cordoned, 1 NotReady``."""
    taken = {run.spec.node.uid for run in view.runs.values()}
    counted: Counter[str] = Counter()
    for name, reason in out.items():
        node = view.nodes[name]
        if node.uid in taken:
            counted["leaving"] += 1
        elif node.taint(TAINT_QUARANTINE) is not None:
            counted["kept out by us"] += 1
        else:
            counted[_REASONS.get(reason, reason)] += 1
    return ", ".join(f"{count} {word}" for word, count in sorted(counted.items()))


def _buffer_words(view: FleetView, pool: ResourcePool) -> str:
    out = view.census.out(pool.metadata.name)
    members = [view.nodes[name] for name in view.census.members(pool.metadata.name) if name in view.nodes]
    fit = [node for node in members if node.name not in out]
    probation = sum(on_probation(node, view.now) for node in fit)
    words = [f"{len(fit) - probation} ready"]
    words += [f"{probation} on probation"] if probation else []
    return ", ".join([*words, *filter(None, [_out_words(view, out)])])


def _buffers(view: FleetView, pool: ResourcePool) -> list[str]:
    return [
        name
        for name, each in view.pools.items()
        if each.spec.role == "Buffer" and (not pool.spec.buffers or name in pool.spec.buffers)
    ]


def _spares(view: FleetView, account: Account, pool: ResourcePool) -> int:
    """Spares that fit the pool's first member, as its status counts them."""
    members = sorted(view.census.members(pool.metadata.name) & set(view.nodes))
    if not members:
        return 0
    ranked = SpareSearch(view).ranked(pool, view.nodes[members[0]], account.reserved())
    return sum(not each.refused for each in ranked)
