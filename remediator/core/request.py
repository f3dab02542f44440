"""A request for a run, and the fleet that judges it: the inputs of the fleet pass. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

from msgspec import UNSET, Struct

from remediator.core.actions import harmful
from remediator.core.census import Census
from remediator.core.spares import Fleetwide
from remediator.model.ledger import ManagedNodeStatus
from remediator.model.playbook import PlaybookInForce, PlaybookSpec
from remediator.model.policy import PolicySpec, PolicyStatus
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation
from remediator.model.signal import Evidence
from remediator.model.views import NodeView

Trigger = Literal["Fault", "Manual", "Return", "Reappeared"]
ASKED: Final = ("Manual", "Return")  # triggers of what a person asks for


class Request(Struct, frozen=True):
    """Somebody, or a fault, asks for one playbook on one machine.

    ``by`` and ``plan_hash`` are set for a person's request; such a request passes the mode gate.
    ``number`` is the n of the run's name, above every n that the machine ever had. ``return_to`` names
    the pool that the machine goes to once it is well, where that is settled already.
    """

    machine: str
    node: NodeView
    playbook: PlaybookInForce
    trigger: Trigger
    fault_class: str
    since: datetime
    number: int
    evidence: tuple[Evidence, ...] = ()
    by: str = ""
    plan_hash: str = ""
    return_to: str = ""

    @property
    def already_out(self) -> bool:
        """Does an ended run keep the machine out? Then nothing is taken away that is not gone."""
        return self.trigger in ("Return", "Reappeared")

    @property
    def run(self) -> str:
        return f"{self.machine}-{self.number}"

    @property
    def harms(self) -> bool:
        return harmful(self.playbook.actions)

    @property
    def order(self) -> tuple[int, int, datetime, str]:
        """Hard before soft, then the playbook's priority, then age, then name."""
        return (
            0 if self.playbook.spec.severity == "Hard" else 1,
            -self.playbook.spec.priority,
            self.since,
            self.machine,
        )


class Shadow(Struct, frozen=True, gc=False):
    """A grant that Audit would have given; it limits other shadow grants and nothing real."""

    run: str
    machine: str
    node_uid: str
    fault_class: str
    pool: str
    spare: str
    playbook: str
    until: datetime  # when the steps' time-outs have passed, and a real grant would be over


class FleetView(Struct, frozen=True):
    """Everything that one fleet pass looks at, read at one instant.

    ``runs`` are the open ones by name, ``ledgers`` by machine, settled with runs that ended but
    whose entry is not written yet. ``names`` maps Node uids to names. ``adopted`` are node names
    that a person declared known out. ``own_nodes`` host a pod of ours. ``ended_runs`` are names
    whose grant may go; ``in_flight`` names that were sent but not seen yet; ``audited`` (machine,
    class) pairs that Audit has recorded already. ``uncovered`` maps pools to why their exporter is
    not covered. ``silent_zones`` maps zones to why no silence is believed there; ``witnesses`` Node uids to
    what speaks against that Node's silence, empty text where nothing does; a uid that is not there was
    not looked at. ``blind`` says why nothing may be decided at all, empty when we see.
    """

    now: datetime
    term: int
    policy: PolicySpec
    status: PolicyStatus
    policy_exists: bool
    pools: Mapping[str, ResourcePool]
    nodes: Mapping[str, NodeView]
    names: Mapping[str, str]
    census: Census
    runs: Mapping[str, Remediation]
    ledgers: Mapping[str, ManagedNodeStatus]
    fleetwide: Fleetwide
    adopted: frozenset[str] = frozenset()
    own_nodes: frozenset[str] = frozenset()
    conflicted: frozenset[str] = frozenset()
    ended_runs: frozenset[str] = frozenset()
    in_flight: frozenset[str] = frozenset()
    audited: frozenset[tuple[str, str]] = frozenset()
    uncovered: Mapping[str, str] = {}
    silent_zones: Mapping[str, str] = {}
    witnesses: Mapping[str, str] = {}
    shadows: tuple[Shadow, ...] = ()
    blind: str = ""


def uses_exporter(spec: PlaybookSpec) -> bool:
    """Does any matcher of the playbook read the exporter's pages?"""
    return any(matcher.xid is not UNSET or matcher.gpu_metric is not UNSET for matcher in spec.match.any_of)
