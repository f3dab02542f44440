"""The two files that rehearse playbooks offline: a Fleet, and a PlaybookTest that tells stories in it.

Never objects on a cluster. ``remediator playbook test`` plays them in virtual time, which begins
at 2026-01-02T00:00:00Z.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from remediator.model.duration import Duration
from remediator.model.keys import API_VERSION
from remediator.model.ledger import ManagedNodeStatus
from remediator.model.meta import (
    Count,
    FaultClass,
    Id,
    Labels,
    LabelValue,
    Line,
    Mode,
    ObjectMeta,
    QualifiedName,
    Taint,
)
from remediator.model.policy import PolicySpec
from remediator.model.pool import PoolSpec
from remediator.model.remediation import Remediation

TEST_KIND: Final = "PlaybookTest"
FLEET_KIND: Final = "Fleet"
START: Final = "2026-01-02T00:00:00Z"

# What may happen, as it stands in the YAML; each entry of a timeline holds exactly one.
HAPPENINGS: Final = (
    "xid",
    "gpuMetric",
    "nodeCondition",
    "exporter",
    "gpus",
    "reboot",
    "deleteNode",
    "cordon",
    "uncordon",
    "untaint",
    "fenced",
    "hold",
    "unhold",
    "cancel",
    "deleteRun",
    "request",
    "pause",
    "resume",
)

_ObjectName = Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
NodeName = _ObjectName
_Path = Annotated[str, Meta(min_length=1, max_length=256)]
_Annotations = Annotated[dict[QualifiedName, Line], Meta(max_length=32)]
_Word = Annotated[str, Meta(min_length=1, max_length=64)]
_Gpu = Annotated[int, Meta(ge=0, le=63)]


class GivenCondition(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    type: Annotated[str, Meta(min_length=1, max_length=316)]
    status: Literal["True", "False", "Unknown"]
    reason: Line = ""


class GivenNodes(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Nodes that look alike. A name that was given before is changed, and keeps what is not named here.

    A new node is Ready, has 8 GPUs and is known by its name as a machine. ``pool`` puts on the
    membership label and the projection of that pool. ``gone: true`` takes the nodes away.
    """

    names: Annotated[tuple[NodeName, ...], Meta(min_length=1, max_length=1_000)]
    pool: _ObjectName | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    annotations: _Annotations | UnsetType = UNSET
    taints: Annotated[tuple[Taint, ...], Meta(max_length=16)] = ()
    conditions: Annotated[tuple[GivenCondition, ...], Meta(max_length=32)] = ()
    gpus: Annotated[int, Meta(ge=0, le=64)] | UnsetType = UNSET
    cordoned: bool | UnsetType = UNSET
    machine: Annotated[str, Meta(min_length=1, max_length=50)] | UnsetType = UNSET
    gone: bool = False


