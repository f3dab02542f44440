"""What a fleet pass looks at: the fleet at one instant.

The same code serves the controller and the commands that explain it. It writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from msgspec import UNSET

from remediator.core import coverage
from remediator.core.account import run_state
from remediator.core.request import FleetView, Shadow
from remediator.core.silence import acts_on_silence, settling, silent, silent_zones, zone_of
from remediator.model.duration import seconds
from remediator.model.instant import write_instant
from remediator.model.remediation import Remediation, RunState
from remediator.model.signal import Fault
from remediator.model.views import NodeView
from remediator.ports import Clock
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.observer import Observer
from remediator.runtime.requests import Requests
from remediator.runtime.world import World

AUDIT_MEMORY: Final = timedelta(hours=24)
COVERAGE_EVERY_S: Final = 2.0


class Scout:
    """Puts views together."""

    def __init__(self, *, world: World, diagnoses: Diagnoses, observer: Observer, clock: Clock) -> None:
        self._world = world
        self._diagnoses = diagnoses
        self._observer = observer
        self._clock = clock
        self.requests = Requests(world=world, diagnoses=diagnoses)
        self._cleared: dict[tuple[str, str], str] = {}  # when a fault was last seen to be gone
        self._present: frozenset[tuple[str, str]] = frozenset()
        self._covered: tuple[float, Mapping[str, str]] | None = None
        self.in_flight: frozenset[str] = frozenset()
        self.shadows: tuple[Shadow, ...] = ()
        self._silent: tuple[float, Mapping[str, str]] | None = None
        self._doubted_at: Mapping[str, float] = {}  # zones in which silence was not believed lately
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
            fleetwide=self._observer.fleetwide(world.spares()),
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
            doubted = silent_zones(self._world.nodes.values(), self._world.policy_spec.coverage)
            coming_back = settling(self._doubted_at, now)
            self._doubted_at = {zone: self._doubted_at[zone] for zone in coming_back} | dict.fromkeys(
                doubted, now
            )
            self._silent = (now, {**coming_back, **doubted})
        return self._silent[1]
