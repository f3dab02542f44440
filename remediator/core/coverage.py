"""How much of a pool each source can see, and whether that is enough to act. Blind means still."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Final

from remediator.core.match import matches
from remediator.model.policy import ExporterSpec
from remediator.model.signal import Coverage, PageReading
from remediator.model.views import NodeView

STALE_PERIODS: Final = 3

PoolOf = Callable[[NodeView], str | None]


def is_fresh(reading: PageReading | None, *, now_monotonic: float, period_s: float) -> bool:
    """Is the page young enough to say something about now? At three periods it still is."""
    return reading is not None and now_monotonic - reading.at_monotonic <= STALE_PERIODS * period_s


def exporter_coverage(
    nodes: Iterable[NodeView],
    pool_of: PoolOf,
    readings: Mapping[str, PageReading],
    spec: ExporterSpec,
    *,
    now_monotonic: float,
    period_s: float,
) -> Coverage:
    """Count the nodes with a fresh page that names a GPU, among those that ``spec.nodes`` selects.

    Args:
        nodes: all nodes, in any order.
        pool_of: name of the node's pool; nodes outside of any pool do not count.
        readings: the latest page by node name.
    """
    fresh: dict[str, int] = {}
    expected: dict[str, int] = {}
    for node in nodes:
        pool = pool_of(node)
        if pool is None or not matches(spec.nodes, node.labels):
            continue
        expected[pool] = expected.get(pool, 0) + 1
        reading = readings.get(node.name)
        # A page without GPUs comes from another exporter, or from one that can see nothing.
        seen = is_fresh(reading, now_monotonic=now_monotonic, period_s=period_s) and _names_gpus(reading)
        fresh[pool] = fresh.get(pool, 0) + seen
    return Coverage(source="exporter", fresh=fresh, expected=expected)


def condition_coverage(nodes: Iterable[NodeView], pool_of: PoolOf) -> Coverage:
    """Count the nodes whose kubelet is heard: Ready is True or False."""
    fresh: dict[str, int] = {}
    expected: dict[str, int] = {}
    for node in nodes:
        pool = pool_of(node)
        if pool is None:
            continue
        ready = node.condition("Ready")
        expected[pool] = expected.get(pool, 0) + 1
        fresh[pool] = fresh.get(pool, 0) + (ready is not None and ready.status in ("True", "False"))
    return Coverage(source="condition", fresh=fresh, expected=expected)


def uncovered(coverage: Coverage, pool: str, percent: int) -> str | None:
    """Why a fault that this source reported in ``pool`` may not be acted on, or None.

    Args:
        percent: of the pool's nodes must be fresh, exactly that many being enough.
    """
    fresh, expected = coverage.fresh.get(pool, 0), coverage.expected.get(pool, 0)
    if expected == 0:
        return f"{coverage.source} is expected on no node of pool {pool or '(none)'}"
    if fresh * 100 < percent * expected:
        return f"{coverage.source} sees {fresh} of {expected} nodes of pool {pool}, needs {percent} %"
    return None


def gate(coverage: Coverage, percent: int) -> Mapping[str, str]:
    """The reasons of ``uncovered`` for every pool that has one, in name order."""
    reasons = {pool: uncovered(coverage, pool, percent) for pool in sorted(coverage.expected)}
    return {pool: reason for pool, reason in reasons.items() if reason is not None}


def wrong_host(reading: PageReading, node: NodeView, names: Container[str]) -> str | None:
    """Why the page can't be this node's, or None.

    The host label is often the exporter's pod name, or a cloud's long name; only the name of
    another Node contradicts.
    """
    if reading.host != node.name and reading.host in names:
        return f"page of {node.name} carries the host label {reading.host}, which is another Node"
    return None


def _names_gpus(reading: PageReading | None) -> bool:
    return reading is not None and bool(reading.gpus)
