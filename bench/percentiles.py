"""Summaries of samples. Pure: exact order statistics, no interpolation and no buckets."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct


class Summary(Struct, frozen=True, kw_only=True):
    """Of ``n`` samples, all in one unit."""

    n: int
    min: float
    p50: float
    p95: float
    p99: float
    max: float
    mean: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest sample that ``percent`` of all do not exceed.

    Args:
        ordered: ascending, not empty.
        percent: above 0, up to 100.

    Raises:
        ValueError: no samples, or no such percentile.
    """
    if not ordered or not 0 < percent <= 100:
        raise ValueError(f"percentile {percent} of {len(ordered)} samples")
    return ordered[math.ceil(percent * len(ordered) / 100) - 1]


def summarize(samples: Sequence[float]) -> Summary:
    """Summarize samples in any order.

    Raises:
        ValueError: there are none.
    """
    ordered = sorted(samples)
    if not ordered:
        raise ValueError("a summary of 0 samples")
    return Summary(
        n=len(ordered),
        min=ordered[0],
        p50=percentile(ordered, 50),
        p95=percentile(ordered, 95),
        p99=percentile(ordered, 99),
        max=ordered[-1],
        mean=math.fsum(ordered) / len(ordered),
    )
