"""What a fleet pass looks at: the fleet at one instant, and everything that asks for a run.

The same code serves the controller and the commands that explain it. It writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import UNSET
from msgspec.structs import replace

from remediator.core import again, coverage
from remediator.core.account import run_state
from remediator.core.match import selects
from remediator.core.request import ASKED, FleetView, Request, Shadow
from remediator.core.silence import acts_on_silence, silent, silent_zones, zone_of
from remediator.model.duration import seconds
from remediator.model.instant import read_instant, write_instant
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.ledger import ManagedNode, ManagedNodeStatus, ManualRequest, Out
from remediator.model.playbook import PlaybookInForce
from remediator.model.remediation import Remediation, RunState
from remediator.model.signal import Fault
from remediator.model.views import NodeView
from remediator.ports import Clock
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.observer import Observer
from remediator.runtime.world import World

AUDIT_MEMORY: Final = timedelta(hours=24)
COVERAGE_EVERY_S: Final = 2.0


class Scout:
    """Puts views and requests together."""

    def __init__(self, *, world: World, diagnoses: Diagnoses, observer: Observer, clock: Clock) -> None:
        self._world = world
        self._diagnoses = diagnoses
        self._observer = observer
        self._clock = clock
        self._cleared: dict[tuple[str, str], str] = {}  # when a fault was last seen to be gone
        self._present: frozenset[tuple[str, str]] = frozenset()
        self._covered: tuple[float, Mapping[str, str]] | None = None
        self.in_flight: frozenset[str] = frozenset()
        self.shadows: tuple[Shadow, ...] = ()
        self._silent: tuple[float, Mapping[str, str]] | None = None
        self.blind: Callable[[], str] = lambda: ""
        self.witnesses: Callable[[], Mapping[str, str]] = dict
        self.own_nodes: Callable[[], frozenset[str]] = frozenset
        self.term = 0

    def view(self) -> FleetView:
        """The fleet at this instant."""
        world = self._world
        spec = world.policy_spec
        return FleetView(
            now=self._clock.now(),
            term=self.term,
            policy=spec,
            status=world.policy_status,
            policy_exists=world.policy is not None,
            pools=world.pools,
            nodes=world.nodes,
            names=world.names,
            census=world.census,
            runs=world.open_runs,
            ledgers=world.settled_ledgers(),
            fleetwide=self._observer.fleetwide(),
            adopted=world.adopted(),
            own_nodes=self.own_nodes(),
            conflicted=world.conflicted(),
            ended_runs=frozenset(world.ended_runs),
            in_flight=self.in_flight,
            audited=self._audited(),
            uncovered=self._uncovered(),
            silent_zones=self._silent_zones(),
            witnesses=self.witnesses(),
            shadows=self.shadows,
            blind=self.blind(),
        )

    def requests(self, faults: tuple[Fault, ...], view: FleetView) -> list[Request]:
        """Everything that somebody or something asks for now, in any order."""
        playbooks = {playbook.name: playbook for playbook in self._world.playbooks}
        found = [self._from_fault(fault, playbooks, view) for fault in faults]
        for machine, ledger in self._world.caches.ledgers.views().items():
            found.append(self._manual(machine, ledger, playbooks))
        for machine, settled in view.ledgers.items():
            found.append(self._reappeared(machine, settled, playbooks, view))
        return [request for request in found if request is not None]

    def _from_fault(
        self, fault: Fault, playbooks: Mapping[str, PlaybookInForce], view: FleetView
    ) -> Request | None:
        playbook, node = playbooks.get(fault.playbook), view.nodes.get(fault.node)
        ledger = view.ledgers.get(fault.machine)
        out = ledger is not None and ledger.out is not UNSET
        if playbook is None or node is None or node.uid != fault.node_uid or out or fault.key in view.audited:
            return None
        if not fault.known:
            return None  # confirmed once, but not seen now: unknown permits no new harm
        if any(run.spec.machine == fault.machine for run in view.runs.values()):
            return None  # the open run is about this machine already
        return Request(
            machine=fault.machine,
            node=node,
            playbook=playbook,
            trigger="Fault",
            fault_class=fault.fault_class,
            since=fault.first_seen,
            number=self._world.next_number(fault.machine),
            evidence=fault.evidence,
        )

    def _manual(
        self, machine: str, ledger: ManagedNode, playbooks: Mapping[str, PlaybookInForce]
    ) -> Request | None:
        asked = ledger.spec.request
        if asked is UNSET or asked.playbook not in playbooks:
            return None
        answered = ledger.status.request_done if ledger.status is not UNSET else ""
        nodes = self._world.nodes_of(machine)
        since = _instant(asked.at)
        if since is None or len(nodes) != 1:
            return None
        # People write one time in many ways; what we store of it is always written the same.
        at = write_instant(since)
        if at == answered or self._answered(machine, at):
            return None
        playbook = playbooks[asked.playbook]
        if not self.may_ask(nodes[0], playbook):
            return None
        out = self.out(nodes[0])
        # Out and without our taint: somebody lifts the quarantine, or the Node is new. That comes first.
        fenced = nodes[0].taint(TAINT_QUARANTINE) is not None
        if (out is not None and not fenced) or (out is None and asked.return_to):
            return None
        return self.asked(nodes[0], playbook, asked, since)

    def out(self, node: NodeView) -> Out | None:
        """Why an ended run keeps the node's machine out; None where it does not."""
        out = self._world.settled_ledger(self._world.machine(node)).out
        return out if out is not UNSET else None

    def may_ask(self, node: NodeView, playbook: PlaybookInForce) -> bool:
        """Not even a person moves a playbook to nodes that it does not select.

        A machine that it was carried out on has lost the labels of its pool with the pool.
        """
        out = self.out(node)
        last = self._world.ended_runs.get(out.run) if out is not None else None
        carried_out = last is not None and last.spec.playbook.name == playbook.name
        return carried_out or selects(playbook.spec.nodes, node.labels)

    def asked(
        self, node: NodeView, playbook: PlaybookInForce, asked: ManualRequest, since: datetime
    ) -> Request:
        """What a person asks for, on a machine that serves or on one that is out."""
        out = self.out(node)
        if out is not None:
            found = self._again(node, playbook, out, "Return", since)
            if asked.return_to:
                found = replace(found, playbook=again.way_back(playbook), return_to=asked.return_to)
            return replace(found, by=asked.by, plan_hash=asked.plan_hash)
        machine, diagnosis = self._world.machine(node), self._diagnoses.of(node.name)
        faults = diagnosis.faults if diagnosis is not None else ()
        fault = next((each for each in faults if each.playbook == playbook.name), None)
        return Request(
            machine=machine,
            node=node,
            playbook=playbook,
            trigger="Manual",
            fault_class=fault.fault_class if fault is not None else playbook.spec.fault_class,
            since=since,
            number=self._world.next_number(machine),
            evidence=fault.evidence if fault is not None else (),
            by=asked.by,
            plan_hash=asked.plan_hash,
        )

    def _again(
        self,
        node: NodeView,
        playbook: PlaybookInForce,
        out: Out,
        trigger: Literal["Return", "Reappeared"],
        since: datetime,
    ) -> Request:
        """The whole playbook once more, on a machine that an ended run keeps out."""
        world, machine = self._world, self._world.machine(node)
        last, home = world.ended_runs.get(out.run), world.census.home(node.name)
        return Request(
            machine=machine,
            node=node,
            playbook=again.whole(playbook, place_empty=again.place_empty(out, home)),
            trigger=trigger,
            fault_class=out.fault_class,
            since=since,
            number=world.next_number(machine),
            evidence=last.spec.evidence if last is not None else (),
            return_to=again.destination(out, last, home, world.pools),
        )

    def _answered(self, machine: str, asked_at: str) -> bool:
        """Has a run that answers this request been created already?"""
        runs = (*self._world.open_runs.values(), *self._world.ended_runs.values())
        return any(
            run.spec.machine == machine and run.spec.trigger in ASKED and run.spec.first_seen == asked_at
            for run in runs
        )

    def _reappeared(
        self,
        machine: str,
        ledger: ManagedNodeStatus,
        playbooks: Mapping[str, PlaybookInForce],
        view: FleetView,
    ) -> Request | None:
        """A machine that is out came back under a new Node: it is quarantined again at first sight."""
        if ledger.out is UNSET:
            return None
        nodes = self._world.nodes_of(machine)
        if len(nodes) != 1 or nodes[0].uid == ledger.node_uid or nodes[0].taint(TAINT_QUARANTINE) is not None:
            return None
        last = self._world.ended_runs.get(ledger.out.run)
        playbook = playbooks.get(last.spec.playbook.name) if last is not None else None
        playbook = playbook or next(
            (each for each in self._world.playbooks if each.spec.fault_class == ledger.out.fault_class), None
        )
        if playbook is None or (machine, ledger.out.fault_class) in view.audited:
            return None
        if any(run.spec.machine == machine for run in view.runs.values()):
            return None
        since = read_instant(ledger.out.since) or view.now
        return self._again(nodes[0], playbook, ledger.out, "Reappeared", since)

    def _audited(self) -> frozenset[tuple[str, str]]:
        """(machine, class) pairs that Audit or a report has recorded and that have not cleared since."""
        horizon = write_instant(self._clock.now() - AUDIT_MEMORY)
        found = set()
        for run in self._world.ended_runs.values():
            key = (run.spec.machine, run.spec.fault_class)
            born = run.metadata.creation_timestamp
            recorded = run_state(run) in (RunState.WOULD_ACT, RunState.REPORTED)
            if recorded and born > max(horizon, self._cleared.get(key, "")) and not self._mode_raised(run):
                found.add(key)
        return frozenset(found)

    def _mode_raised(self, run: Remediation) -> bool:
        """Audit's record does not stand in the way once the playbook may act."""
        if run_state(run) is not RunState.WOULD_ACT:
            return False
        playbook = next((each for each in self._world.playbooks if each.name == run.spec.playbook.name), None)
        pool = self._world.pools.get(run.spec.pool)
        modes = [self._world.policy_spec.max_mode, playbook.spec.mode if playbook else "Audit"]
        if pool is not None:
            modes.append(pool.spec.max_mode)
        return all(mode == "Enforce" for mode in modes) and self._world.policy is not None

    def note_cleared(self, faults: tuple[Fault, ...]) -> None:
        """Remember which faults went away: what comes again later is another fault."""
        present = frozenset(fault.key for fault in faults)
        now = write_instant(self._clock.now())
        for key in self._present - present:
            self._cleared[key] = now
        self._present = present

    def still_there(self, shadow: Shadow) -> bool:
        """A shadow grant lives until its fault clears, or a real one would be over."""
        lasts = self._clock.now() < shadow.until
        return lasts and (shadow.machine, shadow.fault_class) in self._present

    def _uncovered(self) -> Mapping[str, str]:
        """Pools whose exporter pages do not suffice to act; counted anew every two seconds."""
        spec = self._world.policy_spec
        if spec.exporter is UNSET:
            return {pool: "policy.spec.exporter is not set" for pool in self._world.pools}
        now = self._clock.monotonic()
        if self._covered is not None and now - self._covered[0] < COVERAGE_EVERY_S:
            return self._covered[1]
        seen = coverage.exporter_coverage(
            self._world.nodes.values(),
            lambda node: self._world.census.home(node.name),
            self._diagnoses.readings,
            spec.exporter,
            now_monotonic=now,
            period_s=seconds(spec.exporter.period),
        )
        self._covered = (now, coverage.gate(seen, spec.coverage))
        return self._covered[1]

    def silent_nodes(self) -> list[NodeView]:
        """Nodes whose silence would be acted on, if a second witness confirmed it; the oldest fault first."""
        acting = {each.name for each in self._world.playbooks if acts_on_silence(each.spec)}
        zones = self._silent_zones()
        busy = {run.spec.machine for run in self._world.open_runs.values()}
        faults = [each for each in self._diagnoses.faults() if each.playbook in acting]
        faults = [each for each in faults if each.machine not in busy]
        faults.sort(key=lambda fault: (fault.first_seen, fault.machine))
        nodes = [self._world.node(fault.node) for fault in faults]
        return [node for node in nodes if node is not None and silent(node) and zone_of(node) not in zones]

    def _silent_zones(self) -> Mapping[str, str]:
        """Zones in which no silence is believed; counted anew every two seconds, for playbooks that ask."""
        if not any(acts_on_silence(each.spec) for each in self._world.playbooks):
            return {}
        now = self._clock.monotonic()
        if self._silent is None or now - self._silent[0] >= COVERAGE_EVERY_S:
            percent = self._world.policy_spec.coverage
            self._silent = (now, silent_zones(self._world.nodes.values(), percent))
        return self._silent[1]


def _instant(text: str) -> datetime | None:
    """A time that a person wrote; None for what nobody can read."""
    try:
        return read_instant(text)
    except ValueError:
        return None
