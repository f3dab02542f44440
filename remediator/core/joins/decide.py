"""Which nodes are let in now: one pure function over those that wait, and the books that outlive it.

The token is paid in the books first (``releasing``), by the same write that records the grants of the
fleet; the patch that opens the gate follows, and only a look tells the books that it landed. Until then
nobody else is let in, and no bucket fills: that is what makes the limit exact over any restart.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from remediator.core.joins.forecast import expected_s
from remediator.core.joins.gate import is_gated, read_mark
from remediator.core.joins.limiter import Limiter, Standing, Stop, limits_of, rebased, settled
from remediator.core.joins.preflight import PREFLIGHT, Verdict
from remediator.core.serving import not_serving
from remediator.model.instant import read_instant, write_instant
from remediator.model.joins import RELEASING_MAX, JoinsSpec, JoinsStatus, Release
from remediator.model.pool import PoolSpec, ResourcePool
from remediator.model.views import NodeView

SETTLES_MAX: Final = timedelta(minutes=10)
_LAST: Final = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)


class Rank(enum.IntEnum):
    """What a new node is for. The value is its head start in seconds: nobody is passed for ever."""

    GROWTH = 0
    REFILL = 300
    REPLACEMENT = 600

    @property
    def word(self) -> str:
        return self.name.capitalize()


class Newcomer(Struct, frozen=True):
    """A node whose gate is shut, and what is known of it. ``pool`` is empty for a node of no pool."""

    node: NodeView
    pool: str
    rank: Rank
    verdict: Verdict

    @property
    def order(self) -> tuple[datetime, str]:
        """First come, first served, with a head start for what is missed most."""
        created = read_instant(self.node.created_at) or _LAST
        return created - timedelta(seconds=int(self.rank)), self.node.name


class JoinsView(Struct, frozen=True):
    """What one decision is made from, read at one instant.

    ``newcomers`` are all nodes whose gate is shut, or in Audit would be; ``gated`` the names of all that
    carry the taint in force; ``names`` maps the uids of live Nodes to names.
    """

    now: datetime
    term: int
    mode: Literal["Audit", "Enforce"]
    spec: JoinsSpec
    pools: Mapping[str, PoolSpec]
    status: JoinsStatus
    newcomers: Sequence[Newcomer]
    gated: frozenset[str]
    names: Mapping[str, str]
    nodes: Mapping[str, NodeView]
    standing: Standing


class Place(Struct, frozen=True):
    """One newcomer's place in the queue. ``stop``: why it is not let in now; None: it is."""

    newcomer: Newcomer
    number: int
    stop: Stop | None


class JoinsDecision(Struct, frozen=True):
    """``status`` is to be stored where ``changed``; nothing of ``released`` may be done before it is.

    ``expected`` is in how many seconds each will be let in if nothing changes, where that can be said.
    """

    queue: tuple[Place, ...]
    status: JoinsStatus
    released: tuple[Release, ...]
    changed: bool
    expected: Mapping[str, float]


def decide_joins(view: JoinsView) -> JoinsDecision:
    """Judge all newcomers in their order, against the books of this instant."""
    status = opened(view)
    limiter = Limiter(view.spec, view.pools, status.rates, status.let_in, view.standing)
    paid = {release.uid for release in status.releasing}
    queue: list[Place] = []
    released: list[Release] = []
    for number, each in enumerate(sorted(view.newcomers, key=lambda newcomer: newcomer.order), 1):
        stop = _not_now(each, view, paid)
        if stop is None:
            stop = limiter.stop(each.pool)
        if stop is None and len(released) == RELEASING_MAX:
            stop = Stop("Releasing", f"{RELEASING_MAX} nodes at once are the most")
        if stop is None:
            limiter.take(each.pool)
            released.append(
                Release(node=each.node.name, uid=each.node.uid, pool=each.pool, at=write_instant(view.now))
            )
        queue.append(Place(each, number, stop))
    if released:
        on_the_way = tuple(released) if view.mode == "Enforce" else ()
        status = replace(status, rates=limiter.rates(), let_in=limiter.let_in(), releasing=on_the_way)
    waits = [(each.newcomer.node.name, each.newcomer.pool, each.stop) for each in queue]
    expected = expected_s(waits, limiter.levels(), limiter.per_s())
    return JoinsDecision(tuple(queue), status, tuple(released), status != view.status, expected)


def _not_now(newcomer: Newcomer, view: JoinsView, paid: set[str]) -> Stop | None:
    verdict, node = newcomer.verdict, newcomer.node
    if verdict.status != "True":
        return Stop(verdict.reason, verdict.message)
    if node.uid in paid:
        return Stop("Releasing", "its token is paid, the gate is about to open")
    if paid:
        return Stop("Releasing", f"{len(paid)} nodes before it are about to be let in")
    if view.mode == "Enforce" and not proven(node):
        return Stop("EvidencePending", f"the condition {PREFLIGHT} does not stand on the Node yet")
    return None


def proven(node: NodeView) -> bool:
    """Does the Node say of itself that it is fit?"""
    found = node.condition(PREFLIGHT)
    return found is not None and found.status == "True"


def opened(view: JoinsView) -> JoinsStatus:
    """The books before anybody is judged: what has landed, or will never land, is struck off."""
    status = view.status
    if status.mode != view.mode or not status.since:
        status = replace(
            status, mode=view.mode, gate=view.spec.gate, since=write_instant(view.now), releasing=()
        )
    elif status.gate != view.spec.gate and not view.gated:
        status = replace(status, gate=view.spec.gate, since=write_instant(view.now))
    on_the_way = tuple(each for each in status.releasing if _on_the_way(each, view, status.gate))
    if status.term != view.term:
        # Two leaders, two clocks: what would have filled since the other wrote is given up.
        return replace(status, rates=rebased(status.rates, view.now), releasing=on_the_way, term=view.term)
    if on_the_way != view.status.releasing:
        paid = Counter(each.pool for each in view.status.releasing)
        paid[""] = len(view.status.releasing)
        rates = settled(status.rates, limits_of(view.spec, view.pools), paid, view.standing)
        status = replace(status, rates=rates, releasing=on_the_way)
    return status


def _on_the_way(release: Release, view: JoinsView, gate: str) -> bool:
    """Is it still to be let in?

    A condition that says otherwise has changed the Node: a patch that was sent before can't land any more.
    """
    node = view.nodes.get(view.names.get(release.uid, ""))
    return node is not None and is_gated(node, gate) and read_mark(node) is None and proven(node)


def settles(node: NodeView, pool: ResourcePool | None, serving_taints: Sequence[str], now: datetime) -> bool:
    """Was it let in a short while ago, and does not serve yet?"""
    mark = read_mark(node)
    if mark is None or mark.at is None or now - mark.at > SETTLES_MAX:
        return False
    return not node.ready if pool is None else not_serving(node, pool, serving_taints) is not None


def rank_of(pool: ResourcePool | None, missing: int) -> Rank:
    """What a new node of this pool is for; ``missing`` are its members that faults have taken."""
    if pool is None:
        return Rank.GROWTH
    if pool.spec.role == "Buffer":
        return Rank.REFILL
    return Rank.REPLACEMENT if missing else Rank.GROWTH
