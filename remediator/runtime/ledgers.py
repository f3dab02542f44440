"""Writes the machines' memory: one object per machine with a story, only when it changed.

Bulk work in the background; core says what each ledger should hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import structlog
from msgspec import UNSET
from msgspec.structs import replace

from remediator.core.fleet import Refused
from remediator.core.identity import identify
from remediator.core.ledger import number_of
from remediator.core.memory import REMEDIATING, Known, empty, remember
from remediator.core.request import ASKED
from remediator.errors import PermanentError, TransientError
from remediator.model.action import Attribution, CreateLedger, SaveLedger
from remediator.model.instant import write_instant
from remediator.model.ledger import BlockedRequest, ManagedNode, ManagedNodeStatus
from remediator.model.meta import ObjectMeta
from remediator.model.remediation import Remediation
from remediator.ports import Clock, Outcome, Records, Telemetry
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.replies import resource_version
from remediator.runtime.world import World

PERIOD_S: Final = 1.0
CLOCKS_EVERY_S: Final = 5.0  # what only the clock moves: the end of a probation, the times of a run
REQUEST_WRITES_PER_MINUTE: Final = 60
SEEN_WITHIN_S: Final = 5.0

_log = structlog.get_logger(__name__)


class Ledgers:
    """Keeps ManagedNode objects equal to what core remembers."""

    def __init__(
        self, *, world: World, diagnoses: Diagnoses, records: Records, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._world = world
        self._diagnoses = diagnoses
        self._records = records
        self._clock = clock
        self._telemetry = telemetry
        self._dirty: set[str] = set()
        self._everything = True
        self._told: Mapping[str, Refused] | None = None  # the refusals that were looked at last
        self._clocks_at = float("-inf")
        self._request_writes: list[float] = []
        self.refused: Callable[[], Mapping[str, Refused]] = dict
        self.term = 0

    def mark(self, machine: str) -> None:
        """Something about this machine has changed."""
        self._dirty.add(machine)

    def mark_all(self) -> None:
        self._everything = True

    async def run(self) -> None:
        """Write what has changed, once a second, until cancelled."""
        while True:
            await self._clock.sleep(PERIOD_S)
            machines = self._take()
            for machine in machines:
                try:
                    await self.write(machine)
                except (TransientError, PermanentError) as error:
                    self._dirty.add(machine)
                    _log.warning("ledger not written", machine=machine, error=str(error))
                    self._telemetry.count("remediator_ledger_errors_total", {})

    def _take(self) -> list[str]:
        machines = set(self._dirty) | self._newly_refused() | self._moved_by_clocks()
        for machine, (until, _) in self._world.vetoes.items():
            ledger = self._world.ledger(machine)
            if ledger is None or ledger.status is UNSET or ledger.status.veto_until < until:
                machines.add(machine)
        if self._everything:
            machines |= {run.spec.machine for run in self._world.ended_runs.values()}
            nodes = self._world.nodes.values()
            machines |= {self._world.machine(node) for node in nodes if self._has_story(node.name)}
        self._dirty.clear()
        self._everything = False
        return sorted(machines)

    def _newly_refused(self) -> set[str]:
        """Machines that the newest pass has refused, once for each pass."""
        refused, told = self.refused(), self._told
        self._told = refused
        return set() if refused is told else set(refused)

    def _moved_by_clocks(self) -> set[str]:
        now = self._clock.monotonic()
        if now - self._clocks_at < CLOCKS_EVERY_S:
            return set()
        self._clocks_at = now
        return {
            name
            for name, ledger in self._world.caches.ledgers.views().items()
            # Whoever is refused is looked at after each pass.
            if ledger.status is not UNSET and _moves_by_itself(ledger.status) and name not in self.refused()
        }

    def _has_story(self, node: str) -> bool:
        found = self._diagnoses.of(node)
        return found is not None and bool(found.records or found.latches_to_add)

    async def write(self, machine: str) -> None:
        """Write one machine's ledger if it is not what it should be."""
        ledger = self._world.ledger(machine)
        stored = ledger.status if ledger is not None and ledger.status is not UNSET else ManagedNodeStatus()
        wanted = remember(stored, self._known(machine))
        if self._world.veto_of(machine) is not None:
            # The record that was deleted is no more, but its number stays used.
            wanted = replace(wanted, runs=max(wanted.runs, self._world.next_number(machine) - 1))
        if wanted.request != stored.request and not self._may_write_request():
            wanted = replace(wanted, request=stored.request)  # the rest must not wait for it
        if wanted == stored or (ledger is None and empty(wanted)):
            return
        attribution = Attribution(term=self.term)
        if ledger is None:
            created = CreateLedger(ManagedNode(metadata=ObjectMeta(name=machine), status=wanted))
            written = await self._records.save(created, attribution)
        else:
            save = SaveLedger(
                name=machine,
                resource_version=ledger.metadata.resource_version,
                before=stored,
                status=wanted,
            )
            written = await self._records.save(save, attribution)
        if written.outcome is Outcome.APPLIED:
            version = resource_version(written.body)
            if version:
                await self._world.caches.ledgers.wait_for(version, SEEN_WITHIN_S)
        else:
            self._dirty.add(machine)

    def _known(self, machine: str) -> Known:
        nodes = self._world.nodes_of(machine)
        node = nodes[0] if len(nodes) == 1 else None
        found = self._diagnoses.of(node.name) if node is not None else None
        spec = self._world.policy_spec
        return Known(
            now=self._clock.now(),
            policy=spec,
            node=node,
            identity=identify(node, spec.identity).text if node is not None else "",
            open_run=self._open_run(machine),
            ended=self._world.ended_of(machine),
            latches=found.latches_to_add if found is not None else (),
            records=found.records if found is not None else None,
            refused=self._refused(machine),
            answered=self._answered(machine),
            veto=self._world.veto_of(machine),
        )

    def _open_run(self, machine: str) -> int:
        runs = self._world.open_runs.values()
        return max((number_of(run.metadata.name) for run in runs if run.spec.machine == machine), default=0)

    def _refused(self, machine: str) -> BlockedRequest | None:
        refused = self.refused().get(machine)
        if refused is None:
            return None
        verdict = refused.blocked_by
        return BlockedRequest(
            fault_class=refused.request.fault_class,
            playbook=refused.request.playbook.name,
            since=write_instant(refused.request.since),
            blocked_by=verdict.stop,
            numbers=verdict.numbers[:256],
        )

    def _answered(self, machine: str) -> str:
        """`at` of the newest manual request that a run, or a stale plan's refusal, has answered."""
        refused = self.refused().get(machine)
        if refused is not None and refused.blocked_by.stop == "PlanStale":
            return write_instant(refused.request.since)
        runs: list[Remediation] = [*self._world.open_runs.values(), *self._world.ended_of(machine)]
        mine = (run for run in runs if run.spec.machine == machine and run.spec.trigger in ASKED)
        ledger = self._world.ledger(machine)
        done = ledger.status.request_done if ledger is not None and ledger.status is not UNSET else ""
        # An older run must not take back that a later request was refused.
        return max((done, *(run.spec.first_seen for run in mine)))

    def _may_write_request(self) -> bool:
        """At most 60 writes a minute about requests that wait; none while a breaker is open."""
        if any(state.state == "Open" for state in self._world.policy_status.breakers):
            return False
        now = self._clock.monotonic()
        self._request_writes = [at for at in self._request_writes if now - at < 60.0]
        if len(self._request_writes) >= REQUEST_WRITES_PER_MINUTE:
            return False
        self._request_writes.append(now)
        return True


def _moves_by_itself(status: ManagedNodeStatus) -> bool:
    moving = status.state in ("Probation", REMEDIATING)
    return moving or status.request is not UNSET or status.out is not UNSET
