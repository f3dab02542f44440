"""Everything that asks for a run: faults, people, and machines that are out and came back.

The same code serves the controller and the commands that explain it. It writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import UNSET
from msgspec.structs import replace

from remediator.core import again
from remediator.core.match import selects
from remediator.core.request import ASKED, FleetView, Request
from remediator.model.instant import read_instant, write_instant
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.ledger import ManagedNode, ManagedNodeStatus, ManualRequest, Out
from remediator.model.playbook import PlaybookInForce
from remediator.model.signal import Fault
from remediator.model.views import NodeView
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.world import World


class Requests:
    """Who asks for what, as far as the world knows."""

    def __init__(self, *, world: World, diagnoses: Diagnoses) -> None:
        self._world = world
        self._diagnoses = diagnoses

    def all(self, faults: tuple[Fault, ...], view: FleetView) -> list[Request]:
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


def _instant(text: str) -> datetime | None:
    """A time that a person wrote; None for what nobody can read."""
    try:
        return read_instant(text)
    except ValueError:
        return None
