"""How many nodes may be let in now: token buckets, the growth rule, and how many may settle at once. Pure.

The limit is exact: in no window of any length are more let in than ``burst + rate * window``, whenever the
patches land that open the gates. A bucket fills while they are on their way, but counts as full without
the tokens of those: it is where it would be had they landed at the last moment. Nothing fills in a gap
between two leaders, whose clocks may differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from msgspec import UNSET, Struct

from remediator.core.budget import level
from remediator.model.duration import seconds, spoken
from remediator.model.instant import read_instant, write_instant
from remediator.model.joins import SLOTS_MAX, JoinRate, JoinsSpec, Slot
from remediator.model.meta import Rate
from remediator.model.policy import RateState
from remediator.model.pool import PoolSpec

SLOT: Final = timedelta(minutes=1)
_DIGITS: Final = 1e6  # a level is stored with six digits, rounded down


class Stop(Struct, frozen=True, gc=False):
    """Why no further node is let in, with the numbers; ``wait_s`` until that may change by itself."""

    reason: str
    numbers: str
    wait_s: float | None = None


class Standing(Struct, frozen=True):
    """What the limits are counted against, at one instant.

    ``settling`` counts by pool (empty: in no pool) the nodes that were let in and do not serve yet.
    ``inside`` is how many nodes of the cluster are in. ``brake`` is the share of each rate that holds now,
    above zero. ``closed`` maps pools, and all under the empty name, to why nobody is let in there.
    """

    now: datetime
    settling: Mapping[str, int]
    inside: int
    brake: float = 1.0
    closed: Mapping[str, str] = {}


class Limiter:
    """The limits as they are used up in the course of one pass."""

    def __init__(
        self,
        spec: JoinsSpec,
        pools: Mapping[str, PoolSpec],
        rates: tuple[JoinRate, ...],
        let_in: tuple[Slot, ...],
        standing: Standing,
    ) -> None:
        self._spec = spec
        self._standing = standing
        self._rates = limits_of(spec, pools)
        self._most = {
            pool: each.joins.max_initialising
            for pool, each in pools.items()
            if each.joins is not UNSET and each.joins.max_initialising is not UNSET
        }
        stored = {each.pool: each for each in rates}
        self._levels = {
            pool: _level(rate, stored.get(pool), standing.now, standing.brake)
            for pool, rate in self._rates.items()
        }
        self._per_s = {
            pool: rate.count / seconds(rate.per) * standing.brake for pool, rate in self._rates.items()
        }
        self._settling = dict(standing.settling)
        self._window = seconds(spec.growth.within)
        self._let_in = _recent(let_in, standing.now, self._window)
        self._taken = 0

    def stop(self, pool: str) -> Stop | None:
        """Why no node of this pool is let in now, or None."""
        closed = self._standing.closed
        why = closed.get("") or closed.get(pool)
        if why:
            return Stop("Closed", why)
        return self._too_fast("") or self._too_fast(pool) or self._unsettled(pool) or self._grown()

    def _too_fast(self, pool: str) -> Stop | None:
        rate = self._rates.get(pool)
        if rate is None or self._levels[pool] >= 1.0:
            return None
        wait_s = (1.0 - self._levels[pool]) / self._per_s[pool]
        slowed = f", slowed to {self._standing.brake:.0%}" if self._standing.brake < 1.0 else ""
        whose = f"pool {pool}" if pool else "the cluster"
        said = f"{rate.count} in {rate.per}, burst {rate.burst}, of {whose}{slowed}; next in {spoken(wait_s)}"
        return Stop("PoolRate" if pool else "Rate", said, wait_s)

    def _unsettled(self, pool: str) -> Stop | None:
        everywhere = sum(self._settling.values())
        if everywhere >= self._spec.max_initialising:
            said = f"{everywhere} nodes are initialising, maxInitialising is {self._spec.max_initialising}"
            return Stop("Initialising", said)
        most, here = self._most.get(pool), self._settling.get(pool, 0)
        if most is not None and here >= most:
            said = f"{here} nodes of pool {pool} are initialising, its maxInitialising is {most}"
            return Stop("PoolInitialising", said)
        return None

    def _grown(self) -> Stop | None:
        growth, inside = self._spec.growth, self._standing.inside
        if inside < growth.above:
            return None
        most = max(1, inside * growth.percent // 100)
        lately = sum(slot.count for slot in self._let_in) + self._taken
        if lately < most:
            return None
        said = f"{lately} let in within {growth.within}, {growth.percent} % of {inside} nodes is {most}"
        return Stop("Growth", said, self._next_slot_s())

    def _next_slot_s(self) -> float:
        oldest = read_instant(self._let_in[0].at) if self._let_in else None
        if oldest is None:
            return float(self._window)
        ends = oldest + SLOT + timedelta(seconds=self._window)
        return max(0.0, (ends - self._standing.now).total_seconds())

    def levels(self) -> Mapping[str, float]:
        """Tokens in each bucket now, by pool; that of the cluster under the empty name."""
        return self._levels

    def per_s(self) -> Mapping[str, float]:
        """How fast each of them fills now."""
        return self._per_s

    def take(self, pool: str) -> None:
        """Let one in. The caller has seen that ``stop`` has no reason."""
        for scope in {"", pool} & self._rates.keys():
            self._levels[scope] -= 1.0
        self._settling[pool] = self._settling.get(pool, 0) + 1
        self._taken += 1

    def rates(self) -> tuple[JoinRate, ...]:
        """The buckets as they stand now, to be stored."""
        return _stored(self._levels, self._standing.now)

    def let_in(self) -> tuple[Slot, ...]:
        """The growth window with those of this pass, to be stored."""
        if not self._taken:
            return self._let_in
        began = self._standing.now.replace(second=0, microsecond=0)
        at = write_instant(began)
        before = sum(slot.count for slot in self._let_in if slot.at == at)
        others = tuple(slot for slot in self._let_in if slot.at != at)
        return (*others, Slot(at=at, count=before + self._taken))[-SLOTS_MAX:]


def rebased(rates: tuple[JoinRate, ...], now: datetime) -> tuple[JoinRate, ...]:
    """The same levels as of now: what would have filled since is given up."""
    at = write_instant(now)
    return tuple(JoinRate(pool=each.pool, tokens=each.tokens, at=at) for each in rates)


def per_minute(rate: Rate) -> float:
    return rate.count * 60.0 / seconds(rate.per)


def settled(
    rates: tuple[JoinRate, ...],
    limits: Mapping[str, Rate],
    on_the_way: Mapping[str, int],
    standing: Standing,
) -> tuple[JoinRate, ...]:
    """The buckets now that some of what they paid for has landed.

    Args:
        rates: as they were stored.
        limits: of each bucket that there is.
        on_the_way: how many each has paid for that had not landed by then.
        standing: this instant.
    """
    levels = {}
    for each in rates:
        rate = limits.get(each.pool)
        if rate is not None:
            most = float(rate.burst - on_the_way.get(each.pool, 0))
            levels[each.pool] = min(most, _level(rate, each, standing.now, standing.brake))
    return _stored(levels, standing.now)


def limits_of(spec: JoinsSpec, pools: Mapping[str, PoolSpec]) -> dict[str, Rate]:
    """The rate of each bucket, by pool; that of the cluster under the empty name."""
    found = {"": spec.rate}
    for name, pool in pools.items():
        if pool.joins is not UNSET and pool.joins.rate is not UNSET:
            found[name] = pool.joins.rate
    return found


def _level(rate: Rate, stored: JoinRate | None, now: datetime, brake: float) -> float:
    if stored is None:
        return float(rate.burst)
    full = level(rate, RateState(scope="joins", tokens=stored.tokens, at=stored.at), now)
    return stored.tokens + (full - stored.tokens) * brake if full > stored.tokens else full


def _stored(levels: Mapping[str, float], now: datetime) -> tuple[JoinRate, ...]:
    at = write_instant(now)
    return tuple(
        JoinRate(pool=pool, tokens=math.floor(tokens * _DIGITS) / _DIGITS, at=at)
        for pool, tokens in sorted(levels.items())
    )


def _recent(slots: tuple[Slot, ...], now: datetime, window_s: int) -> tuple[Slot, ...]:
    """Those that reach into the window, oldest first; a slot counts until its last moment has left it."""
    begins = now - timedelta(seconds=window_s) - SLOT
    kept = [slot for slot in slots if (at := read_instant(slot.at)) is not None and at > begins]
    return tuple(sorted(kept, key=lambda slot: slot.at))
