"""Plays one story: what happens and when, and what came of it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from remediator.adapters.files.testfile import START, Case, Happening
from remediator.app.rehearsal.clock import StoryClock
from remediator.app.rehearsal.cluster import Books, Cluster
from remediator.app.rehearsal.hardware import Hardware
from remediator.app.rehearsal.opening import Opening, with_taints
from remediator.app.rehearsal.stage import TERM, Stage
from remediator.core.coverage import STALE_PERIODS
from remediator.core.people import write_hold
from remediator.errors import ContractError
from remediator.model.duration import seconds
from remediator.model.instant import read_instant, write_instant
from remediator.model.keys import ANNOTATION_FENCED, ANNOTATION_HOLD, TAINT_QUARANTINE
from remediator.model.ledger import ManagedNode, ManagedNodeSpec, ManualRequest
from remediator.model.meta import ObjectMeta, Pause
from remediator.model.playbook import Playbook
from remediator.model.policy import PolicyStatus
from remediator.model.remediation import Cancel, Remediation
from remediator.model.views import ConditionView, NodeView

EVENTS_MAX: Final = 20_000  # looks and happenings of one story


@dataclass(slots=True)
class Peaks:
    """The highest numbers of the story."""

    not_serving: int = 0
    runs: int = 0
    reboots: int = 0


@dataclass(slots=True)
class Told:
    """What came of a story. ``blocked`` are node and reason of what waits at the end."""

    books: Books
    runs: tuple[Remediation, ...] = ()
    blocked: tuple[tuple[str, str], ...] = ()
    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    homes: Mapping[str, str] = field(default_factory=dict)
    faults: dict[tuple[str, str], None] = field(default_factory=dict)
    peaks: Peaks = field(default_factory=Peaks)
    elapsed_s: float = 0.0


class Play:
    """One story from its opening to its end."""

    def __init__(self, case: Case, opening: Opening, playbooks: Mapping[str, Playbook]) -> None:
        start = read_instant(START)
        assert start is not None
        self._case = case
        self._opening = opening
        self._playbooks = playbooks
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._clock = StoryClock(start)
        self._hardware = Hardware(opening.nodes.values(), clock=self._clock)
        self._cluster = Cluster(opening, hardware=self._hardware, clock=self._clock, agenda=self._later)
        self._stage = Stage(self._cluster, self._hardware, clock=self._clock, later=self._later)
        self._told = Told(books=self._cluster.books)

    async def run(self) -> Told:
        """Play it.

        Raises:
            ContractError: the controller broke one of its own rules, or did not come to rest.
        """
        self._begin()
        await self._stage.settle()
        for happening in self._case.timeline:
            self._at(float(seconds(happening.at)), partial(self._happen, happening))
        lasts_s = seconds(self._case.lasts)
        for _ in range(EVENTS_MAX):
            if not self._agenda or self._agenda[0][0] > lasts_s:
                return self._end()
            self._clock.advance(self._agenda[0][0])
            while self._agenda and self._agenda[0][0] <= self._clock.elapsed_s:
                heapq.heappop(self._agenda)[2]()
            await self._stage.settle()
            self._moment()
        raise ContractError(f"{EVENTS_MAX} events in one story, at {self._clock.elapsed_s:.0f} s")

    def _begin(self) -> None:
        fields = {
            matcher.gpu_metric.field
            for playbook in self._playbooks.values()
            for matcher in playbook.spec.match.any_of
            if matcher.gpu_metric is not UNSET
        }
        codes = {
            code
            for playbook in self._playbooks.values()
            for matcher in playbook.spec.match.any_of
            if matcher.xid is not UNSET
            for code in matcher.xid.codes
        }
        for node in self._opening.nodes:
            for name in sorted(fields):
                self._hardware.publish(node, name)
        self._stage.on_moment = self._moment
        # The controller has been leading for a while: its term and its first round of pages are written.
        self._cluster.stock(self._playbooks, PolicyStatus(term=TERM, baselined=tuple(sorted(codes))))
        self._stage.world.rebuild()

    def _end(self) -> Told:
        world, told = self._stage.world, self._told
        runs = (*world.open_runs.values(), *world.ended_runs.values())
        told.runs = tuple(sorted(runs, key=lambda run: (run.metadata.creation_timestamp, run.metadata.name)))
        refused = self._stage.fleet.refused.values()
        told.blocked = tuple(sorted((each.request.node.name, each.blocked_by.stop) for each in refused))
        told.nodes = world.nodes
        homes = {name: world.census.home(name) for name in told.nodes}
        told.homes = {name: home for name, home in homes.items() if home is not None}
        told.elapsed_s = self._clock.elapsed_s
        return told

    def _at(self, at_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (at_s, next(self._order), action))

    def _later(self, after_s: float, action: Callable[[], None]) -> None:
        self._at(self._clock.elapsed_s + after_s, action)

    def _moment(self) -> None:
        """Take the measures of this moment."""
        world, peaks = self._stage.world, self._told.peaks
        pools = [pool for pool in world.pools.values() if pool.spec.role == "Workload"]
        out = sum(len(world.census.out(pool.metadata.name)) for pool in pools)
        peaks.not_serving = max(peaks.not_serving, out)
        peaks.runs = max(peaks.runs, len(world.open_runs))
        peaks.reboots = max(peaks.reboots, sum(not job.over for job in self._cluster.jobs.values()))
        for fault in self._stage.diagnoses.faults():
            self._told.faults.setdefault((fault.node, fault.fault_class))

    # -- what happens

    def _happen(self, happening: Happening) -> None:
        if happening.pause is not UNSET:
            self._pause(Pause(by=happening.pause.by, reason=happening.pause.reason))
        elif happening.resume is not UNSET:
            self._pause(None)
        for name in happening.nodes:
            if name in self._stage.world.nodes:
                self._to_gpus(name, happening)
                self._to_node(name, happening)
                self._by_person(name, happening)
        self._stage.look_again()

    def _to_gpus(self, name: str, happening: Happening) -> None:
        hardware = self._hardware
        if happening.xid is not UNSET:
            hardware.set_code(name, happening.xid.gpu, happening.xid.code)
        elif happening.gpu_metric is not UNSET:
            metric = happening.gpu_metric
            hardware.set_metric(name, metric.field, metric.gpu, metric.value)
        elif happening.exporter is not UNSET:
            hardware.set_silent(name, happening.exporter == "Silent")
            spec = self._opening.policy.exporter
            period_s = seconds(spec.period) if spec is not UNSET else 0
            self._later(period_s * STALE_PERIODS + 1.0, self._stage.look_again)

    def _to_node(self, name: str, happening: Happening) -> None:
        cluster = self._cluster
        node = self._stage.world.nodes[name]
        if happening.node_condition is not UNSET:
            given = happening.node_condition
            cluster.put_condition(name, ConditionView(given.type, given.status, given.reason))
        elif happening.gpus is not UNSET:
            cluster.put_node(replace(node, gpus=happening.gpus))
        elif happening.reboot is not UNSET:
            cluster.boot(name)
        elif happening.delete_node is not UNSET:
            cluster.nodes.remove(name)
            self._stage.sweep_soon()
        elif happening.cordon is not UNSET:
            cluster.put_node(replace(node, unschedulable=True))
        elif happening.uncordon is not UNSET:
            cluster.put_node(replace(node, unschedulable=False))
        elif happening.untaint is not UNSET:
            cluster.put_node(
                with_taints(node, [each for each in node.taints if each.key != TAINT_QUARANTINE])
            )
            self._stage.sweep_soon()

    def _by_person(self, name: str, happening: Happening) -> None:
        node = self._stage.world.nodes.get(name)
        if node is None:
            return
        run = next(
            (each for each in self._stage.world.open_runs.values() if each.spec.node.name == name), None
        )
        if happening.hold is not UNSET:
            hold = happening.hold
            until = ""
            if hold.lasts is not UNSET:
                until = write_instant(self._clock.now() + timedelta(seconds=seconds(hold.lasts)))
            text = write_hold(until, hold.by, hold.reason)
            self._cluster.put_node(replace(node, annotations={**node.annotations, ANNOTATION_HOLD: text}))
        elif happening.fenced is not UNSET:
            fenced = {**node.annotations, ANNOTATION_FENCED: node.uid}
            self._cluster.put_node(replace(node, annotations=fenced))
        elif happening.unhold is not UNSET:
            kept = {key: value for key, value in node.annotations.items() if key != ANNOTATION_HOLD}
            self._cluster.put_node(replace(node, annotations=kept))
        elif happening.cancel is not UNSET and run is not None:
            cancel = Cancel(by=happening.cancel.by, reason=happening.cancel.reason)
            self._cluster.put_run(replace(run, spec=replace(run.spec, cancel=cancel)))
        elif happening.delete_run is not UNSET and run is not None:
            self._cluster.runs.remove(run.metadata.name)
            self._stage.sweep_soon()
        elif happening.request is not UNSET:
            self._request(node, happening.request.playbook, happening.request.by)

    def _request(self, node: NodeView, playbook: str, by: str) -> None:
        machine = self._stage.world.machine(node)
        asked = ManualRequest(playbook=playbook, by=by, at=write_instant(self._clock.now()))
        ledger = self._stage.world.ledger(machine) or ManagedNode(metadata=ObjectMeta(name=machine))
        spec: ManagedNodeSpec = replace(ledger.spec, request=asked)
        self._cluster.put_ledger(replace(ledger, spec=spec))

    def _pause(self, pause: Pause | None) -> None:
        seen = self._stage.world.policy
        assert seen is not None
        assert seen.policy.status is not UNSET
        spec = replace(seen.policy.spec, pause=UNSET if pause is None else pause)
        self._cluster.put_policy(spec, seen.policy.status)
