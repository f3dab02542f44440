"""Which join limits may be followed at all; the schema refuses most others. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import UNSET

from remediator.core.joins.limiter import per_minute
from remediator.model.duration import seconds
from remediator.model.joins import JOIN_RATES_MAX, JoinsSpec
from remediator.model.keys import GROUP
from remediator.model.meta import Rate
from remediator.model.pool import ResourcePool

PER_MINUTE_MAX: Final = 600.0
WITHIN_S_MAX: Final = 3_600


def faults_of_joins(joins: JoinsSpec, pools: Mapping[str, ResourcePool]) -> tuple[str, ...]:
    """Every reason to let nobody in by these limits, each with the fix; empty when there is none."""
    found = [*_rate(joins.rate, "spec.joins.rate")]
    rated = 0
    for name, pool in sorted(pools.items()):
        own = pool.spec.joins
        if own is not UNSET and own.rate is not UNSET:
            rated += 1
            found += _rate(own.rate, f"pool {name}: spec.joins.rate")
    if rated >= JOIN_RATES_MAX:
        most = JOIN_RATES_MAX - 1
        found.append(f"{rated} pools have a join rate of their own; write at most {most}")
    if not 60 <= seconds(joins.growth.within) <= WITHIN_S_MAX:
        within = joins.growth.within
        found.append(f"spec.joins.growth.within is {within}; write a duration from 1m to 1h")
    if seconds(joins.deadline) == 0:
        found.append("spec.joins.deadline is zero; write 30m")
    if joins.gate.startswith((f"{GROUP}/", "node.kubernetes.io/")):
        found.append(f"spec.joins.gate is {joins.gate}, a key with another meaning; write one of your own")
    return tuple(found)


def _rate(rate: Rate, where: str) -> Iterator[str]:
    if seconds(rate.per) == 0:
        yield f"{where}.per is zero; write 1m"
    elif per_minute(rate) > PER_MINUTE_MAX:
        said = f"{rate.count} in {rate.per} is more than {PER_MINUTE_MAX:.0f} nodes a minute"
        yield f"{where}: {said}, which is no limit; write less"