class GivenPool(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A ResourcePool. A name that was given before is replaced."""

    name: _ObjectName
    spec: PoolSpec


class GivenPod(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A pod on a node. ``owner`` is the kind of its controller; empty: none, so nothing makes it again.

    ``ends`` is how long it takes to end once evicted; ``neverEnds: true`` for one that hangs.
    """

    node: NodeName
    name: _ObjectName
    namespace: _ObjectName = "default"
    owner: Annotated[str, Meta(max_length=63)] = "ReplicaSet"
    labels: Labels | UnsetType = UNSET
    annotations: _Annotations | UnsetType = UNSET
    priority: int = 0
    priority_class: Annotated[str, Meta(max_length=253)] = ""
    empty_dir: bool = False
    ends: Duration = "10s"
    never_ends: bool = False


class GivenBudget(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A PodDisruptionBudget; it refuses the eviction of pods with all these labels while it allows none."""

    name: _ObjectName
    namespace: _ObjectName = "default"
    match_labels: Annotated[dict[QualifiedName, LabelValue], Meta(min_length=1, max_length=16)]
    disruptions_allowed: Count = 0


class GivenLedger(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What is remembered of a machine: the status of its ManagedNode, word for word."""

    machine: _ObjectName
    status: ManagedNodeStatus


class Repairs(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a repair Job brings about, ``takes`` after it was created.

    ``Boots``: the machine comes up with a new bootID; conditions, metrics and codes are as they
    were given unless ``cures: false``. ``Fails``: the Job fails. ``Hangs``: nothing ever happens.
    ``gpusAfter`` is how many GPUs are there after the boot, all of them if left out.
    """

    outcome: Literal["Boots", "Fails", "Hangs"] = "Boots"
    takes: Duration = "4m"
    cures: bool = True
    gpus_after: Annotated[int, Meta(ge=0, le=64)] | UnsetType = UNSET


class Given(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A fleet, or what is different in it. Of ``policy`` only the keys that stand there count.

    ``runs`` are open or ended Remediations; more often a story brings them about itself.
    """

    nodes: Annotated[tuple[GivenNodes, ...], Meta(max_length=64)] = ()
    pools: Annotated[tuple[GivenPool, ...], Meta(max_length=32)] = ()
    policy: PolicySpec | UnsetType = UNSET
    pods: Annotated[tuple[GivenPod, ...], Meta(max_length=256)] = ()
    budgets: Annotated[tuple[GivenBudget, ...], Meta(max_length=64)] = ()
    ledgers: Annotated[tuple[GivenLedger, ...], Meta(max_length=64)] = ()
    runs: Annotated[tuple[Remediation, ...], Meta(max_length=16)] = ()
    repairs: Repairs | UnsetType = UNSET


class XidHappens(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The last-XID gauge of one GPU changes to a code."""

    code: Annotated[int, Meta(ge=0, le=999)]
    gpu: _Gpu = 0


class MetricHappens(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A metric of one GPU takes a value; the node's other GPUs then publish 0."""

    field: Annotated[str, Meta(min_length=1, max_length=96, pattern=r"^DCGM_[A-Z0-9_]+$")]
    value: float
    gpu: _Gpu = 0


class PersonActs(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A person does it by hand."""

    by: Annotated[str, Meta(min_length=1, max_length=256)] = "somebody"
    reason: Line = ""


class PersonHolds(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A person holds the node; without ``lasts`` until further notice."""

    by: Annotated[str, Meta(min_length=1, max_length=256)] = "somebody"
    reason: Line = ""
    lasts: Duration | UnsetType = UNSET


class PersonAsks(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A person asks for a playbook on the node."""

    playbook: _ObjectName
    by: Annotated[str, Meta(min_length=1, max_length=256)] = "somebody"


class NoDetail(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Nothing more to say: write ``{}``."""


class Happening(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """At this time from the start exactly one thing happens, to each of these nodes.

    ``exporter`` falls silent or speaks again. ``gpus`` is the allocatable count from now on.
    ``reboot`` is somebody's own reboot: a new bootID at once. ``fenced`` is a person's word that the
    machine is off. ``cancel`` and ``deleteRun`` are for
    the node's open run. ``pause`` and ``resume`` are for the policy and take no nodes.
    """

    at: Duration
    nodes: Annotated[tuple[NodeName, ...], Meta(max_length=256)] = ()
    xid: XidHappens | UnsetType = UNSET
    gpu_metric: MetricHappens | UnsetType = UNSET
    node_condition: GivenCondition | UnsetType = UNSET
    exporter: Literal["Silent", "Speaks"] | UnsetType = UNSET
    gpus: Annotated[int, Meta(ge=0, le=64)] | UnsetType = UNSET
    reboot: NoDetail | UnsetType = UNSET
    delete_node: NoDetail | UnsetType = UNSET
    cordon: PersonActs | UnsetType = UNSET
    uncordon: PersonActs | UnsetType = UNSET
    untaint: PersonActs | UnsetType = UNSET
    fenced: PersonActs | UnsetType = UNSET
    hold: PersonHolds | UnsetType = UNSET
    unhold: NoDetail | UnsetType = UNSET
    cancel: PersonActs | UnsetType = UNSET
    delete_run: NoDetail | UnsetType = UNSET
    request: PersonAsks | UnsetType = UNSET
    pause: PersonActs | UnsetType = UNSET
    resume: NoDetail | UnsetType = UNSET


class ExpectedFault(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    node: NodeName
    fault_class: FaultClass


class ExpectedPlan(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The plan of the node's first run. ``steps`` are all ids in order; ``spare`` empty: none.

    ``contains`` are pieces of its lines, each of which must be there.
    """

    node: NodeName
    steps: Annotated[tuple[Id, ...], Meta(max_length=16)] | UnsetType = UNSET
    spare: Annotated[str, Meta(max_length=63)] | UnsetType = UNSET
    contains: Annotated[tuple[Line, ...], Meta(max_length=32)] = ()


class ExpectedRun(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How a run stands at the end. ``done`` are the ids of the steps that are Done, in order.

    ``spare`` is the one that took the place, empty for none. ``says`` is a piece of its message,
    or of what it waits for. ``within`` bounds the time from its creation to its end.
    """

    node: NodeName
    state: _Word
    reason: Annotated[str, Meta(max_length=64)] = ""
    playbook: Annotated[str, Meta(max_length=63)] = ""
    done: Annotated[tuple[Id, ...], Meta(max_length=16)] | UnsetType = UNSET
    spare: Annotated[str, Meta(max_length=63)] | UnsetType = UNSET
    says: Line = ""
    within: Duration | UnsetType = UNSET


class ExpectedBlock(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A request that waits for its grant, and the reason code of the gate that holds it."""

    node: NodeName
    by: _Word


class ExpectedNodes(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What these nodes look like. ``pool`` empty: a member of none. ``clean``: no mark of ours is left."""

    names: Annotated[tuple[NodeName, ...], Meta(min_length=1, max_length=256)]
    pool: Annotated[str, Meta(max_length=63)] | UnsetType = UNSET
    quarantined: bool | UnsetType = UNSET
    cordoned: bool | UnsetType = UNSET
    probation: bool | UnsetType = UNSET
    clean: bool | UnsetType = UNSET


class Never(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What must not be true at any moment. The numbers are the highest that are still right.

    ``notServingAbove`` counts members of Workload pools that do not serve; ``runsAbove`` open
    runs; ``rebootsAbove`` repair Jobs without an end. ``writesTo`` are nodes that no write may touch.
    ``evicts: true``: no pod is evicted.
    """

    not_serving_above: Count | UnsetType = UNSET
    runs_above: Count | UnsetType = UNSET
    reboots_above: Count | UnsetType = UNSET
    writes_to: Annotated[tuple[NodeName, ...], Meta(max_length=256)] = ()
    evicts: bool = False


class Expectation(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What must come of the story; each list is compared whole, and ``[]`` says that there is none.

    ``faults`` are all that were ever confirmed. ``runs`` are all Remediations, the oldest first.
    ``blocked`` are the requests that wait at the end. ``writes`` are all writes to nodes, pods and
    Jobs in order, in the words that a failed test prints.
    """

    faults: Annotated[tuple[ExpectedFault, ...], Meta(max_length=256)] | UnsetType = UNSET
    plan: ExpectedPlan | UnsetType = UNSET
    runs: Annotated[tuple[ExpectedRun, ...], Meta(max_length=64)] | UnsetType = UNSET
    blocked: Annotated[tuple[ExpectedBlock, ...], Meta(max_length=64)] | UnsetType = UNSET
    writes: Annotated[tuple[Line, ...], Meta(max_length=256)] | UnsetType = UNSET
    nodes: Annotated[tuple[ExpectedNodes, ...], Meta(max_length=64)] = ()
    never: Never | UnsetType = UNSET


class Case(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One story. It is over after ``lasts``, or when nothing more can happen."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    mode: Mode | UnsetType = UNSET
    given: Given | UnsetType = UNSET
    timeline: Annotated[tuple[Happening, ...], Meta(max_length=256)] = ()
    lasts: Duration = "3h"
    expect: Expectation


class PlaybookTestSpec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """``playbooks`` and ``fleet`` are paths relative to this file; ``only`` picks playbooks by name.

    ``mode`` replaces the playbooks' own, since what ships in Audit is tested for what it does.
    """

    playbooks: Annotated[tuple[_Path, ...], Meta(min_length=1, max_length=16)]
    only: Annotated[tuple[_ObjectName, ...], Meta(max_length=64)] = ()
    fleet: _Path
    mode: Mode = "Enforce"
    cases: Annotated[tuple[Case, ...], Meta(min_length=1, max_length=64)]


class PlaybookTest(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    api_version: str = API_VERSION
    kind: str = TEST_KIND
    metadata: ObjectMeta
    spec: PlaybookTestSpec


class Fleet(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    api_version: str = API_VERSION
    kind: str = FLEET_KIND
    metadata: ObjectMeta
    spec: Given


FileValue = PlaybookTest | Fleet
TYPES: Final[Mapping[str, type[PlaybookTest] | type[Fleet]]] = MappingProxyType(
    {TEST_KIND: PlaybookTest, FLEET_KIND: Fleet}
)
