"""Resident memory of the controller at 66, 1,000 and 3,000 nodes of 20 KB, each after a fresh start.

At 1,000 nodes also after an hour's worth of heartbeats, which is what a leak would show in.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from bench.context import Context
from bench.machine import memory_kb
from bench.results import Finding, a_series, at_most
from bench.scene import Scene
from bench.wire import STRATEGIC_PATCH, RawApi
from remediator.fleet.layout import (
    build_fleet,
)
from remediator.testbed.node_edits import timestamp
from remediator.testbed.stage import NODES

SMALL: Final = 66
LARGE: Final = 1_000
HUGE: Final = 3_000
SETTLE_S: Final = 20.0
STARTS: Final = 3
BASE_MB: Final = 100.0
PER_1000_MB: Final = 6.0
HEARTBEATS: Final = 12  # a kubelet without news writes its status every five minutes
TOGETHER: Final = 16  # heartbeats on their way at once
GROWTH_MB: Final = 5.0  # what an hour may add; a leak of one event in ten would be more
# The same interpreter with the libraries that the controller can't do without, and nothing read.
_BARE: Final = (
    "import kubernetes.aio.client, aiohttp, msgspec, structlog, prometheus_client, sys; "
    "print(); sys.stdin.read()"
)


def measure(context: Context) -> Finding:
    """Read VmRSS after the caches are full and a while has passed; several starts each."""
    fleet = build_fleet(HUGE // 8, 8, infer=0, buffer=0, system=0)
    found: dict[int, list[tuple[float, float]]] = {}
    with Scene(context.directory / "scene", context.binaries, nodes=SMALL, size="full") as scene:
        hour = (0.0, 0.0)
        for size in (SMALL, LARGE, HUGE):
            scene.add_nodes(fleet[max(found, default=SMALL) : size])
            found[size] = [_one_start(scene) for _ in range(STARTS)]
            context.tell(f"{size} nodes: {found[size][-1][0]:.1f} MB")
            if size == LARGE:
                hour = _an_hour(scene, [spec.name for spec in fleet[:size]])
                context.tell(f"an hour's heartbeats: {hour[0]:.1f} -> {hour[1]:.1f} MB")
    resident = {size: max(rss for rss, _ in starts) for size, starts in found.items()}
    slope = (resident[HUGE] - resident[SMALL]) / (HUGE - SMALL) * 1_000
    return Finding(
        series=(
            *(a_series(f"resident, {size} nodes", "MB", [rss for rss, _ in found[size]]) for size in found),
            a_series(f"peak since the start, {HUGE} nodes", "MB", [peak for _, peak in found[HUGE]]),
            a_series(f"resident before and after an hour's heartbeats, {LARGE} nodes", "MB", hour),
            a_series("bare interpreter with the libraries", "MB", [_bare_mb() for _ in range(STARTS)]),
        ),
        checks=(
            *(
                at_most(f"MB at {size} nodes", resident[size], BASE_MB + PER_1000_MB * size / 1_000)
                for size in found
            ),
            at_most("MB per 1,000 nodes", slope, PER_1000_MB),
            at_most("MB that an hour's heartbeats add", hour[1] - hour[0], GROWTH_MB),
        ),
        conditions={
            "nodes": f"{SMALL}, {LARGE} and {HUGE}",
            "nodeSize": "full",
            "starts": STARTS,
            "readAfter": SETTLE_S,
            "heartbeatsPerNode": HEARTBEATS,
            "exporters": "none",
            "openRuns": 0,
        },
        notes=(
            "The worst start counts. MB are 10^6 bytes. Heartbeats come as fast as the server takes them.",
        ),
    )


def _an_hour(scene: Scene, nodes: list[str]) -> tuple[float, float]:
    """Resident MB of one process before and after every node's status was written twelve times."""
    scene.start_controller(pages=False, lease_seconds=15.0)
    time.sleep(SETTLE_S)
    before = _mb(scene.controller_pid, "VmRSS")
    asyncio.run(_heartbeats(scene, nodes))
    time.sleep(SETTLE_S)
    after = _mb(scene.controller_pid, "VmRSS")
    scene.stop_controller()
    return before, after


async def _heartbeats(scene: Scene, nodes: list[str]) -> None:
    at_once = asyncio.Semaphore(TOGETHER)
    async with RawApi(Path(scene.cluster.kubeconfig)) as raw:

        async def beat(node: str) -> None:
            condition = {"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": timestamp()}
            body = msgspec.json.encode({"status": {"conditions": [condition]}})
            async with at_once:
                await raw.send("PATCH", f"{NODES}/{node}/status", body, content_type=STRATEGIC_PATCH)

        for _ in range(HEARTBEATS):
            async with asyncio.TaskGroup() as group:
                for node in nodes:
                    group.create_task(beat(node))


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
