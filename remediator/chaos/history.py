"""Plays one schedule on a simulated cluster, and judges it by its audit log alone.

First everything goes wrong, then nothing does for a while: harm is judged all along, endings at the end.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Final

import msgspec
from msgspec import Struct

from remediator.adapters.audit import AuditRecord, Numbered
from remediator.app.lifeline import Machine, Wrap, as_it_is
from remediator.chaos.candidates import candidate
from remediator.chaos.check import Judge, Report
from remediator.chaos.incidents import Incidents
from remediator.chaos.network import FaultyTransport
from remediator.chaos.rules.rule import fences_in
from remediator.chaos.schedule import AT_SERVER, LEADERS, Event, Fault, Schedule
from remediator.chaos.subject import Candidate, Process, Subject
from remediator.errors import PermanentError, TransientError
from remediator.fleet.dcgm_fields import TELLING
from remediator.fleet.layout import BUFFER, build_fleet, rack_name
from remediator.fleet.node_objects import LABEL_POOL, NodeSpec
from remediator.fleet.workloads import filling, workload_objects
from remediator.ports import Transport
from remediator.sim.audit import Sink
from remediator.sim.loop import run_virtual, virtual_clock
from remediator.sim.refusal import Json
from remediator.sim.server import nowhere
from remediator.sim.transport import SimTransport

SETTLE_S: Final = 60.0
RESTART_S: Final = 5.0  # a kubelet's first pause before it starts a process again
LOOK_S: Final = 60.0
QUIET_S: Final = 900.0
OTHER_PRODUCT: Final = "NVIDIA H200"


class Killed(BaseException):
    """Ends a process at once wherever it is raised: no handler of the controller's own sees it."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of one schedule.

    ``idle`` are faults that never struck and events that could not happen, by their place: such a
    history shows less than it says. ``digest`` is of the whole audit log. ``ending`` says in lines how each
    node and each piece of work ended, without what differs from run to run; work that was never granted has
    done nothing, and is left out. ``fenced_s`` says of each node when it was fenced first.
    """

    schedule: Schedule
    report: Report
    digest: str
    idle_faults: tuple[int, ...]
    idle_events: tuple[int, ...]
    starts: int
    reboots: int
    ending: tuple[str, ...]
    fenced_s: Mapping[str, float] = {}
    crash: str = ""

    @property
    def broken(self) -> tuple[str, ...]:
        """The rules that did not hold."""
        found = tuple(each.rule for each in self.report.verdicts if each.answer == "broken")
        return (*found, "crash") if self.crash else found


def play(schedule: Schedule, *, wrap: Wrap = as_it_is, listen: Sink = nowhere) -> Outcome:
    """Play it to its end, in virtual time.

    Args:
        schedule: what goes wrong, and for whom.
        wrap: stands between the controller and all faults, for whoever counts or spoils what it sends.
        listen: is given every audit record as it is written.

    Raises:
        InputError: the schedule names a bug that is not there.
    """
    found = candidate(schedule.controller, schedule.bugs, raised=schedule.raised)
    return run_virtual(_History(schedule, found, wrap, listen).play())


def fleet_of(schedule: Schedule) -> tuple[NodeSpec, ...]:
    """Racks with a spare each. Of three and more, the second has one that is like no other node."""
    specs = build_fleet(schedule.racks, schedule.per_rack, infer=1, buffer=1)
    unlike = rack_name(1) if schedule.racks > 2 else ""
    return tuple(
        replace(each, product=OTHER_PRODUCT) if (each.pool, each.rack) == (BUFFER, unlike) else each
        for each in specs
    )


class _History:
    def __init__(self, schedule: Schedule, under_test: Candidate, wrap: Wrap, listen: Sink) -> None:
        self._schedule = schedule
        self._candidate = under_test
        self._wrap = wrap
        self._listen = listen
        self._subject: Subject
        self._judge = Judge(under_test.profile, calm=True)
        self._decoder = msgspec.json.Decoder(AuditRecord)
        self._digest = hashlib.sha256()
        self._lines = 0
        self._fired: Counter[int] = Counter()
        self._idle_events: list[int] = []
        self._halts: list[tuple[int, Machine]] = []
        self._began_s = float("inf")
        self._fenced_s: dict[str, float] = {}
        self._starts = 0
        self._crash = ""
        self._ending = False

    def _record(self, line: bytes) -> None:
        self._lines += 1
        self._digest.update(line)
        self._listen(line)
        record = self._decoder.decode(line)
        self._judge.see(Numbered(self._lines, record))
        if record.committed and fences_in(record, self._candidate.profile.own):
            self._fenced_s.setdefault(record.object_ref.name, self._clock.monotonic() - self._began_s)

    async def play(self) -> Outcome:
        schedule = self._schedule
        self._clock = virtual_clock()
        specs = fleet_of(schedule)
        self._subject = self._candidate.open(self._clock, seed=schedule.seed, specs=specs, audit=self._record)
        cluster = self._subject.cluster
        cluster.machines.exporters.show_only(TELLING)  # whole pages would be most of the work
        cluster.apply(workload_objects(filling(schedule.racks, schedule.per_rack)))
        keepers = [asyncio.create_task(self._keep(number)) for number in range(schedule.replicas)]
        await self._clock.sleep(SETTLE_S)
        self._began_s = self._clock.monotonic()
        await self._storm(Incidents(cluster, opt_out=self._candidate.profile.opt_out))
        await self._calm(schedule.calm_s)
        ending = self._describe()
        self._idle_events += [number for number, machine in self._halts if machine.to_halt]
        await self._stop(keepers)
        return Outcome(
            schedule=schedule,
            report=self._judge.report(),
            digest=self._digest.hexdigest(),
            idle_faults=tuple(n for n in range(len(schedule.faults)) if not self._fired[n]),
            idle_events=tuple(self._idle_events),
            starts=self._starts,
            reboots=len(cluster.machines.reboots),
            ending=ending,
            fenced_s=self._fenced_s,
            crash=self._crash,
        )

    def _describe(self) -> tuple[str, ...]:
        nodes = self._subject.cluster.get("/api/v1/nodes")
        assert nodes is not None
        lines = [_of_node(node) for node in nodes["items"]]
        lines += self._subject.work()
        return tuple(sorted(lines))

    # -- the processes

    async def _keep(self, number: int) -> None:
        """Start a replica, and start it again whenever it has ended, as a kubelet does."""
        await self._clock.sleep(number * 0.5)
        while not self._ending:
            try:
                await self._live()
            except* Killed:
                pass
            except* Exception as errors:  # noqa: BLE001 - whatever ends a process is what a history looks for
                self._crash = self._crash or repr(errors.exceptions)[:500]
            await self._clock.sleep(RESTART_S)

    async def _live(self) -> None:
        """One process, from start to end. An error that it ends by is a finding, whatever the error."""
        try:
            process = await self._subject.start(self._between)
        except (TransientError, PermanentError):
            return  # it could not start, and said so
        self._starts += 1
        await process.ended()

    def _between(self, way: Transport) -> Transport:
        rng = Random(f"faults {self._schedule.seed} {self._starts}")
        faulty = FaultyTransport(
            way,
            self._schedule.faults,
            clock=self._clock,
            began_s=self._began_s if self._began_s != float("inf") else self._clock.monotonic() + SETTLE_S,
            rng=rng,
            fired=self._fired,
            turned_away=way.turned_away if isinstance(way, SimTransport) else None,
        )
        return self._wrap(faulty)

    def _leader(self) -> Process | None:
        return next((each for each in self._subject.processes if each.leading), None)

    async def _stop(self, keepers: list[asyncio.Task[None]]) -> None:
        self._ending = True
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        await self._subject.close()

    # -- what goes wrong

    async def _storm(self, incidents: Incidents) -> None:
        loop = asyncio.get_running_loop()
        for number, fault in enumerate(self._schedule.faults):
            if fault.kind in AT_SERVER:
                loop.call_later(fault.from_s, self._at_server, number, fault)
        for number, event in enumerate(self._schedule.events):
            await self._until(event.at_s)
            leads = event.kind in LEADERS
            happened = await self._lead(number, event) if leads else incidents.happen(event)
            if not happened:
                self._idle_events.append(number)
        await self._until(self._schedule.ends_s)

    async def _calm(self, most_s: float) -> None:
        """Wait until nothing has been under way for a while; what still is after ``most_s`` is told."""
        quiet_s, until = 0.0, self._clock.monotonic() + most_s
        while quiet_s < QUIET_S and self._clock.monotonic() < until:
            await self._clock.sleep(LOOK_S)
            quiet_s = 0.0 if self._judge.under_way() else quiet_s + LOOK_S

    async def _until(self, at_s: float) -> None:
        await self._clock.sleep(max(0.0, self._began_s + at_s - self._clock.monotonic()))

    async def _lead(self, number: int, event: Event) -> bool:
        """Let something happen to whoever leads."""
        leader = self._leader()
        if leader is None:
            return False
        match event.kind:
            case "KillLeader":
                await leader.kill()
            case "StopLeader":
                leader.terminate()
            case "ClockJump":
                leader.machine.jump(event.value)
            case _:
                self._halts.append((number, leader.machine))
                leader.machine.halt_at_write(event.value, event.detail)
        return True

    def _at_server(self, number: int, fault: Fault) -> None:
        server = self._subject.cluster.server
        for kind in server.kinds:
            if fault.on in ("", kind.plural):
                if fault.kind == "HistoryGone":
                    server.expire(kind)
                else:
                    server.freeze(kind)
        self._fired[number] += 1
        if fault.kind == "CacheHangs":
            asyncio.get_running_loop().call_later(fault.to_s - fault.from_s, self._thaw, fault)

    def _thaw(self, fault: Fault) -> None:
        server = self._subject.cluster.server
        for kind in server.kinds:
            if fault.on in ("", kind.plural):
                server.shelf(kind).thaw()


def _of_node(node: Json) -> str:
    meta, spec = node["metadata"], node["spec"]
    taints = sorted(each["key"] for each in spec.get("taints") or ())
    cordon = " cordoned" if spec.get("unschedulable") else ""
    pool = (meta.get("labels") or {}).get(LABEL_POOL, "")
    return f"node {meta['name']}: pool {pool or 'none'}{cordon}, {' '.join(taints) or 'no taints'}"
