"""The kinds of remediator.dev/v1alpha1 in one literal table: names, columns, selectable fields.

Everything that is generated (CRDs, editor schemas, reference pages) is driven by this table and by
the model types it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from remediator.model.ledger import ManagedNode
from remediator.model.playbook import Playbook
from remediator.model.policy import RemediationPolicy
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation

CATEGORY: Final = "remediator"

ObjectType = (
    type[Playbook] | type[Remediation] | type[ResourcePool] | type[RemediationPolicy] | type[ManagedNode]
)
ObjectValue = Playbook | Remediation | ResourcePool | RemediationPolicy | ManagedNode


@dataclass(frozen=True, slots=True)
class Column:
    """One column of ``kubectl get``. ``wide`` ones show with ``-o wide`` only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One custom resource. ``summary`` opens its reference page; ``name_max`` bounds metadata.name."""

    name: str
    plural: str
    short: str
    type: ObjectType
    summary: str
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    name_max: int = 63


AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")


def _ready(column: str, path: str, wide: bool = False) -> Column:
    return Column(column, f'.status.conditions[?(@.type=="Ready")].{path}', wide=wide)


PLAYBOOK: Final = Kind(
    name="Playbook",
    plural="playbooks",
    short="rpb",
    type=Playbook,
    summary="What to do about one kind of fault: which nodes, what fault, which limits, which steps.",
    columns=(
        Column("Mode", ".spec.mode"),
        Column("Fault", ".spec.faultClass"),
        Column("Matching", ".status.matching", "integer"),
        Column("Active", ".status.active", "integer"),
        Column("Paused-By", ".spec.pause.by"),
        _ready("Ready", "status"),
        AGE,
        Column("Severity", ".spec.severity", wide=True),
        Column("Priority", ".spec.priority", "integer", wide=True),
        _ready("Reason", "reason", wide=True),
        Column("Summary", ".spec.summary", wide=True),
    ),
    selectable=(".spec.mode", ".spec.faultClass"),
)
REMEDIATION: Final = Kind(
    name="Remediation",
    plural="remediations",
    short="rmd",
    type=Remediation,
    summary="One run of one playbook on one machine, and its audit record.",
    columns=(
        Column("Node", ".spec.node.name"),
        Column("Playbook", ".spec.playbook.name"),
        Column("Status", ".status.state"),
        Column("Waits-For", ".status.waitsFor"),
        AGE,
        Column("Fault", ".spec.faultClass", wide=True),
        Column("Spare", ".status.spare.name", wide=True),
        Column("Mode", ".spec.mode", wide=True),
        Column("Reason", ".status.reason", wide=True),
        # A column cannot subtract: the two ages stand in for a duration.
        Column("Started", ".status.startedAt", "date", wide=True),
        Column("Finished", ".status.finishedAt", "date", wide=True),
    ),
    selectable=(".spec.machine", ".spec.node.name", ".spec.playbook.name", ".spec.mode", ".spec.faultClass"),
    name_max=72,
)
RESOURCE_POOL: Final = Kind(
    name="ResourcePool",
    plural="resourcepools",
    short="rpool",
    type=ResourcePool,
    summary="A set of nodes that do one job, divided from others by a label and by taints.",
    columns=(
        Column("Role", ".spec.role"),
        Column("Nodes", ".status.nodes", "integer"),
        Column("Serving", ".status.serving", "integer"),
        Column("Not-Serving", ".status.notServing", "integer"),
        Column("Limit", ".status.limit", "integer"),
        Column("Spares", ".status.spares", "integer"),
        Column("Out", ".status.out", "integer"),
        Column("Paused-By", ".spec.pause.by"),
        AGE,
        Column("Max-Mode", ".spec.maxMode", wide=True),
        _ready("Ready", "status", wide=True),
        _ready("Reason", "reason", wide=True),
    ),
    selectable=(".spec.role",),
)
REMEDIATION_POLICY: Final = Kind(
    name="RemediationPolicy",
    plural="remediationpolicies",
    short="rpol",
    type=RemediationPolicy,
    summary="The safety envelope of the whole cluster, and the grants given within it. Named `cluster`.",
    columns=(
        Column("Max-Mode", ".spec.maxMode"),
        Column("Paused-By", ".spec.pause.by"),
        _ready("Ready", "status"),
        _ready("Reason", "reason"),
        AGE,
        _ready("Message", "message", wide=True),
        Column("Term", ".status.term", "integer", wide=True),
        Column("Leader", ".status.leader", wide=True),
        Column("Pause-Until", ".spec.pause.until", wide=True),
    ),
)
MANAGED_NODE: Final = Kind(
    name="ManagedNode",
    plural="managednodes",
    short="mnode",
    type=ManagedNode,
    summary="The memory of one machine with a story: what waits, what was seen, what was done.",
    columns=(
        Column("Node", ".status.node"),
        Column("State", ".status.state"),
        Column("Fault", ".status.out.faultClass"),
        Column("Blocked-By", ".status.request.blockedBy"),
        Column("Runs", ".status.runs", "integer"),
        AGE,
        Column("Run", ".status.out.run", wide=True),
        Column("Reason", ".status.out.reason", wide=True),
        Column("Wants", ".status.request.playbook", wide=True),
        Column("Veto-Until", ".status.vetoUntil", wide=True),
        Column("Probation-Until", ".status.probationUntil", wide=True),
        Column("Identity", ".status.identity", wide=True),
    ),
)

KINDS: Final[tuple[Kind, ...]] = (PLAYBOOK, REMEDIATION, RESOURCE_POOL, REMEDIATION_POLICY, MANAGED_NODE)
KIND_BY_NAME: Final[Mapping[str, Kind]] = MappingProxyType({kind.name: kind for kind in KINDS})
