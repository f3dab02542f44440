"""Which spare takes a leaver's place: filter, score, pick. Pure.

The same filter runs again, on fresh views, right before the hand-over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from msgspec import UNSET, Struct

from remediator.core.owners import claimed_by_other
from remediator.core.people import held
from remediator.core.serving import not_serving
from remediator.model.instant import read_instant
from remediator.model.keys import ANNOTATION_PROBATION
from remediator.model.pool import PoolSpec, ResourcePool
from remediator.model.views import NodeView


class Fleetwide(Struct, frozen=True):
    """What a spare is judged by besides its own Node.

    ``sick`` maps node names to a true signal in one line; ``blind`` holds nodes whose exporter
    page is not fresh, where the exporter is in use; ``strikes`` counts repairs by node name.
    """

    now: datetime
    serving_taints: tuple[str, ...]
    sick: Mapping[str, str]
    blind: frozenset[str]
    strikes: Mapping[str, int]


class Candidate(Struct, frozen=True):
    """One buffer node, judged. ``refused`` is empty for one that may be taken."""

    node: NodeView
    buffer: str
    refused: str
    common: int  # topology levels shared with the leaver, from the widest on
    probation: bool

    @property
    def where(self) -> str:
        return f"{self.common} common topology levels" + (", on probation" if self.probation else "")


def on_probation(node: NodeView, now: datetime) -> bool:
    """A repaired node is the last choice until its probation ends; an unreadable end never ends."""
    text = node.annotations.get(ANNOTATION_PROBATION, "")
    try:
        until = read_instant(text)
    except ValueError:
        return True
    return until is not None and until > now


def unfit(
    spare: NodeView, leaver: NodeView, pool: PoolSpec, buffer: ResourcePool, fleet: Fleetwide
) -> str | None:
    """Why ``spare`` may not take the place of ``leaver`` in ``pool``, or None."""
    return out_of_use(spare, buffer, fleet) or misfit(spare, leaver, pool)


def out_of_use(spare: NodeView, buffer: ResourcePool, fleet: Fleetwide) -> str | None:
    """Why it may take nobody's place, or None."""
    busy = not_serving(spare, buffer, fleet.serving_taints)
    if busy is not None:
        return f"not ready to serve: {busy}"
    reason = held(spare, fleet.now) or claimed_by_other(spare)
    if reason is not None:
        return reason
    if spare.name in fleet.sick:
        return f"has a fault signal: {fleet.sick[spare.name]}"
    if spare.name in fleet.blind:
        return "exporter page not fresh"
    return None


def misfit(spare: NodeView, leaver: NodeView, pool: PoolSpec) -> str | None:
    """Why it may not take this leaver's place: other hardware, or too far away; or None."""
    return _other_hardware(spare, leaver, pool) or _too_far(spare, leaver, pool)


def _other_hardware(spare: NodeView, leaver: NodeView, pool: PoolSpec) -> str | None:
    wanted = pool.hardware_class
    if wanted is UNSET:
        return None
    if spare.gpus != wanted.gpus:
        return f"{spare.gpus} GPUs allocatable, the class has {wanted.gpus}"
    for key in wanted.compared:
        if spare.labels.get(key) != leaver.labels.get(key):
            return f"{key} {spare.labels.get(key, 'unset')}, the leaver has {leaver.labels.get(key, 'unset')}"
    return None


def _too_far(spare: NodeView, leaver: NodeView, pool: PoolSpec) -> str | None:
    for topology in pool.topology:
        mine = leaver.labels.get(topology.key)
        if topology.match == "Required" and (mine is None or spare.labels.get(topology.key) != mine):
            return f"outside {topology.key}={mine or 'unset'}, which is required"
    return None


def common_levels(spare: NodeView, leaver: NodeView, pool: PoolSpec) -> int:
    """How many topology levels both share, counted from the widest until the first difference."""
    shared = 0
    for topology in pool.topology:
        mine = leaver.labels.get(topology.key)
        if mine is None or spare.labels.get(topology.key) != mine:
            break
        shared += 1
    return shared


def rank(
    leaver: NodeView,
    pool: PoolSpec,
    buffers: Iterable[tuple[ResourcePool, Iterable[NodeView]]],
    reserved: frozenset[str],
    fleet: Fleetwide,
    busy: Callable[[NodeView, ResourcePool], str | None] | None = None,
) -> tuple[Candidate, ...]:
    """Every buffer node, the best first, refused ones last. Ties break by name.

    Nearest wins, then fewest repairs; a node on probation comes after all others. ``busy`` answers in
    the place of ``out_of_use``, for a caller that asks often.
    """
    found = []
    for buffer, nodes in buffers:
        for node in nodes:
            refused = "reserved by another run" if node.name in reserved else None
            refused = refused or (busy(node, buffer) if busy else out_of_use(node, buffer, fleet))
            refused = refused or misfit(node, leaver, pool)
            found.append(
                Candidate(
                    node=node,
                    buffer=buffer.metadata.name,
                    refused=refused or "",
                    common=common_levels(node, leaver, pool),
                    probation=on_probation(node, fleet.now),
                )
            )
    return tuple(sorted(found, key=lambda each: _order(each, fleet)))


def _order(candidate: Candidate, fleet: Fleetwide) -> tuple[bool, bool, int, int, str]:
    name = candidate.node.name
    return (
        bool(candidate.refused),
        candidate.probation,
        -candidate.common,
        fleet.strikes.get(name, 0),
        name,
    )


def pick(ranked: tuple[Candidate, ...], sole_choice_of_others: frozenset[str]) -> Candidate | None:
    """The spare to take, or None.

    Among the equally near, one that is nobody else's only choice goes first, so that two faults
    and two spares end in two swaps.
    """
    fit = [candidate for candidate in ranked if not candidate.refused]
    if not fit:
        return None
    best = fit[0]
    equal = [each for each in fit if (each.probation, each.common) == (best.probation, best.common)]
    return next((each for each in equal if each.node.name not in sole_choice_of_others), best)
