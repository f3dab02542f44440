"""The whole runtime around an in-memory API server, in virtual time; every loop can be stepped."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from remediator.adapters.telemetry.metrics import Metrics
from remediator.core.account import run_state
from remediator.model.ledger import ManagedNodeStatus
from remediator.model.playbook import Match, Matcher, NodeConditionMatch, PlaybookInForce, Step, XidMatch
from remediator.model.policy import ExporterSpec, PolicySpec, PolicyStatus
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation, RemediationStatus
from remediator.model.signal import GpuReading, PageReading
from remediator.model.views import NodeView
from remediator.ports import FeedState
from remediator.runtime.controller import Controller, Parts
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.events import Events
from remediator.runtime.fleet_loop import FleetLoop
from remediator.runtime.gauges import Gauges
from remediator.runtime.health import Health
from remediator.runtime.housekeeping import Housekeeping
from remediator.runtime.joins import Joins
from remediator.runtime.ledgers import Ledgers
from remediator.runtime.logbook import Logbook
from remediator.runtime.newcomers import Newcomers
from remediator.runtime.observer import Observer
from remediator.runtime.report import Reporter
from remediator.runtime.run_pass import RunPass, repairs_before
from remediator.runtime.scout import Scout
from remediator.runtime.statuses import Statuses
from remediator.runtime.sweep import Sweep
from remediator.runtime.takeover import Takeover
from remediator.runtime.witness import Witnesses
from remediator.runtime.workers import Workers
from remediator.runtime.world import World
from tests.unit.adapters.kube.manual_clock import ManualClock
from tests.unit.core.builders import BUFFER, HARD, SOFT, TRAIN, a_playbook, a_pod, a_policy
from tests.unit.runtime.api_server import ApiServer, Json, a_custom

T = TypeVar("T")
SPARE_TAINT = {"key": "example.com/spare", "effect": "NoSchedule"}
BROKEN = "GpuBroken"
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


class Tally(Metrics):
    """The real table of metrics, so that no wrong name or label passes, with its counters at hand."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}
        super().__init__()

    def count(self, metric: str, labels: Mapping[str, str], by: float = 1.0) -> None:
        super().count(metric, labels, by)
        self.counts[metric] += int(by)

    def gauge(self, metric: str, labels: Mapping[str, str], value: float) -> None:
        super().gauge(metric, labels, value)
        self.gauges[" ".join((metric, *labels.values()))] = value


class Pages:
    """``ports.PageSource`` that fetches nothing; a test hands readings in."""

    def __init__(self) -> None:
        self.round_complete = False
        self.followed: list[ExporterSpec | None] = []

    def follow(
        self,
        spec: ExporterSpec | None,
        nodes: Iterable[NodeView],
        addresses: Mapping[str, tuple[str, ...]],
        fields: frozenset[str],
    ) -> tuple[str, ...]:
        self.followed.append(spec)
        return ()

    async def run(self) -> None:
        await asyncio.Event().wait()


class Lease:
    """An election that obeys the test."""

    def __init__(self, transitions: int = 0) -> None:
        self.elected = asyncio.Event()
        self.lost = asyncio.Event()
        self.transitions = transitions
        self.holder = "me"
        self.last_error = ""
        self.release_error = ""
        self.released = False

    def is_leader(self, now_monotonic: float) -> bool:
        return self.elected.is_set() and not self.lost.is_set()

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def release(self) -> None:
        self.released = True
        self.last_error = self.release_error


def node_json(name: str, *, pool: str = "train", ready: str = "True", **more: Any) -> Json:
    """A Node as JSON: 8 GPUs, one boot, member of ``pool``."""
    taints = more.pop("taints", [SPARE_TAINT] if pool == "buffer" else [GPU_TAINT])
    labels = (
        {"example.com/pool": pool} | ({"team": "train"} if pool == "train" else {}) | more.pop("labels", {})
    )
    return {
        "metadata": {"uid": f"uid-{name}", "labels": labels, "annotations": more.pop("annotations", {})},
        "spec": {"taints": taints, **more.pop("spec", {})},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "nodeInfo": {"bootID": "boot-1", "systemUUID": more.pop("system_uuid", f"machine-{name}")},
            "allocatable": {"nvidia.com/gpu": "8"},
        },
    }


