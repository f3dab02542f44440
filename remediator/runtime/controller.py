"""Starts and stops everything in order: caches, leadership, the term, then the loops.

What only a leader does begins after the term is written, and ends before the Lease is released.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog
from msgspec import UNSET
from msgspec.structs import replace

from remediator.errors import PermanentError, TransientError
from remediator.model.action import SavePolicy
from remediator.model.keys import ANNOTATION_TERM
from remediator.model.policy import PolicyStatus
from remediator.model.views import NodeView
from remediator.ports import Clock, Outcome, PageSource, Reader, Records, Telemetry
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.events import Events
from remediator.runtime.fleet_loop import FleetLoop
from remediator.runtime.gauges import Gauges
from remediator.runtime.health import HANGS_S, Health
from remediator.runtime.housekeeping import Housekeeping
from remediator.runtime.joins import Joins
from remediator.runtime.ledgers import Ledgers
from remediator.runtime.logbook import Logbook
from remediator.runtime.run_pass import RunPass
from remediator.runtime.scout import Scout
from remediator.runtime.statuses import Statuses
from remediator.runtime.sweep import Sweep
from remediator.runtime.takeover import Takeover
from remediator.runtime.workers import Workers
from remediator.runtime.world import World

SYNC_POLL_S: Final = 0.1
BEGIN_AGAIN_S: Final = 1.0
TARGETS_EVERY_S: Final = 30.0
STOP_WITHIN_S: Final = 10.0
LAG_EVERY_S: Final = 0.25
TERM_DIGITS_MAX: Final = 9

_log = structlog.get_logger(__name__)


class Leadership(Protocol):
    """What the controller asks of the election."""

    @property
    def elected(self) -> asyncio.Event: ...

    @property
    def lost(self) -> asyncio.Event: ...

    @property
    def transitions(self) -> int: ...

    def is_leader(self, now_monotonic: float) -> bool: ...

    async def run(self) -> None: ...

    async def release(self) -> None: ...


class Parts:
    """Every loop of the controller, built in ``app``."""

    def __init__(
        self,
        *,
        world: World,
        diagnoses: Diagnoses,
        scout: Scout,
        fleet: FleetLoop,
        run_pass: RunPass,
        workers: Workers,
        ledgers: Ledgers,
        joins: Joins,
        sweep: Sweep,
        takeover: Takeover,
        statuses: Statuses,
        gauges: Gauges,
        housekeeping: Housekeeping,
        events: Events,
        health: Health,
        logbook: Logbook,
        pages: PageSource,
    ) -> None:
        self.world = world
        self.diagnoses = diagnoses
        self.scout = scout
        self.fleet = fleet
        self.run_pass = run_pass
        self.workers = workers
        self.ledgers = ledgers
        self.joins = joins
        self.sweep = sweep
        self.takeover = takeover
        self.statuses = statuses
        self.gauges = gauges
        self.housekeeping = housekeeping
        self.events = events
        self.health = health
        self.logbook = logbook
        self.pages = pages

    def set_term(self, term: int) -> None:
        for part in (
            self.scout,
            self.fleet,
            self.run_pass,
            self.ledgers,
            self.joins,
            self.sweep,
            self.takeover,
            self.statuses,
            self.events,
            self.housekeeping,
            self.logbook,
        ):
            part.term = term


class Controller:
    """One process' whole life."""

    def __init__(
        self,
        parts: Parts,
        *,
        reflectors: Sequence[Callable[[], Awaitable[None]]],
        election: Leadership,
        records: Records,
        reader: Reader,
        clock: Clock,
        telemetry: Telemetry,
        identity: str,
        own_pods: Callable[[], Awaitable[frozenset[str]]],
    ) -> None:
        self._parts = parts
        self._reflectors = reflectors
        self._election = election
        self._records = records
        self._reader = reader
        self._clock = clock
        self._telemetry = telemetry
        self._identity = identity
        self._own_pods = own_pods
        self._own_nodes: frozenset[str] = frozenset()
        self._stop = asyncio.Event()
        self._deposed = asyncio.Event()
        self._leading = False
        self.term = 0
        self.on_term: Callable[[int], None] = lambda _: None
        self._wire()

    def _wire(self) -> None:
        parts = self._parts
        parts.world.on_node = self._node_changed
        parts.world.on_run = self._run_changed
        parts.world.on_rules = self._rules_changed
        parts.world.caches.policies.subscribe(lambda *_: self._policy_changed())
        parts.diagnoses.on_change = self._diagnosis_changed
        parts.fleet.on_granted = parts.workers.wake
        parts.fleet.on_passed = parts.logbook.passed
        parts.fleet.decide_joins = parts.joins.decide
        parts.fleet.on_joins = parts.joins.recorded
        parts.joins.on_proof = parts.fleet.wake
        parts.joins.blind = parts.health.blind
        parts.scout.blind = parts.health.blind
        parts.workers.blind = parts.health.blind
        parts.logbook.leading = lambda: self.leading
        parts.scout.own_nodes = lambda: self._own_nodes
        parts.fleet.baselined = self._baselined
        parts.ledgers.refused = lambda: parts.fleet.refused

    # -- answers for health and status

    def not_ready(self) -> tuple[str, ...]:
        """Why this replica is not ready; leadership is no part of it."""
        return self._parts.health.not_ready()

    def not_alive(self) -> str | None:
        """Why this process has to be restarted, or None.

        A leader that renews its Lease and gets nowhere would keep everybody else from trying.
        """
        stuck_s = self._parts.fleet.stuck_s()
        return f"a fleet pass has hung for {stuck_s:.0f} s" if self.leading and stuck_s > HANGS_S else None

    @property
    def leading(self) -> bool:
        return self._leading and self._election.is_leader(self._clock.monotonic())

    def status(self) -> dict[str, object]:
        """What this replica knows of itself, for /statusz."""
        parts = self._parts
        return {
            "identity": self._identity,
            "leading": self.leading,
            "term": self.term,
            "nodes": len(parts.world.caches.nodes),
            "openRuns": sorted(parts.world.open_runs),
            "waiting": {
                machine: {"gate": refused.blocked_by.stop, "numbers": refused.blocked_by.numbers}
                for machine, refused in sorted(parts.fleet.refused.items())
            },
            "blind": parts.health.blind(),
            "notReady": list(parts.health.not_ready()),
            "lease": {"holder": parts.health.holder, "error": parts.health.lease_trouble},
        }

    def measure(self) -> None:
        """Set every gauge to what is so now; called before each scrape."""
        self._parts.gauges.once()

    def stop(self) -> None:
        """Park at a safe point, release the Lease, and let ``run`` return."""
        self._stop.set()

    # -- life

    async def run(self) -> bool:
        """Run until stopped, or until leadership is lost or a newer term shows. True after a clean stop."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_endless(job)) for job in self._reflectors]
            tasks.append(group.create_task(self._measure_lag()))
            tasks.append(group.create_task(self._parts.diagnoses.run()))
            tasks.append(group.create_task(self._parts.logbook.run()))
            election = group.create_task(self._election.run())
            stopping = group.create_task(_until(self._stop))
            lost = group.create_task(_until(self._election.lost))
            deposed = group.create_task(_until(self._deposed))
            leading = group.create_task(self._lead())
            ends = (stopping, lost, deposed, leading)
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            clean = stopping in done
            self._tell_why(clean=clean, lost=lost in done)
            await self._park()
            for task in (*ends, election, *tasks):
                task.cancel()
        if clean or deposed in done:
            await self._release()
        return clean

    async def _release(self) -> None:
        held = self._election.is_leader(self._clock.monotonic())
        await self._election.release()
        if held and (trouble := self._parts.health.lease_trouble):
            _log.warning("lease not released", term=self.term, error=trouble)  # it expires by itself

    def _tell_why(self, *, clean: bool, lost: bool) -> None:
        if lost:
            _log.error("leadership lost", term=self.term, error=self._parts.health.lease_trouble)
        reason = "asked to" if clean else "leadership lost" if lost else "a newer term"
        _log.info("stopping", reason=reason, term=self.term)

    async def _park(self) -> None:
        self._parts.workers.stop()
        deadline = self._clock.monotonic() + STOP_WITHIN_S
        while self._parts.workers.busy and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.05)
        self._leading = False

    async def _lead(self) -> None:
        await self._election.elected.wait()
        while self.not_ready():
            await self._clock.sleep(SYNC_POLL_S)
        while not await self._begin():
            await self._clock.sleep(BEGIN_AGAIN_S)
        self._leading = True
        self._policy_changed()  # what was written while we settled in
        self._telemetry.gauge("remediator_leader", {}, 1)
        self._telemetry.gauge("remediator_term", {}, self.term)
        _log.info("leading", term=self.term, identity=self._identity)
        parts = self._parts
        parts.diagnoses.rules_changed()
        parts.ledgers.mark_all()
        async with asyncio.TaskGroup() as group:
            for job in (
                parts.fleet.run,
                parts.workers.run,
                parts.ledgers.run,
                parts.joins.run,
                parts.sweep.run,
                parts.statuses.run,
                parts.events.run,
                parts.pages.run,
                parts.housekeeping.run,
                self._follow_targets,
            ):
                group.create_task(job())

    async def _begin(self) -> bool:
        """What has to be known and written before the first pass; False: try again in a moment."""
        try:
            written = await self._take_term()
            self._own_nodes = await self._own_pods()  # a first pass must not take the node that hosts us
        except (TransientError, PermanentError) as error:
            _log.warning("can't lead yet", term=self.term, error=str(error))
            return False
        if written:
            await self._parts.takeover.settle()
        return written

    async def _take_term(self) -> bool:
        """The leader's first write: a term above every one that was ever used."""
        world = self._parts.world
        seen = await self._reader.policy()
        stored = seen.policy.status.term if seen is not None and seen.policy.status is not UNSET else 0
        self.term = max(self._election.transitions, stored, self._highest_used()) + 1
        self._parts.set_term(self.term)
        self.on_term(self.term)
        if seen is None:
            _log.warning("no RemediationPolicy/cluster: every playbook is in Audit")
            return True
        world.wrote_policy(seen)
        status = seen.policy.status if seen.policy.status is not UNSET else PolicyStatus()
        status = replace(status, term=self.term, leader=self._identity[:253])
        written = await self._parts.fleet.save_policy(SavePolicy(raw=seen.raw, status=status))
        if written.outcome is not Outcome.APPLIED:
            _log.warning("term not written", term=self.term, error=written.message)
        return written.outcome is Outcome.APPLIED

    def _highest_used(self) -> int:
        """The highest term that open runs and nodes carry: the policy may be new, or emptied."""
        world = self._parts.world
        runs = (run.spec.term for run in world.open_runs.values())
        texts = (node.annotations.get(ANNOTATION_TERM, "") for node in world.nodes.values())
        return max((*runs, *(int(text) for text in texts if _is_term(text))), default=0)

    # -- wiring of changes

    def _node_changed(self, name: str, before: NodeView | None, after: NodeView | None) -> None:
        self._parts.diagnoses.node_changed(name, after)
        self._parts.sweep.node_changed(name, after)
        self._parts.joins.node_changed(name, after)
        matters = before is None or after is None or _matters(before, after)
        if after is not None and matters:
            self._parts.ledgers.mark(self._parts.world.machine(after))
        if self._leading:
            self._parts.workers.node_changed(name, before, after)
            if matters:
                self._parts.fleet.wake()

    def _run_changed(self, name: str) -> None:
        self._parts.workers.wake(name)
        run = self._parts.world.run(name)
        if run is not None:
            self._parts.ledgers.mark(run.spec.machine)
        self._parts.fleet.wake()

    def _rules_changed(self) -> None:
        self._parts.diagnoses.rules_changed()
        self._parts.fleet.wake()

    def _policy_changed(self) -> None:
        newest = self._parts.world.policy_status.term
        if self._leading and newest > self.term and not self._deposed.is_set():
            # The API server refuses whatever we send from now on. Whoever wrote it, another leader or a
            # person's hand, the way on is the same: begin anew, above it.
            _log.error("a newer term stands in the policy", term=self.term, newest=newest)
            self._deposed.set()

    def _diagnosis_changed(self, node: str) -> None:
        view = self._parts.world.node(node)
        if view is not None:
            self._parts.ledgers.mark(self._parts.world.machine(view))
        self._parts.fleet.wake()

    # -- small loops of the leader

    def _baselined(self) -> tuple[int, ...]:
        """Codes whose first round of pages is latched in the ledger, over the whole fleet."""
        parts = self._parts
        stored = parts.world.policy_status.baselined
        codes = parts.diagnoses.codes
        if codes <= set(stored) or not parts.pages.round_complete or not self._latched():
            return stored
        return tuple(sorted({*stored, *codes}))

    def _latched(self) -> bool:
        """Has every first page been looked at, and is every latch of it written?"""
        diagnoses = self._parts.diagnoses
        conflicted = self._parts.world.conflicted()  # these have no ledger, and no run either
        for name in diagnoses.readings:
            if name in conflicted:
                continue
            found = diagnoses.of(name)
            if found is None or found.latches_to_add:
                return False
        return bool(diagnoses.readings)

    async def _follow_targets(self) -> None:
        told: tuple[str, ...] = ()
        while True:
            try:
                self._own_nodes = await self._own_pods()
                problems = await self._targets()
            except (TransientError, PermanentError) as error:
                problems = (str(error),)
            if problems != told:
                told = problems
                _log.warning("exporter targets", problems=list(problems))
            await self._clock.sleep(TARGETS_EVERY_S if not problems else TARGETS_EVERY_S / 6)

    async def _targets(self) -> tuple[str, ...]:
        world, pages = self._parts.world, self._parts.pages
        spec = world.policy_spec.exporter
        if spec is UNSET:
            return pages.follow(None, (), {}, frozenset())
        addresses = {}
        if not spec.address and spec.pod_selector is not UNSET:
            addresses = dict(await self._reader.pod_addresses(spec.namespace, spec.pod_selector))
        return pages.follow(spec, world.nodes.values(), addresses, self._parts.diagnoses.fields)

    async def _measure_lag(self) -> None:
        while True:
            began = self._clock.monotonic()
            await self._clock.sleep(LAG_EVERY_S)
            late = self._clock.monotonic() - began - LAG_EVERY_S
            self._telemetry.observe("remediator_event_loop_lag_seconds", {}, max(0.0, late))


async def _endless(job: Callable[[], Awaitable[None]]) -> None:
    await job()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


def _is_term(text: str) -> bool:
    # People can write an annotation too: one of no sense must not make the next term a giant.
    return text.isascii() and text.isdigit() and len(text) <= TERM_DIGITS_MAX


def _matters(before: NodeView, after: NodeView) -> bool:
    """Can this change open or close a gate, or make a spare fit?"""
    return (
        before.labels != after.labels
        or before.taints != after.taints
        or before.unschedulable != after.unschedulable
        or before.ready != after.ready
        or before.annotations != after.annotations
        or before.gpus != after.gpus
    )
