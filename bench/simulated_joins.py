"""New nodes that come in storms while leaders die: is the limit exact, and all of it used? Simulated."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import structs

from bench.context import Context
from bench.machine import memory_kb
from bench.results import Count, Finding, at_least, at_most
from remediator.adapters.audit import AuditRecord, Numbered
from remediator.app.simulation import Replica, Simulation, enforcing, shipped_objects
from remediator.chaos.campaign import hush
from remediator.chaos.check import Judge, Report
from remediator.chaos.ours import shipped_profile
from remediator.chaos.profile import Joins
from remediator.core.joins.preflight import PREFLIGHT
from remediator.fleet.dcgm_fields import TELLING
from remediator.fleet.layout import build_fleet
from remediator.fleet.node_objects import NodeSpec
from remediator.model.joins import GATE_KEY
from remediator.model.keys import ANNOTATION_JOINED
from remediator.sim.loop import VirtualClock, run_virtual, virtual_clock

COUNT, BURST = 300, 50  # a minute
STORM: Final = 500  # nodes that register at once
STORM_EVERY_S: Final = 90.0  # the backlog never ends: 500 come while 450 go in
LEADER_LIVES_S: Final = 240.0
RULES: Final = ("S18", "S19b", "L9")
USED_MIN: Final = 0.99
PATIENCE_S: Final = 14_400.0


class _Scene:
    """One fleet, the storms, two replicas of which the leader dies again and again, and the verdict."""

    def __init__(self, clock: VirtualClock, joining: int) -> None:
        self.clock = clock
        self.opened: dict[str, datetime] = {}
        self.born: dict[str, datetime] = {}
        self.gaps_s: list[float] = []
        profile = shipped_profile()
        assert profile.own is not None
        own = structs.replace(profile.own, keys=(*profile.own.keys, GATE_KEY))
        limit = Joins(gate=GATE_KEY, count=COUNT, seconds=60.0, burst=BURST, proof=PREFLIGHT)
        self._judge = Judge(structs.replace(profile, own=own, joins=limit), calm=True)
        self._decoder = msgspec.json.Decoder(AuditRecord)
        self._lines = 0
        here = build_fleet(1, 8)
        names = {spec.name for spec in here}
        whole = build_fleet(-(-joining // 90) + 1, 90, infer=0, buffer=0, system=0)
        self.coming = [replace(each, gate=GATE_KEY) for each in whole if each.name not in names][:joining]
        self.simulation = Simulation(
            clock, seed=1, specs=here, objects=[_joining(each) for each in enforcing(shipped_objects())],
            audit=self._hear,
        )  # fmt: skip
        self.simulation.cluster.machines.exporters.show_only(TELLING)

    def _hear(self, line: bytes) -> None:
        self._lines += 1
        record = self._decoder.decode(line)
        self._judge.see(Numbered(self._lines, record))
        about = record.object_ref
        if not record.committed or about.resource != "nodes":
            return
        if record.verb == "create":
            self.born[about.name] = record.staged_at
        elif not about.subresource and ANNOTATION_JOINED.encode() in bytes(record.request_object):
            self.opened.setdefault(about.name, record.staged_at)

    async def play(self) -> None:
        for _ in range(2):
            await self.simulation.start()
        await self.clock.sleep(60)
        dying = asyncio.create_task(self._leaders_die())
        for storm in _storms(self.coming):
            for spec in storm:
                self.simulation.cluster.machines.add(spec)
            await self.clock.sleep(STORM_EVERY_S)
        await self.simulation.wait_for(
            "all to be in", lambda: len(self.opened) == len(self.coming), within_s=PATIENCE_S, every_s=5.0
        )
        dying.cancel()
        await self.simulation.close()

    async def _leaders_die(self) -> None:
        while True:
            await self.clock.sleep(LEADER_LIVES_S)
            leader = self._leader()
            if leader is None:
                continue
            died = self.clock.monotonic()
            await leader.kill()
            await self.simulation.start()
            while self._leader() is None:
                await self.clock.sleep(0.1)
            self.gaps_s.append(self.clock.monotonic() - died)

    def _leader(self) -> Replica | None:
        return next((each for each in self.simulation.replicas if each.leading), None)

    def report(self) -> Report:
        return self._judge.report()


def measure(context: Context, *, joining: int) -> Finding:
    """All of it in virtual time; the audit log is the judge."""
    hush()
    began = time.process_time()
    scene = run_virtual(_played(joining))
    cpu_s = time.process_time() - began
    context.tell(f"{joining} nodes in {cpu_s:.0f} s of CPU")
    times = sorted(scene.opened.values())
    led_s = (times[-1] - times[0]).total_seconds() - sum(scene.gaps_s)
    used = (joining - BURST) / (led_s * COUNT / 60.0)
    broken = sum(each.broken for each in scene.report().verdicts if each.rule in RULES)
    waited = sorted((at - scene.born[name]).total_seconds() for name, at in scene.opened.items())
    return Finding(
        checks=(
            at_most("nodes let in too early, without proof, or never", broken, 0),
            at_least("share of the allowed rate that is used while somebody leads", round(used, 4), USED_MIN),
        ),
        counts=(
            Count(name="nodes", value=joining),
            Count(name="leaders that died", value=len(scene.gaps_s)),
            Count(name="seconds without a leader, all together", value=round(sum(scene.gaps_s))),
            Count(name="seconds from creation to gate open, P50", value=round(waited[len(waited) // 2])),
            Count(name="the same, P99", value=round(waited[len(waited) * 99 // 100])),
            Count(name="CPU seconds of cluster and controllers", value=round(cpu_s)),
            Count(name="MB at the end", value=round(memory_kb(os.getpid(), "VmRSS") / 1_024)),
        ),
        conditions={
            "perMinute": COUNT, "burst": BURST, "storm": STORM, "stormEverySeconds": STORM_EVERY_S,
            "leaderLivesSeconds": LEADER_LIVES_S,
        },
        notes=("Simulated. What would have filled while nobody led is given up by the next leader.",),
    )  # fmt: skip


async def _played(joining: int) -> _Scene:
    scene = _Scene(virtual_clock(), joining)
    await scene.play()
    return scene


def _storms(specs: list[NodeSpec]) -> Iterator[list[NodeSpec]]:
    for begin in range(0, len(specs), STORM):
        yield specs[begin : begin + STORM]


def _joining(item: dict[str, Any]) -> dict[str, Any]:
    """With joins, and without the limits that would hide the rate."""
    if item["kind"] != "RemediationPolicy":
        return item
    rate = {"count": COUNT, "per": "1m", "burst": BURST}
    joins = {"mode": "Enforce", "rate": rate, "maxInitialising": 10_000, "growth": {"above": 10_000}}
    return item | {"spec": item["spec"] | {"joins": joins}}