class Pendulum:
    """``ports.Ticks`` that a test swings by hand: ``jobs`` by name."""

    def __init__(self) -> None:
        self.jobs: dict[str, Callable[[], Awaitable[None]]] = {}
        self.running = False

    def every(self, seconds: float, job: Callable[[], Awaitable[None]], name: str) -> None:
        assert seconds > 0
        self.jobs[name] = job

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False


class Rig:
    """One process of the controller. ``again`` is the next one, after a crash."""

    def __init__(
        self,
        *,
        playbooks: Iterable[PlaybookInForce] | None = None,
        pools: Iterable[ResourcePool] = (TRAIN, BUFFER),
        policy: PolicySpec | None = None,
        nodes: int = 5,
        spares: int = 2,
    ) -> None:
        self.clock = ManualClock()
        self.server = ApiServer(self.clock)
        found = (hard(),) if playbooks is None else tuple(playbooks)
        self.server.put("policies", "cluster", a_custom("RemediationPolicy", policy or roomy()))
        for pool in pools:
            self.server.put("pools", pool.metadata.name, a_custom("ResourcePool", pool.spec))
        for playbook in found:
            self.server.put("playbooks", playbook.name, a_custom("Playbook", playbook.spec))
        for number in range(1, nodes + 1):
            self.server.put("nodes", f"gpu-{number}", node_json(f"gpu-{number}"))
        for number in range(1, spares + 1):
            self.server.put("nodes", f"spare-{number}", node_json(f"spare-{number}", pool="buffer"))
        for name in ("a", "b"):
            self.server.pods[f"team/{name}"] = a_pod(name)
        self._build()

    def _build(self, *, sync: bool = True) -> None:
        clock, server = self.clock, self.server
        self.metrics = Tally()
        self.pages = Pages()
        shared: Any = {"clock": clock, "telemetry": self.metrics}
        self.world = World(server.caches, clock=clock)
        self.diagnoses = Diagnoses(world=self.world, **shared)
        self.observer = Observer(world=self.world, diagnoses=self.diagnoses, reader=server, clock=clock)
        self.observer.repairs_before = partial(repairs_before, self.world)
        self.events = Events(records=server, **shared)
        self.reporter = Reporter(events=self.events, **shared)
        self.scout = Scout(world=self.world, diagnoses=self.diagnoses, observer=self.observer, clock=clock)
        self.witnesses = Witnesses(reader=server, clock=clock)
        self.scout.witnesses = self.witnesses.said
        common: Any = {"world": self.world, "records": server, **shared}
        self.run_pass = RunPass(observer=self.observer, writer=server, reporter=self.reporter, **common)
        self.fleet = FleetLoop(
            diagnoses=self.diagnoses,
            scout=self.scout,
            witnesses=self.witnesses,
            reader=server,
            reporter=self.reporter,
            **common,
        )
        self.workers = Workers(world=self.world, run_pass=self.run_pass, **shared)
        self.ledgers = Ledgers(diagnoses=self.diagnoses, **common)
        self.sweep = Sweep(world=self.world, writer=server, reader=server, events=self.events, **shared)
        self.takeover = Takeover(world=self.world, writer=server, clock=clock)
        looks: Any = {"scout": self.scout, "diagnoses": self.diagnoses, "pages": self.pages}
        self.statuses = Statuses(world=self.world, records=server, clock=clock, **looks)
        self.feeds: dict[str, FeedState] = {}
        self.lease = Lease()
        self.skew_s = 0.0
        self.health = Health(
            caches=server.caches,
            feeds=lambda: dict(self.feeds),
            election=self.lease,
            skew_s=lambda: self.skew_s,
            clock=clock,
        )
        self.logbook = Logbook(world=self.world, diagnoses=self.diagnoses, health=self.health, clock=clock)
        self.newcomers = Newcomers(world=self.world, diagnoses=self.diagnoses, reader=server, clock=clock)
        doors: Any = {"writer": server, "proofs": server, "events": self.events}
        self.joins = Joins(world=self.world, newcomers=self.newcomers, **doors, **shared)
        self.gauges = Gauges(
            world=self.world,
            diagnoses=self.diagnoses,
            fleet=self.fleet,
            health=self.health,
            joins=self.joins,
            **shared,
        )
        self.ticks = Pendulum()
        self.housekeeping = Housekeeping(world=self.world, records=server, clock=clock, ticks=self.ticks)
        self._assemble()
        if sync:
            server.sync()
            self.diagnoses.rules_changed()
            self.ledgers.mark_all()

    def _assemble(self) -> None:
        self.parts = Parts(
            world=self.world,
            diagnoses=self.diagnoses,
            scout=self.scout,
            fleet=self.fleet,
            run_pass=self.run_pass,
            workers=self.workers,
            ledgers=self.ledgers,
            joins=self.joins,
            sweep=self.sweep,
            takeover=self.takeover,
            statuses=self.statuses,
            gauges=self.gauges,
            housekeeping=self.housekeeping,
            events=self.events,
            health=self.health,
            logbook=self.logbook,
            pages=self.pages,
        )
        self.own_nodes: frozenset[str] = frozenset()
        self.controller = Controller(
            self.parts,
            reflectors=(),
            election=self.lease,
            records=self.server,
            reader=self.server,
            clock=self.clock,
            telemetry=self.metrics,
            identity="me",
            own_pods=self._own_pods,
        )
        self.parts.set_term(1)

    async def _own_pods(self) -> frozenset[str]:
        return self.own_nodes

    def again(self, *, sync: bool = True) -> None:
        """Crash and start anew: everything that was not saved is gone."""
        self.server.restart()
        self._build(sync=sync)

    # -- stepping

    def diagnose(self) -> None:
        for name in sorted(self.world.nodes):
            self.diagnoses.look(name)

    async def fleet_pass(self) -> float:
        self.diagnose()
        return await self.finish(self.fleet.one_pass())

    async def turn(self, run: str) -> float | None:
        return await self.finish(self.run_pass.turn(run))

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Let it run to its end; time passes while it waits for something."""
        task = asyncio.ensure_future(work)
        await self.settle(20)
        for _ in range(200):
            if task.done():
                break
            await self.clock.advance(0.25)
        assert task.done(), "it never ends"
        await self.settle()
        return await task

    async def write_ledgers(self) -> None:
        for machine in self.ledgers._take():
            await self.finish(self.ledgers.write(machine))

    async def round(self, seconds: float = 1.0) -> None:
        """Everybody gets one turn, and then time passes."""
        await self.fleet_pass()
        for name in list(self.world.open_runs):
            await self.turn(name)
        await self.write_ledgers()
        await self.finish(self.sweep.once())
        self.clock.stand_still(seconds)
        self.fresh()

    def fresh(self) -> None:
        """The watches say that they are alive."""
        for kind in self.server.feeds.values():
            kind.store.prove(0)

    async def play(self, rounds: int = 120, *, seconds: float = 5.0) -> None:
        """Rounds until no run is open and no fault is left, and two more for the books."""
        quiet = 0
        for _ in range(rounds):
            await self.round(seconds)
            quiet = quiet + 1 if not self.world.open_runs and not self.diagnoses.faults() else 0
            if quiet > 2:
                return

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A loop that goes on beside the test, which cancels it."""
        return asyncio.ensure_future(work)

    async def settle(self, yields: int = 4) -> None:
        for _ in range(yields):
            await self.clock.sleep(0)

    # -- what happens in the world

    def break_node(self, *names: str) -> None:
        """A monitor says that the GPUs are broken; the kubelet goes on."""
        for name in names or ("gpu-1",):
            self._condition(name, "True")

    def heal_node(self, *names: str) -> None:
        for name in names or ("gpu-1",):
            self._condition(name, "False")

    def _condition(self, name: str, broken: str) -> None:
        conditions = [{"type": "Ready", "status": "True"}, {"type": BROKEN, "status": broken}]
        self.change("nodes", name, {"status": {"conditions": conditions}})

    def change(self, kind: str, name: str, patch: Json) -> None:
        """Somebody writes, and the watch shows it at once."""
        self.server.change(kind, name, patch)
        self.server.deliver(kind)

    def delete(self, kind: str, name: str) -> None:
        self.server.delete(kind, name)
        self.server.deliver(kind)

    def page(self, node: str, *xids: int, bad_lines: int = 0) -> None:
        """The exporter's page of a node is read and looked at."""
        self.diagnoses.page_read(self.reading(node, *xids, bad_lines=bad_lines))
        self.diagnoses.look(node)

    def reading(self, node: str, *xids: int, bad_lines: int = 0) -> PageReading:
        """The exporter's page of a node: one GPU per last XID, the others without."""
        codes = (*xids, *([0] * (8 - len(xids))))
        gpus = tuple(GpuReading(f"GPU-{node}-{at}", str(at), xid) for at, xid in enumerate(codes))
        return PageReading(node, self.clock.now(), self.clock.monotonic(), gpus, bad_lines=bad_lines)

    # -- looking at the server

    def run(self, name: str) -> Remediation:
        return msgspec.convert(self.server.get("runs", name), Remediation)

    def run_status(self, name: str) -> RemediationStatus:
        status = self.run(name).status
        assert status is not UNSET, f"{name} has no status"
        return status

    def state(self, name: str) -> str:
        return run_state(self.run(name)).value

    def runs(self) -> dict[str, str]:
        return {name: self.state(name) for name in self.server.names("runs")}

    def status(self) -> PolicyStatus:
        return msgspec.convert(self.server.get("policies", "cluster").get("status", {}), PolicyStatus)

    def granted(self) -> list[str]:
        return sorted(grant.run for grant in self.status().grants)

    def ledger(self, machine: str) -> ManagedNodeStatus:
        return msgspec.convert(self.server.get("ledgers", machine).get("status", {}), ManagedNodeStatus)

    def taints(self, name: str) -> list[str]:
        return [each["key"] for each in self.server.get("nodes", name)["spec"].get("taints", [])]

    def quarantined(self, name: str) -> bool:
        return "remediator.dev/quarantine" in self.taints(name)

    def reasons(self) -> list[str]:
        return [refused.blocked_by.stop for _, refused in sorted(self.fleet.refused.items())]

    def told(self) -> list[str]:
        return [event.reason for event in self.events._queue._queue]  # type: ignore[attr-defined]


