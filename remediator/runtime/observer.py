"""Puts the view of one run together, and reads what no cache holds when a decision asks for it.

It remembers looks only for as long as the run is open; nothing here has to survive a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from msgspec import UNSET

from remediator.core.account import handed_over, is_hard
from remediator.core.again import buffer_of
from remediator.core.ledger import strikes_of
from remediator.core.people import held, paused
from remediator.core.request import uses_exporter
from remediator.core.run_view import RunView
from remediator.core.spares import Fleetwide
from remediator.core.steps.drain import gang_of
from remediator.core.steps.repair import job_name
from remediator.model.decision import Look
from remediator.model.duration import seconds
from remediator.model.playbook import PlaybookSpec
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation
from remediator.model.signal import Severity
from remediator.model.views import EventView, JobView, NodeView, PodView
from remediator.ports import Clock, PodListing, Reader
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.world import World

EVENTS_MAX = 40


@dataclass(slots=True)
class _Memory:
    """What was looked up for one run."""

    listing: PodListing | None = None
    confirmed: bool = False
    refused: dict[str, tuple[float, str]] = field(default_factory=dict)  # pod -> until, why
    job: JobView | None = None
    job_known: bool = False
    events: tuple[EventView, ...] | None = None
    gangs: frozenset[str] = frozenset()
    evicting: bool = False
    evictions: int = 0


class Observer:
    """Reads the world for one run at a time."""

    def __init__(self, *, world: World, diagnoses: Diagnoses, reader: Reader, clock: Clock) -> None:
        self._world = world
        self._diagnoses = diagnoses
        self._reader = reader
        self._clock = clock
        self._memory: dict[str, _Memory] = {}
        self.repairs_before: Callable[[Remediation], int] = lambda _: 0

    def fleetwide(self, names: Iterable[str]) -> Fleetwide:
        """What spares are judged by besides their Nodes, for those of these names."""
        world, diagnoses = self._world, self._diagnoses
        exporter = world.policy_spec.exporter is not UNSET
        sick, blind, strikes = {}, set(), {}
        at_work = {run.spec.node.uid: name for name, run in world.open_runs.items()}
        conflicted = world.conflicted()
        for name in names:
            signals = diagnoses.signals_of(name)
            node = world.node(name)
            if signals:
                sick[name] = signals[0]
            elif name in conflicted:
                sick[name] = "two live Nodes carry this machine's identity"
            elif name in world.census.several:
                sick[name] = f"a member of the pools {' and '.join(world.census.several[name])}"
            elif world.is_adopted(name):
                sick[name] = "adopted as known out"
            elif node is not None and node.uid in at_work:
                # Just returned, but its run has not recorded that yet: handed over now, it would look
                # to its own run as if somebody had lifted the quarantine.
                sick[name] = f"run {at_work[node.uid]} has not ended yet"
            if exporter and diagnoses.is_blind(name):
                blind.add(name)
            repairs = world.strikes_of(name)
            if repairs:
                strikes[name] = repairs
        return Fleetwide(
            now=self._clock.now(),
            serving_taints=world.policy_spec.serving_taints,
            sick=sick,
            blind=frozenset(blind),
            strikes=strikes,
        )

    def run_view(self, run: Remediation) -> RunView:
        """Everything that one run pass looks at, at one instant."""
        world = self._world
        name = run.metadata.name
        memory = self._memory.setdefault(name, _Memory())
        playbook = world.parse(run.spec.playbook.text)
        node = self._node(run)
        if node is not None and node.rewrite is not None:
            self.begin_turn(name)  # pods may have come while our taint was away
        grant = next((each for each in world.policy_status.grants if each.run == name), None)
        spare = self._spare(run, grant.spare if grant is not None else "")
        now = self._clock.now()
        pools = world.pools
        return RunView(
            now=now,
            run=run,
            playbook=playbook,
            policy=world.policy_spec,
            fleetwide=self.fleetwide([spare.name] if spare and world.is_spare(spare.name) else ()),
            node=node,
            grant=grant,
            spare=spare,
            home=pools.get(run.spec.pool),
            spare_home=pools.get(world.census.home(spare.name) or "") if spare is not None else None,
            buffer=_destination(run, pools),
            repair_pool=next((pools[key] for key in sorted(pools) if pools[key].spec.role == "Repair"), None),
            pods=memory.listing.pods if memory.listing is not None else None,
            pods_confirmed=memory.confirmed,
            pdbs=memory.listing.pdbs if memory.listing is not None else (),
            tolerant_classes=memory.listing.tolerant if memory.listing is not None else frozenset(),
            refused_evictions=self._refused(memory),
            job=memory.job,
            job_known=memory.job_known,
            reading=self._diagnoses.reading(run.spec.node.name),
            signals=self._signals(node),
            signals_unknown=self._signals_unknown(node, playbook),
            hard_fault=self._hard_fault(run),
            fault_over=self._fault_over(run, node),
            repairs_before=self.repairs_before(run),
            busy_gangs=self._busy_gangs(name),
            strikes=self._strikes_of(run, playbook),
            hold=(held(node, now) or "") if node is not None else "",
            paused=self._paused(run),
            events=memory.events,
            evictions=memory.evictions,
        )

    async def look(self, what: Look, view: RunView) -> None:
        """Read afresh what a decision asked for.

        Raises:
            TransientError, PermanentError: it could not be read.
        """
        memory = self._memory.setdefault(view.name, _Memory())
        node = view.run.spec.node
        if what is Look.PODS:
            # A listing that begins after our taint was seen can't miss a pod bound before it.
            after_taint = view.quarantined
            listing = await self._reader.pods_of(node.name)
            memory.listing = replace(listing, pods=tuple(_own(listing.pods, view.node)))
            memory.confirmed = after_taint
            memory.gangs = frozenset(gang_of(pod, view.policy) for pod in memory.listing.pods) - {""}
        elif what is Look.EVENTS:
            memory.events = await self._reader.events_of(node.name, node.uid, newest=EVENTS_MAX)
        elif what is Look.JOB and view.policy.repair is not UNSET:
            step = view.step()
            status = step[1] if step is not None else None
            attempt = status.attempt if status is not None else 1
            step_id = step[0].id if step is not None else ""
            name = job_name(view.name, step_id, attempt)
            memory.job = await self._reader.job(view.policy.repair.namespace, name)
            memory.job_known = True

    async def run_exists(self, name: str) -> bool:
        return await self._reader.run_exists(name)

    def forget(self, run: str) -> None:
        self._memory.pop(run, None)

    def begin_turn(self, run: str) -> None:
        """A pause is over: pods and Job have to be read again before they count."""
        memory = self._memory.get(run)
        if memory is not None:
            memory.listing, memory.confirmed, memory.job_known = None, False, False

    def evicted(self, run: str) -> None:
        """The pods change by our own hand: they have to be read again."""
        memory = self._memory.setdefault(run, _Memory())
        memory.listing, memory.confirmed, memory.evicting = None, False, True

    def eviction_accepted(self, run: str) -> None:
        self._memory.setdefault(run, _Memory()).evictions += 1

    def forget_job(self, run: str) -> None:
        memory = self._memory.get(run)
        if memory is not None:
            memory.job_known = False

    def refuse(self, run: str, pod: str, why: str, for_s: float) -> None:
        """Leave this pod alone for a while: its eviction was refused."""
        memory = self._memory.setdefault(run, _Memory())
        memory.refused[pod] = (self._clock.monotonic() + for_s, why)

    def _refused(self, memory: _Memory) -> Mapping[str, str]:
        now = self._clock.monotonic()
        memory.refused = {pod: found for pod, found in memory.refused.items() if found[0] > now}
        return {pod: why for pod, (_, why) in memory.refused.items()}

    def _node(self, run: Remediation) -> NodeView | None:
        node = self._world.node(run.spec.node.name)
        return node if node is not None and node.uid == run.spec.node.uid else None

    def _spare(self, run: Remediation, granted: str) -> NodeView | None:
        status = run.status
        name = granted
        if not name and status is not UNSET and status.spare is not UNSET and handed_over(run):
            name = status.spare.name
        return self._world.node(name) if name else None

    def _signals(self, node: NodeView | None) -> tuple[str, ...]:
        found = self._diagnoses.of(node.name) if node is not None else None
        return found.signals if found is not None else ()

    def _signals_unknown(self, node: NodeView | None, playbook: PlaybookSpec) -> str:
        if node is None:
            return ""
        found = self._diagnoses.of(node.name)
        if found is None:
            return "the node was not diagnosed yet"
        if uses_exporter(playbook) and self._diagnoses.reading(node.name) is None:
            return self._diagnoses.why_no_page(node.name)
        return found.unknown[0] if found.unknown and uses_exporter(playbook) else ""

    def _hard_fault(self, run: Remediation) -> str:
        """The machine's first hard fault that a playbook in Enforce is for; Audit raises nothing."""
        found = self._diagnoses.of(run.spec.node.name)
        for fault in found.faults if found is not None else ():
            if fault.machine != run.spec.machine or fault.severity is not Severity.HARD or not fault.known:
                continue
            playbook = self._world.caches.playbooks.get(fault.playbook)
            if playbook is not None and playbook.spec.mode == "Enforce":
                said = fault.evidence[0].text if fault.evidence else "no evidence left"
                return f"{fault.fault_class}: {said}"
        return ""

    def _fault_over(self, run: Remediation, node: NodeView | None) -> bool:
        """Only of faults that end by themselves: an XID is one until the next boot, whatever is shown."""
        evidence = run.spec.evidence
        if node is None or not evidence or any(each.code or each.source == "person" for each in evidence):
            return False
        return run.spec.trigger == "Fault" and self._diagnoses.is_over(node.name, run.spec.fault_class)

    def _strikes_of(self, run: Remediation, playbook: PlaybookSpec) -> int:
        # Settled: a repair counts from its run's end on, whether its ledger could be written or not.
        ledger = self._world.settled_ledger(run.spec.machine)
        return strikes_of(ledger, run.spec.fault_class, seconds(playbook.memory), self._clock.now())

    def _paused(self, run: Remediation) -> str:
        now, world = self._clock.now(), self._world
        reason = paused(world.policy_spec.pause, "policy", now)
        pool = world.pools.get(run.spec.pool)
        if reason is None and pool is not None:
            reason = paused(pool.spec.pause, f"pool {run.spec.pool}", now)
        playbook = world.caches.playbooks.get(run.spec.playbook.name)
        if reason is None and playbook is not None:
            reason = paused(playbook.spec.pause, f"playbook {run.spec.playbook.name}", now)
        return reason or ""

    def _busy_gangs(self, name: str) -> frozenset[str]:
        """Gangs that another soft run moves first: the one that began, else the first by name.

        A hard run waits for none: its node's fault has stopped the gang already.
        """
        mine, own = self._memory[name], self._world.open_runs.get(name)
        if mine.evicting or (own is not None and is_hard(own)):
            return frozenset()
        found: set[str] = set()
        for other, memory in self._memory.items():
            run = self._world.open_runs.get(other)
            if other != name and run is not None and not is_hard(run):
                found |= memory.gangs if memory.evicting or other < name else set()
        return frozenset(found)


def _own(pods: tuple[PodView, ...], node: NodeView | None) -> list[PodView]:
    # Pods older than the Node belonged to a machine that had this name before; the pod garbage
    # collector takes them, evicting them is not our affair.
    if node is None or not node.created_at:
        return list(pods)
    return [pod for pod in pods if not pod.created_at or pod.created_at >= node.created_at]


def _destination(run: Remediation, pools: Mapping[str, ResourcePool]) -> ResourcePool | None:
    """The pool that the record names, or the buffer of the run's own pool."""
    named = run.spec.return_to
    return pools.get(named) if named else buffer_of(pools.get(run.spec.pool), pools)
