"""What a fleet costs on the simulator, with one controller on it, by its size."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import msgspec

from bench.context import Context
from bench.machine import ROOT
from bench.results import Count, Finding, a_series, at_least, at_most
from bench.simulated_process import Measured

TRIALS: Final = 20
WATCHED_S: Final = 120.0
PATIENCE_S: Final = 1_800.0
RATIO_MIN: Final = 1.0
TAINT_MS_MAX: Final = 100.0


def measure(context: Context, *, sizes: tuple[int, ...]) -> Finding:
    """One process for each size."""
    found = [_of(context, nodes) for nodes in sizes]
    largest = found[-1]
    series = tuple(
        a_series(f"CPU from a condition to its taint, {each.nodes} nodes", "ms", each.taint_cpu_ms)
        for each in found
    )
    ratio, taint_ms = largest.seconds_per_cpu_s, series[-1].summary.p50
    return Finding(
        series=series,
        checks=(
            at_least(f"virtual seconds per second, {largest.nodes} nodes", ratio, RATIO_MIN),
            at_most(f"CPU to a taint, P50 in ms, {largest.nodes} nodes", taint_ms, TAINT_MS_MAX),
        ),
        counts=tuple(count for each in found for count in _counts(each)),
        conditions={
            "seconds": WATCHED_S,
            "pagePeriodSeconds": 15,
            "controllers": 1,
            "pages": "only what playbooks read",
            "trials": len(largest.taint_cpu_ms),
        },
        notes=(
            "Simulated: CPU and memory are of one process with the whole cluster and the controller in it.",
            "Virtual seconds per second of CPU are counted while nothing happens but pages are read.",
        ),
    )


def _of(context: Context, nodes: int) -> Measured:
    context.tell(f"{nodes} nodes")
    command = [sys.executable, "-m", "bench.simulated_process", str(nodes), str(TRIALS), str(WATCHED_S)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Measured)


def _counts(found: Measured) -> tuple[Count, ...]:
    size = f"{found.nodes} nodes"
    return (
        Count(name=f"{size}: MB at the end", value=round(found.rss_mb, 1)),
        Count(name=f"{size}: CPU seconds until every page was read", value=round(found.start_cpu_s, 1)),
        Count(name=f"{size}: virtual seconds per CPU second", value=round(found.seconds_per_cpu_s, 2)),
        Count(name=f"{size}: audited patches per CPU second", value=round(found.patches_per_cpu_s)),
    )
