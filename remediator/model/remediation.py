"""The Remediation: one run of one playbook on one machine, and its audit record."""

from __future__ import annotations

import enum
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from remediator.model.keys import API_VERSION
from remediator.model.meta import (
    Condition,
    FaultClass,
    Id,
    Line,
    Mode,
    ObjectMeta,
    PoolName,
    SeverityName,
    Text,
    Time,
)
from remediator.model.signal import Evidence


class RunState(enum.Enum):
    """Where a run stands. ``remediator.core.lifecycle`` holds what may follow what."""

    GRANTED = "Granted"
    QUARANTINED = "Quarantined"
    HANDED_OVER = "HandedOver"
    DRAINING = "Draining"
    DETACHED = "Detached"
    REPAIRING = "Repairing"
    VERIFYING = "Verifying"
    # Ways to stand still that a person or time ends.
    BLOCKED = "Blocked"
    HELD = "Held"
    # Ends.
    RETURNED = "Returned"
    REPORTED = "Reported"
    HANDED_OFF = "HandedOff"
    CANCELLED = "Cancelled"
    NODE_GONE = "NodeGone"
    FAILED = "Failed"
    NOT_GRANTED = "NotGranted"
    WOULD_ACT = "WouldAct"


class PlaybookRef(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The playbook as it was at the grant: a run never follows later edits."""

    name: Annotated[str, Meta(max_length=253)]
    generation: int = 0
    text: Annotated[str, Meta(max_length=32_768)]  # JSON of its spec


class NodeRef(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    name: Annotated[str, Meta(max_length=253)]
    uid: Annotated[str, Meta(max_length=36)]


class Cancel(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    by: Annotated[str, Meta(min_length=1, max_length=256)]
    reason: Line = ""


class RemediationSpec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Complete at birth; only ``cancel`` may be added later."""

    machine: Annotated[str, Meta(max_length=253)]
    node: NodeRef
    boot_id: Annotated[str, Meta(max_length=64)] = ""
    pool: PoolName = ""
    return_to: PoolName = ""  # where the machine goes once it is well; empty: as its place demands
    trigger: Literal["Fault", "Manual", "Return", "Reappeared"]
    by: Line = ""  # the person behind a Manual or Return trigger
    mode: Mode
    fault_class: FaultClass
    severity: SeverityName
    first_seen: Time = ""
    evidence: Annotated[tuple[Evidence, ...], Meta(max_length=16)] = ()
    playbook: PlaybookRef
    plan: Annotated[tuple[Line, ...], Meta(max_length=32)] = ()
    plan_hash: Annotated[str, Meta(max_length=16)] = ""
    spare: NodeRef | UnsetType = UNSET
    term: Annotated[int, Meta(ge=0)] = 0
    cancel: Cancel | UnsetType = UNSET


class StepStatus(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One step: ``Intent`` is written before its first effect, the result together with the next intent.

    ``attempt`` counts from 1; ``evictions`` are those that this process saw accepted.
    """

    id: Id
    action: Annotated[str, Meta(max_length=16)]
    state: Literal["Intent", "Done", "Skipped", "Failed"]
    started_at: Time
    finished_at: Time = ""
    attempt: Annotated[int, Meta(ge=1, le=100)] = 1
    note: Annotated[str, Meta(max_length=1_024)] = ""
    evictions: Annotated[int, Meta(ge=0)] = 0


class RemediationStatus(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    observed_generation: int = 0
    state: Annotated[str, Meta(max_length=32)] = ""
    reason: Annotated[str, Meta(max_length=64)] = ""
    message: Text = ""
    steps: Annotated[tuple[StepStatus, ...], Meta(max_length=32)] = ()
    spare: NodeRef | UnsetType = UNSET
    prior: Annotated[str, Meta(max_length=8_192)] = ""  # JSON of core.prior.Prior
    waits_for: Line = ""
    until: Time = ""
    repair_boot_id: Annotated[str, Meta(max_length=64)] = ""  # bootID when the repair was sent
    quiet_since: Time = ""
    taint_lost: Line = ""  # the last write that lost our taint: its field manager and resourceVersion
    put_backs: Annotated[int, Meta(ge=0, le=100)] = 0  # how often our taint was put back
    raised_by: Line = ""  # the hard fault that joined; from then on the run is hard, whatever began it
    started_at: Time = ""
    finished_at: Time = ""
    evidence: Annotated[str, Meta(max_length=16_384)] = ""  # what `collect` copied
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=16)] = ()


class Remediation(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    api_version: str = API_VERSION
    kind: str = "Remediation"
    metadata: ObjectMeta
    spec: RemediationSpec
    status: RemediationStatus | UnsetType = UNSET
