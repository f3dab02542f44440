"""The controller's own passes on a cluster in memory, carried out until nothing is left to do now.

It builds the passes as ``app.controller`` does, and stands in for their loops only: when to look,
and in which order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec import UNSET

from remediator.app.rehearsal.clock import NoTelemetry, StoryClock
from remediator.app.rehearsal.cluster import Cluster
from remediator.app.rehearsal.hardware import Hardware
from remediator.core.match import matches
from remediator.errors import ContractError
from remediator.model.signal import PageTrouble
from remediator.model.views import NodeView
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.events import Events
from remediator.runtime.fleet_loop import FleetLoop
from remediator.runtime.ledgers import Ledgers
from remediator.runtime.observer import Observer
from remediator.runtime.report import Reporter
from remediator.runtime.run_pass import RunPass, repairs_before
from remediator.runtime.scout import Scout
from remediator.runtime.sweep import Sweep
from remediator.runtime.witness import Witnesses
from remediator.runtime.world import Caches, World

ROUNDS_MAX: Final = 500  # of looking and acting at one instant; a story needs about ten
TERM: Final = 1
# While nothing changes the same look gives the same answer, so looks become rarer. What time alone
# brings about (a deadline, a token) is seen too late by this much, or by this part of the wait.
LATE_S: Final = 20.0
LATE_PART: Final = 0.05

Later = Callable[[float, Callable[[], None]], None]


class Stage:
    """Looks, fleet pass, run passes, ledgers and sweep of one story. ``later`` puts on the agenda."""

    def __init__(self, cluster: Cluster, hardware: Hardware, *, clock: StoryClock, later: Later) -> None:
        self._cluster = cluster
        self._hardware = hardware
        self._clock = clock
        self._later = later
        caches = Caches(
            nodes=cluster.nodes,
            runs=cluster.runs,
            playbooks=cluster.playbooks,
            pools=cluster.pools,
            policies=cluster.policies,
            ledgers=cluster.ledgers,
        )
        self.world = World(caches, clock=clock)
        self.diagnoses = Diagnoses(world=self.world, clock=clock, telemetry=NoTelemetry())
        self._observer = Observer(world=self.world, diagnoses=self.diagnoses, reader=cluster, clock=clock)
        self._scout = Scout(world=self.world, diagnoses=self.diagnoses, observer=self._observer, clock=clock)
        self._witnesses = Witnesses(reader=cluster, clock=clock)
        self._scout.witnesses = self._witnesses.said
        self._build(NoTelemetry())
        self._wire()
        self._looks: set[str] = set()
        self._ledger_marks: set[str] = set()
        self._turns: set[str] = set()
        self._pass_due = True
        self._stirred_s = 0.0
        self._fleet_pause_s = 0.0
        self._fleet_due_s = 0.0
        self._run_pause_s: dict[str, float] = {}
        self._sweeping = False
        self.on_moment: Callable[[], None] = lambda: None

    def _build(self, telemetry: NoTelemetry) -> None:
        cluster, clock, world = self._cluster, self._clock, self.world
        self._observer.repairs_before = partial(repairs_before, world)
        events = Events(records=cluster, clock=clock, telemetry=telemetry)
        reporter = Reporter(events=events, clock=clock, telemetry=telemetry)
        self.fleet = FleetLoop(
            world=world,
            diagnoses=self.diagnoses,
            scout=self._scout,
            witnesses=self._witnesses,
            records=cluster,
            reader=cluster,
            reporter=reporter,
            clock=clock,
            telemetry=telemetry,
        )
        self._run_pass = RunPass(
            world=world,
            observer=self._observer,
            writer=cluster,
            records=cluster,
            reporter=reporter,
            clock=clock,
            telemetry=telemetry,
        )
        self._ledgers = Ledgers(
            world=world, diagnoses=self.diagnoses, records=cluster, clock=clock, telemetry=telemetry
        )
        self._sweep = Sweep(
            world=world, writer=cluster, reader=cluster, events=events, clock=clock, telemetry=telemetry
        )
        for part in (self._scout, self.fleet, self._run_pass, self._ledgers, self._sweep, events):
            part.term = TERM

    def _wire(self) -> None:
        self.world.on_node = self._node_changed
        self.world.on_run = self._run_changed
        self.world.on_rules = self._rules_changed
        self.diagnoses.on_change = self._diagnosis_changed
        self._ledgers.refused = lambda: self.fleet.refused
        self.fleet.baselined = lambda: self.world.policy_status.baselined

    # -- what wakes what

    def _node_changed(self, name: str, before: NodeView | None, after: NodeView | None) -> None:
        self._sweep.node_changed(name, after)
        if after is None:
            self.diagnoses.node_changed(name, None)
        else:
            self._looks.add(name)
            if before is None or before.uid != after.uid:
                self._ledger_marks.add(self.world.machine(after))
        self.stir()
        self.on_moment()

    def _run_changed(self, name: str) -> None:
        run = self.world.run(name)
        if run is not None:
            self._ledger_marks.add(run.spec.machine)
        self.stir()
        self.on_moment()

    def _rules_changed(self) -> None:
        self.diagnoses.rules_changed()
        self._looks.update(self.world.nodes)
        self.stir()

    def _diagnosis_changed(self, node: str) -> None:
        view = self.world.node(node)
        if view is not None:
            self._ledger_marks.add(self.world.machine(view))
        self.stir()

    def stir(self) -> None:
        """Something has changed: the fleet and every open run are to be looked at now."""
        self._pass_due = True
        self._stirred_s = self._clock.monotonic()
        self._fleet_pause_s = 0.0
        self._turns.update(self.world.open_runs)

    def look_again(self) -> None:
        """Time has passed: nodes whose signal may be old enough, or whose page too old."""
        self._looks.update(self.world.nodes)
        self._ledger_marks.update(self.world.caches.ledgers.views())
        self.stir()

    def sweep_soon(self) -> None:
        """A person did something: marks that nobody owns any more are taken back."""
        for after_s in (2.0, 5.0, 8.0):
            self._later(after_s, self._mark_sweep)

    def _mark_sweep(self) -> None:
        self._sweeping = True

    # -- carrying it out

    async def settle(self) -> None:
        """Look, decide and act until there is nothing left to do at this instant.

        Raises:
            ContractError: the passes keep each other busy for ever.
        """
        for _ in range(ROUNDS_MAX):
            self._read_pages()
            if not await self._one_thing():
                return
        raise ContractError(f"after {ROUNDS_MAX} rounds there is still something to do")

    async def _one_thing(self) -> bool:
        if self._sweeping:
            self._sweeping = False
            await self._sweep.once()
        elif self._looks:
            self._look()
        elif self._ledger_marks:
            machines, self._ledger_marks = sorted(self._ledger_marks), set()
            for machine in machines:
                await self._ledgers.write(machine)
        elif self._pass_due:
            await self._fleet_pass()
        elif self._turns:
            names, self._turns = sorted(self._turns), set()
            for name in names:
                await self._turn(name)
        else:
            return False
        return True

    def _read_pages(self) -> None:
        spec = self.world.policy_spec.exporter
        for name in self._hardware.take_changed():
            node = self.world.node(name)
            if node is None or spec is UNSET or not matches(spec.nodes, node.labels):
                continue
            self.diagnoses.page_read(self._hardware.page(name))
            if not self._hardware.speaks(name):
                self.diagnoses.page_failed(name, PageTrouble("Unreachable", "connection refused"))
            self._looks.add(name)

    def _look(self) -> None:
        names, self._looks = sorted(self._looks), set()
        now = self._clock.now()
        for name in names:
            self.diagnoses.look(name)
            found = self.diagnoses.of(name)
            if found is not None and found.next_due is not None:
                after_s = max(0.0, (found.next_due - now).total_seconds())
                self._later(after_s, partial(self._looks.add, name))
        self.on_moment()

    async def _fleet_pass(self) -> None:
        self._pass_due = False
        pause_s = await self.fleet.one_pass()
        self._ledger_marks.update(self.fleet.refused)
        # Nobody asks and nothing is open: only a change can bring work, and that wakes the pass.
        if self.fleet.refused or self.world.open_runs or self.world.policy_status.breakers:
            self._fleet_pause_s = self._rarer(pause_s, self._fleet_pause_s)
            due = self._clock.monotonic() + self._fleet_pause_s
            self._fleet_due_s = due
            self._later(self._fleet_pause_s, partial(self._pass_again, due))

    def _pass_again(self, due_s: float) -> None:
        if due_s == self._fleet_due_s:  # else a later pass has set another time
            self._pass_due = True
            self._ledger_marks.update(self.fleet.refused)

    async def _turn(self, name: str) -> None:
        before = self.world.run(name)
        written = len(self._cluster.books.lines)
        after_s = await self._run_pass.turn(name)
        if after_s is None:
            self._run_pause_s.pop(name, None)
            return
        still = self.world.run(name) is before and len(self._cluster.books.lines) == written
        pause_s = self._rarer(after_s, self._run_pause_s.get(name, 0.0)) if still else after_s
        self._run_pause_s[name] = pause_s
        self._later(pause_s, partial(self._turn_again, name, pause_s))

    def _rarer(self, asked_s: float, last_s: float) -> float:
        quiet_s = self._clock.monotonic() - self._stirred_s
        return max(asked_s, min(2 * last_s, max(LATE_S, LATE_PART * quiet_s)))

    def _turn_again(self, name: str, pause_s: float) -> None:
        if self._run_pause_s.get(name) == pause_s and name in self.world.open_runs:
            self._turns.add(name)