def hard(*actions: str | Step, **fields: Any) -> PlaybookInForce:
    """The playbook of a broken GPU: quarantine first."""
    match = Match(
        any_of=(Matcher(id="broken", node_condition=NodeConditionMatch(type=BROKEN, status="True")),)
    )
    return a_playbook(*(actions or HARD), **{"match": match} | fields)


def xid_book(*codes: int, **fields: Any) -> PlaybookInForce:
    """The playbook of GPUs that report one of these XIDs."""
    return hard(match=Match(any_of=(Matcher(id="xid", xid=XidMatch(codes=codes)),)), **fields)


def soft(*actions: str | Step, **fields: Any) -> PlaybookInForce:
    """Spare first: nothing is taken away before somebody else has the place."""
    return hard(*(actions or SOFT), severity="Soft", **fields)


def roomy(**fields: Any) -> PolicySpec:
    """An enforcing policy whose budgets stand in nobody's way."""
    everything: Any = msgspec.convert({"percent": 100}, type(PolicySpec().max_unavailable))
    rate: Any = msgspec.convert({"count": 100, "per": "1h", "burst": 100}, type(PolicySpec().rate))
    breaker: Any = msgspec.convert({"count": 100}, type(PolicySpec().breaker))
    return a_policy(
        **{
            "max_unavailable": everything,
            "pool_max_unavailable": everything,
            "max_concurrent": 50,
            "pool_max_concurrent": 50,
            "rate": rate,
            "breaker": breaker,
        }
        | fields
    )


def with_exporter(**fields: Any) -> PolicySpec:
    return roomy(exporter=ExporterSpec(address="http://{address}:9400/metrics"), **fields)


async def broken(*nodes: str, **fields: Any) -> Rig:
    """A rig with these nodes broken, gpu-1 where none is named, and diagnosed."""
    rig = Rig(**fields)
    rig.break_node(*nodes)
    rig.diagnose()
    return rig
