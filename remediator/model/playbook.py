"""The Playbook: which nodes, what fault, which limits, which steps, what then.

The same types are the custom resource, the file, the editor's schema and the reference page.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from remediator.model.duration import Duration
from remediator.model.keys import API_VERSION
from remediator.model.meta import (
    Condition,
    Count,
    FaultClass,
    Id,
    LabelSelector,
    Limit,
    Line,
    Mode,
    Name,
    ObjectMeta,
    Pause,
    PositiveCount,
    Rate,
    SeverityName,
)


class NodeSelection(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Which nodes a playbook may touch. An absent selector needs ``matchAll: true``, spelled out."""

    selector: LabelSelector | UnsetType = UNSET
    match_all: bool = False


class XidMatch(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """True from the moment the last-XID gauge of a GPU changes to one of the codes."""

    codes: Annotated[tuple[Annotated[int, Meta(ge=1, le=999)], ...], Meta(min_length=1, max_length=32)]


class GpuMetricMatch(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """True while any GPU of the node reports ``field`` so that ``value op threshold`` holds."""

    field: Annotated[str, Meta(min_length=1, max_length=96, pattern=r"^DCGM_[A-Z0-9_]+$")]
    op: Literal["==", "!=", ">", ">=", "<", "<="]
    value: float


class NodeConditionMatch(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """True while the node carries the condition with this status, and one of the reasons if given."""

    type: Annotated[str, Meta(min_length=1, max_length=316)]
    status: Literal["True", "False", "Unknown"]
    reasons: Annotated[tuple[Line, ...], Meta(max_length=32)] = ()


class Matcher(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One way to see the fault: an id and exactly one kind of match.

    ``for`` is how long the signal must hold without a gap. ``faultClass`` overrides the
    playbook's, so that one playbook may be a table of conditions.
    """

    id: Id
    xid: XidMatch | UnsetType = UNSET
    gpu_metric: GpuMetricMatch | UnsetType = UNSET
    node_condition: NodeConditionMatch | UnsetType = UNSET
    for_: Duration | UnsetType = field(default=UNSET, name="for")
    fault_class: FaultClass | UnsetType = UNSET


class Match(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    any_of: Annotated[tuple[Matcher, ...], Meta(min_length=1, max_length=32)]


class PlaybookLimits(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """May only tighten what the policy and the pool allow."""

    max_concurrent: PositiveCount | UnsetType = UNSET
    max_unavailable: Limit | UnsetType = UNSET
    rate: Rate | UnsetType = UNSET


class CollectStep(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Copy Events, conditions and page lines into the record before a repair destroys them."""

    events_window: Duration = "15m"


class QuarantineStep(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Taint the node with ``remediator.dev/quarantine=<value>:NoSchedule`` and cordon it: one patch."""

    value: Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
    cordon: bool = True


class SwapStep(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Move the granted spare into the pool: one patch."""

    timeout: Duration = "10m"


class DrainStep(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Empty the node through the Eviction API, band by band. Nothing is forced.

    At ``deadline`` the run is Held for people. ``bare``, ``emptyDir`` and ``critical`` say what
    to do with pods without a controller, with scratch data, and of the system priority classes.
    """

    deadline: Duration = "30m"
    protect_deadline: Duration = "24h"
    bare: Literal["Evict", "Hold"] = "Hold"
    empty_dir: Literal["Evict", "Hold"] = "Evict"
    critical: Literal["Evict", "Ignore"] = "Ignore"


class DetachStep(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Take the empty node out of its pool; it goes to the Repair pool where there is one."""


class JobRepair(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A Job made from the PodTemplate ``template`` in the repair namespace."""

    template: Name
    timeout: Duration = "30m"


class HandoffRepair(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Give the machine to people. The run ends as HandedOff; the machine stays out."""

    queue: Annotated[str, Meta(min_length=1, max_length=63)]


class RepairStep(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Exactly one of ``job`` and ``handoff``."""

    job: JobRepair | UnsetType = UNSET
    handoff: HandoffRepair | UnsetType = UNSET


class VerifyStep(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Wait for evidence that the machine is well: fresh good signals for ``quietFor`` without a gap."""

    quiet_for: Duration = "20m"
    boot_changed: bool = False
    gpus_equal_class: bool = True
    timeout: Duration = "2h"


class ReturnStep(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Lift our quarantine and put the node into the buffer, on probation."""

    to: Literal["Buffer"] = "Buffer"
    probation: Duration = "24h"


class ReportStep(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Tell people, by Event and record. Touches nothing."""


class Step(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An id and exactly one action."""

    id: Id
    collect: CollectStep | UnsetType = UNSET
    quarantine: QuarantineStep | UnsetType = UNSET
    swap: SwapStep | UnsetType = UNSET
    drain: DrainStep | UnsetType = UNSET
    detach: DetachStep | UnsetType = UNSET
    repair: RepairStep | UnsetType = UNSET
    verify: VerifyStep | UnsetType = UNSET
    return_: ReturnStep | UnsetType = field(default=UNSET, name="return")
    report: ReportStep | UnsetType = UNSET


StepAction = (
    CollectStep
    | QuarantineStep
    | SwapStep
    | DrainStep
    | DetachStep
    | RepairStep
    | VerifyStep
    | ReturnStep
    | ReportStep
)


class PlaybookSpec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What to do about one kind of fault."""

    summary: Annotated[str, Meta(min_length=1, max_length=256)]
    mode: Mode = "Audit"
    fault_class: FaultClass
    severity: SeverityName
    priority: Annotated[int, Meta(ge=0, le=1_000)] = 500
    nodes: NodeSelection
    match: Match
    limits: PlaybookLimits | UnsetType = UNSET
    no_spare: Literal["Wait", "WithoutSpare"] = "Wait"
    memory: Duration = "14d"
    pause: Pause | UnsetType = UNSET
    steps: Annotated[tuple[Step, ...], Meta(min_length=1, max_length=16)]


class PlaybookStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    observed_generation: int = 0
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=8)] = ()
    in_force: Annotated[str, Meta(max_length=32_768)] = ""  # JSON of the last good spec
    in_force_generation: int = 0
    matching: Count = 0
    active: Count = 0


class Playbook(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    api_version: str = API_VERSION
    kind: str = "Playbook"
    metadata: ObjectMeta
    spec: PlaybookSpec
    status: PlaybookStatus | UnsetType = UNSET


def action_name(step: Step) -> str:
    """Name of the one action that a step carries, as it stands in the YAML.

    Raises:
        ValueError: none or more than one is set; the API server refuses such a step.
    """
    names = [
        name
        for name in (
            "collect",
            "quarantine",
            "swap",
            "drain",
            "detach",
            "repair",
            "verify",
            "return",
            "report",
        )
        if getattr(step, "return_" if name == "return" else name) is not UNSET
    ]
    if len(names) != 1:
        raise ValueError(f"step {step.id!r}: exactly one action, found {names or 'none'}")
    return names[0]


class PlaybookInForce(Struct, frozen=True, kw_only=True, dict=True):
    """A playbook as the controller follows it: the last good generation, and its text.

    ``text`` is the canonical JSON of ``spec``; a run carries it, so that later edits do not
    change a run under way.
    """

    name: str
    generation: int
    spec: PlaybookSpec
    text: str

    @cached_property
    def actions(self) -> tuple[str, ...]:
        """Names of its steps' actions, in their order."""
        return tuple(action_name(step) for step in self.spec.steps)
