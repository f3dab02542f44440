"""One fleet on the simulator, with one controller: what it costs, as a line of JSON.

    python -m bench.simulated_process NODES TRIALS SECONDS

A process of its own, so that its memory is the fleet's.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from bench.machine import memory_kb
from remediator.app.simulation import Simulation, enforcing, shipped_objects
from remediator.chaos.campaign import hush
from remediator.fleet.dcgm_fields import TELLING
from remediator.fleet.layout import build_fleet
from remediator.fleet.node_objects import NodeSpec
from remediator.sim.loop import VirtualClock, run_virtual, virtual_clock

RACKS: Final = 625  # at most; a larger fleet has larger racks
FAULT: Final = "KernelDeadlock"
PATCHES: Final = 2_000
BASELINE_S: Final = 300.0
TAINT_S: Final = 120.0
APART_S: Final = 5.0


class Measured(Struct, frozen=True):
    """CPU is that of the whole process: the simulated cluster and the controller in it."""

    nodes: int
    start_cpu_s: float  # until every page was read once
    seconds_per_cpu_s: float  # virtual ones, while nothing happens
    patches_per_cpu_s: float  # of Nodes by an administrator, audited
    rss_mb: float
    taint_cpu_ms: tuple[float, ...]  # from a condition to the commit of the taint
    taint_virtual_ms: tuple[float, ...]


def _roomy(item: dict[str, Any]) -> dict[str, Any]:
    """Without limits that would make one trial wait for the other."""
    rate = {"count": 1_000, "per": "1m", "burst": 500}
    spec = item.get("spec", {})
    if item["kind"] == "Playbook":
        limits = {"maxConcurrent": 100, "rate": rate}
        at_once = [{key: each[key] for key in each if key != "for"} for each in spec["match"]["anyOf"]]
        return item | {"spec": spec | {"limits": limits, "match": spec["match"] | {"anyOf": at_once}}}
    if item["kind"] == "RemediationPolicy":
        share = {"percent": 20, "atLeast": 1}
        out = {"maxUnavailable": share, "poolMaxUnavailable": share}
        room = {"rate": rate, "maxConcurrent": 100, "poolMaxConcurrent": 100, "maxRepairs": 100} | out
        breaker = {"count": 250, "percent": 50, "within": "10m", "quiet": "30s"}
        return item | {"spec": spec | room | {"breaker": breaker}}
    return item


class _Scene:
    def __init__(self, clock: VirtualClock, nodes: int) -> None:
        self.clock = clock
        self.tainted: asyncio.Future[None] | None = None
        self.node = ""
        self.simulation = Simulation(
            clock,
            seed=1,
            specs=_fleet(nodes),
            objects=[_roomy(each) for each in enforcing(shipped_objects())],
            audit=self._hear,
        )
        self.machines = self.simulation.cluster.machines
        self.machines.exporters.show_only(TELLING)

    def _hear(self, line: bytes) -> None:
        waits = self.tainted is not None and not self.tainted.done()
        if waits and b"remediator.dev/quarantine" in line and self.node.encode() in line:
            record = msgspec.json.decode(line)
            about = record["objectRef"]
            if (about["resource"], about.get("name")) == ("nodes", self.node) and "serviceaccount" in str(
                record["user"]
            ):
                assert self.tainted is not None
                self.tainted.set_result(None)

    async def baseline(self) -> None:
        await self.simulation.start()

        def baselined() -> object:
            return self.simulation.all("remediationpolicies")[0].get("status", {}).get("baselined")

        await self.simulation.wait_for("all pages", baselined, within_s=BASELINE_S)

    async def taint(self, node: str) -> tuple[float, float]:
        """CPU and virtual milliseconds from a condition to its fence."""
        self.node, self.tainted = node, asyncio.get_running_loop().create_future()
        began, cpu = self.clock.monotonic(), time.process_time()
        self.machines.set_condition(node, FAULT, "True", "Bench", "set by the benchmark")
        async with asyncio.timeout(TAINT_S):
            await self.tainted
        return (time.process_time() - cpu) * 1_000, (self.clock.monotonic() - began) * 1_000

    def patches_per_cpu_s(self) -> float:
        """An administrator writes a label of one Node after the other."""
        admin, names = self.simulation.cluster.admin, [each.name for each in self.simulation.cluster.specs]
        cpu = time.process_time()
        for number in range(PATCHES):
            body = {"metadata": {"labels": {"bench": str(number)}}}
            code, _ = admin.send("PATCH", f"/api/v1/nodes/{names[number % len(names)]}", body)
            assert code == 200
        return PATCHES / (time.process_time() - cpu)


def _fleet(nodes: int) -> tuple[NodeSpec, ...]:
    per_rack = 8 * -(-nodes // (8 * RACKS))
    return build_fleet(nodes // per_rack, per_rack)


def _victims(nodes: int) -> Iterator[str]:
    """Nodes for training, in different racks."""
    specs = _fleet(nodes)
    return (spec.name for spec in specs if spec.pool == "train" and spec.name.endswith("-01"))


async def _measure(nodes: int, trials: int, seconds: float) -> Measured:
    clock, cpu = virtual_clock(), time.process_time()
    scene = _Scene(clock, nodes)
    await scene.baseline()
    start_cpu_s = time.process_time() - cpu
    await clock.sleep(60.0)
    cpu = time.process_time()
    await clock.sleep(seconds)
    ratio = seconds / (time.process_time() - cpu)
    took = []
    for _, node in zip(range(trials), _victims(nodes), strict=False):
        took.append(await scene.taint(node))
        await clock.sleep(APART_S)
    patches = scene.patches_per_cpu_s()
    await scene.simulation.close()
    return Measured(
        nodes=nodes,
        start_cpu_s=start_cpu_s,
        seconds_per_cpu_s=ratio,
        patches_per_cpu_s=patches,
        rss_mb=memory_kb(os.getpid(), "VmRSS") / 1_024,
        taint_cpu_ms=tuple(each for each, _ in took),
        taint_virtual_ms=tuple(each for _, each in took),
    )


def main() -> None:
    nodes, trials, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    hush()
    found = run_virtual(_measure(nodes, trials, seconds))
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
