"""How many nodes may be out, and how often: limits, their rounding, token buckets. Pure."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET

from remediator.model.duration import seconds
from remediator.model.instant import read_instant, write_instant
from remediator.model.meta import Limit, Rate
from remediator.model.policy import PolicySpec, RateState
from remediator.model.pool import PoolSpec


def limit_of(pool: PoolSpec, policy: PolicySpec) -> Limit:
    """How many of the pool may be out: what the pool says, else what the policy says for every pool."""
    return pool.max_unavailable if pool.max_unavailable is not UNSET else policy.pool_max_unavailable


def resolve(limit: Limit, size: int) -> int:
    """The whole number that ``limit`` allows of ``size`` nodes.

    A percentage rounds down, then ``atLeast`` applies; a limit never exceeds ``size``.
    """
    if limit.percent is not UNSET:
        return min(size, max(size * limit.percent // 100, limit.at_least))
    count = limit.count if limit.count is not UNSET else 0
    return min(size, max(count, limit.at_least))


def spell(limit: Limit, size: int) -> str:
    """How the number came about, for people: ``2 (5 % of 48, at least 1)``."""
    allowed = resolve(limit, size)
    if limit.percent is UNSET:
        return str(allowed)
    return f"{allowed} ({limit.percent} % of {size}, at least {limit.at_least})"


def level(rate: Rate, state: RateState | None, now: datetime) -> float:
    """Tokens in the bucket now; a bucket that was never used is full.

    A ``state`` from the future (a clock that was set back) counts as of now.
    """
    if state is None:
        return float(rate.burst)
    since = read_instant(state.at) or now
    elapsed_s = max(0.0, (now - since).total_seconds())
    return min(float(rate.burst), state.tokens + elapsed_s * rate.count / seconds(rate.per))


def take(scope: str, rate: Rate, state: RateState | None, now: datetime) -> RateState:
    """The bucket after one grant. The caller has seen ``level`` at 1 or above."""
    return RateState(scope=scope, tokens=round(level(rate, state, now) - 1.0, 6), at=write_instant(now))


def give_back(scope: str, rate: Rate, state: RateState, now: datetime) -> RateState:
    """The bucket with the token of a grant that came to nothing; never fuller than full."""
    tokens = min(float(rate.burst), level(rate, state, now) + 1.0)
    return RateState(scope=scope, tokens=round(tokens, 6), at=write_instant(now))


def wait_s(rate: Rate, state: RateState | None, now: datetime) -> float:
    """Seconds until the next token; zero when one is there."""
    missing = 1.0 - level(rate, state, now)
    return max(0.0, missing * seconds(rate.per) / rate.count)
