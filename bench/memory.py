"""Resident memory of the controller at 66 and at 1,000 nodes of 20 KB, each after a fresh start."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench.context import Context
from bench.machine import memory_kb
from bench.results import Finding, a_series, at_most
from bench.scene import Scene
from remediator.testbed.fleet import build_fleet

SMALL: Final = 66
LARGE: Final = 1_000
SETTLE_S: Final = 20.0
STARTS: Final = 3
BASE_MB: Final = 100.0
PER_1000_MB: Final = 6.0
# The same interpreter with the libraries that the controller can't do without, and nothing read.
_BARE: Final = (
    "import kubernetes.aio.client, aiohttp, msgspec, structlog, prometheus_client, sys; "
    "print(); sys.stdin.read()"
)


def measure(context: Context) -> Finding:
    """Read VmRSS after the caches are full and a while has passed; several starts each."""
    with Scene(context.directory / "scene", context.binaries, nodes=SMALL, size="full") as scene:
        small = [_one_start(scene) for _ in range(STARTS)]
        context.tell(f"{SMALL} nodes: {small[-1][0]:.1f} MB")
        more = build_fleet(LARGE // 8, 8, infer=0, buffer=0, system=0)[SMALL:LARGE]
        scene.add_nodes(more)
        large = [_one_start(scene) for _ in range(STARTS)]
        context.tell(f"{LARGE} nodes: {large[-1][0]:.1f} MB")
    resident = [max(rss for rss, _ in each) for each in (small, large)]
    slope = (resident[1] - resident[0]) / (LARGE - SMALL) * 1_000
    return Finding(
        series=(
            a_series(f"resident, {SMALL} nodes", "MB", [rss for rss, _ in small]),
            a_series(f"resident, {LARGE} nodes", "MB", [rss for rss, _ in large]),
            a_series(f"peak since the start, {LARGE} nodes", "MB", [peak for _, peak in large]),
            a_series("bare interpreter with the libraries", "MB", [_bare_mb() for _ in range(STARTS)]),
        ),
        checks=(
            at_most(f"MB at {SMALL} nodes", resident[0], BASE_MB + PER_1000_MB * SMALL / 1_000),
            at_most(f"MB at {LARGE} nodes", resident[1], BASE_MB + PER_1000_MB * LARGE / 1_000),
            at_most("MB per 1,000 nodes", slope, PER_1000_MB),
        ),
        conditions={
            "nodes": f"{SMALL} and {LARGE}",
            "nodeSize": "full",
            "starts": STARTS,
            "readAfter": SETTLE_S,
            "exporters": "none",
            "openRuns": 0,
        },
        notes=("The worst start counts. MB are 10^6 bytes.",),
    )


def _one_start(scene: Scene) -> tuple[float, float]:
    """Resident and peak MB of a new process of the controller."""
    scene.start_controller(pages=False, lease_seconds=15.0)
    time.sleep(SETTLE_S)
    found = _mb(scene.controller_pid, "VmRSS"), _mb(scene.controller_pid, "VmHWM")
    scene.stop_controller()
    return found


def _bare_mb() -> float:
    with subprocess.Popen(
        [sys.executable, "-c", _BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.home()
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = _mb(process.pid, "VmRSS")
        process.communicate(b"", timeout=10)
    return found


def _mb(pid: int, field: str) -> float:
    return memory_kb(pid, field) * 1024 / 1e6
