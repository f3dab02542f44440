"""The RemediationPolicy: the safety envelope, and the fleet's grants in its status.

Exactly one object, named ``cluster``. Every limit has a tight default; a missing limit is never
"unlimited"; a missing policy puts every playbook into Audit.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from remediator.model.duration import Duration
from remediator.model.joins import JoinsSpec, JoinsStatus
from remediator.model.keys import API_VERSION
from remediator.model.meta import (
    Condition,
    Count,
    FaultClass,
    LabelSelector,
    Limit,
    Mode,
    Name,
    ObjectMeta,
    Pause,
    Percent,
    PositiveCount,
    QualifiedName,
    Rate,
    Time,
)

GRANTS_MAX = 256
RATES_MAX = 64
BREAKERS_MAX = 64
CAUSES_MAX = 32
CAUSE_CHARS_MAX = 317 + 1 + 63  # LABEL=VALUE
SCOPE_CHARS_MAX = len("cause/") + 48 + 1 + CAUSE_CHARS_MAX

Cause = Annotated[str, Meta(max_length=CAUSE_CHARS_MAX)]
Rewriter = Annotated[str, Meta(min_length=1, max_length=128)]


class BreakerSpec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Opens above ``max(count, percent of the nodes)`` confirmed faults within ``within``.

    The same holds among the nodes that share a value of one of these labels: the topology and driver
    labels of the pools, and ``causes``, such as the NVLink domain or the image of the host.
    """

    causes: Annotated[tuple[QualifiedName, ...], Meta(max_length=8)] = ("nvidia.com/gpu.clique",)
    count: PositiveCount = 3
    percent: Percent = 10
    within: Duration = "10m"
    quiet: Duration = "15m"


class IdentitySpec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Labels, then annotations, that carry the machine's asset tag; the first present one wins."""

    labels: Annotated[tuple[QualifiedName, ...], Meta(max_length=8)] = ()
    annotations: Annotated[tuple[QualifiedName, ...], Meta(max_length=8)] = ()


class ConditionPolarity(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Which status of a condition is good, where the shipped table does not know it."""

    type: Annotated[str, Meta(min_length=1, max_length=316)]
    good: Literal["True", "False"]


class ExporterSpec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Where the GPU metrics pages are. Without it the exporter is not used at all.

    ``address`` is a template: ``{node}`` (name) and ``{address}`` (InternalIP) are replaced; or
    ``podSelector`` in ``namespace`` finds the exporter's pods and ``port`` and ``path`` apply.
    """

    address: Annotated[str, Meta(max_length=256)] = ""
    namespace: Annotated[str, Meta(max_length=63)] = ""
    pod_selector: LabelSelector | UnsetType = UNSET
    port: Annotated[int, Meta(ge=1, le=65_535)] = 9400
    path: Annotated[str, Meta(max_length=128)] = "/metrics"
    nodes: LabelSelector | UnsetType = UNSET
    period: Duration = "15s"
    timeout: Duration = "10s"


class RepairSpec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Where repair Jobs run. Without it a ``repair: {job: …}`` step is blocked."""

    namespace: Annotated[str, Meta(min_length=1, max_length=63)]


class PolicySpec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    max_mode: Mode = "Audit"
    pause: Pause | UnsetType = UNSET
    max_unavailable: Limit = Limit(percent=2, at_least=1)
    pool_max_unavailable: Limit = Limit(percent=5, at_least=1)
    max_concurrent: PositiveCount = 4
    pool_max_concurrent: PositiveCount = 2
    max_repairs: PositiveCount = 4
    rate: Rate = Rate(count=6, per="1h", burst=2)
    breaker: BreakerSpec = BreakerSpec()
    hold_after_veto: Duration = "24h"
    coverage: Percent = 80
    gpu_resource: QualifiedName = "nvidia.com/gpu"
    serving_taints: Annotated[tuple[QualifiedName, ...], Meta(max_length=32)] = ("nvidia.com/gpu",)
    protected_priority_classes: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()
    gang_labels: Annotated[tuple[QualifiedName, ...], Meta(max_length=16)] = (
        "scheduling.x-k8s.io/pod-group",
        "jobset.sigs.k8s.io/jobset-name",
        "kueue.x-k8s.io/pod-group-name",
        "volcano.sh/job-name",
        "batch.kubernetes.io/job-name",
    )
    # Keys that pools may write on nodes, as label, annotation or taint, besides remediator.dev/*.
    node_keys: Annotated[tuple[QualifiedName, ...], Meta(max_length=64)] = ()
    # Field managers that write whole taint lists and lose ours without meaning it: it is put back.
    rewriters: Annotated[tuple[Rewriter, ...], Meta(max_length=16)] = ()
    identity: IdentitySpec = IdentitySpec()
    conditions: Annotated[tuple[ConditionPolarity, ...], Meta(max_length=128)] = ()
    exporter: ExporterSpec | UnsetType = UNSET
    repair: RepairSpec | UnsetType = UNSET
    joins: JoinsSpec | UnsetType = UNSET  # without it no node is gated, and none is let in


class Grant(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The fleet's permission for one run, at most 160 bytes; it is the spare's reservation too."""

    run: Annotated[str, Meta(max_length=72)]
    uid: Annotated[str, Meta(max_length=36)]  # of the Node under repair
    pool: Annotated[str, Meta(max_length=63)] = ""
    spare: Annotated[str, Meta(max_length=253)] = ""
    at: Time = ""


class RateState(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A token bucket's level at one instant; ``scope`` is ``fleet`` or ``playbook/NAME``."""

    scope: Annotated[str, Meta(max_length=72)]
    tokens: float
    at: Time


class BreakerState(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A breaker that is not closed.

    ``scope`` is ``fleet``, ``class/FAULTCLASS``, or ``cause/FAULTCLASS/LABEL=VALUE``.
    """

    scope: Annotated[str, Meta(max_length=SCOPE_CHARS_MAX)]
    state: Literal["Open", "HalfOpen"]
    since: Time
    last_fault_at: Time = ""
    count: Count = 0
    limit: Count = 0
    trial: Annotated[str, Meta(max_length=72)] = ""  # the one run let through while half open


class FaultMark(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One confirmed fault inside the breakers' window; ``causes`` are the node's LABEL=VALUE of then."""

    machine: Annotated[str, Meta(max_length=64)]
    fault_class: FaultClass
    at: Time
    causes: Annotated[tuple[Cause, ...], Meta(max_length=CAUSES_MAX)] = ()


class PolicyStatus(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    observed_generation: int = 0
    term: Annotated[int, Meta(ge=0)] = 0
    leader: Annotated[str, Meta(max_length=253)] = ""
    grants: Annotated[tuple[Grant, ...], Meta(max_length=GRANTS_MAX)] = ()
    rates: Annotated[tuple[RateState, ...], Meta(max_length=RATES_MAX)] = ()
    breakers: Annotated[tuple[BreakerState, ...], Meta(max_length=BREAKERS_MAX)] = ()
    recent_faults: Annotated[tuple[FaultMark, ...], Meta(max_length=GRANTS_MAX)] = ()
    # XID codes whose first round of pages over the whole fleet has been latched.
    baselined: Annotated[tuple[Annotated[int, Meta(ge=1, le=999)], ...], Meta(max_length=256)] = ()
    joins: JoinsStatus | UnsetType = UNSET
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=8)] = ()


class RemediationPolicy(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    api_version: str = API_VERSION
    kind: str = "RemediationPolicy"
    metadata: ObjectMeta
    spec: PolicySpec = PolicySpec()
    status: PolicyStatus | UnsetType = UNSET
