"""The ManagedNode: a sparse memory, one object per machine with a story.

No object means: active, healthy, no history. ``status`` is the controller's, ``spec`` a person's.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from remediator.model.keys import API_VERSION
from remediator.model.meta import Condition, FaultClass, Line, ObjectMeta, PoolName, Time

HISTORY_MAX = 20
LATCHES_MAX = 64


class Adopt(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A person says: this machine is known to be out, until then."""

    until: Time
    by: Line = ""
    reason: Line = ""


class ManualRequest(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A person asks for a playbook on this machine. ``at`` makes two requests different.

    ``returnTo``: of the playbook only what proves the machine, which an ended run keeps out, and gives
    it back: to this pool.
    """

    playbook: Annotated[str, Meta(min_length=1, max_length=253)]
    return_to: PoolName = ""
    plan_hash: Annotated[str, Meta(max_length=16)] = ""
    by: Annotated[str, Meta(min_length=1, max_length=256)]
    at: Time


class ManagedNodeSpec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    adopt: Adopt | UnsetType = UNSET
    request: ManualRequest | UnsetType = UNSET


class BlockedRequest(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A request that waits for its grant, and the gate that holds it."""

    fault_class: FaultClass
    playbook: Annotated[str, Meta(max_length=253)]
    since: Time
    blocked_by: Annotated[str, Meta(max_length=64)]
    numbers: Line = ""


class SuspicionRecord(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Our own first-seen clock of one signal, so that a restart does not reset it."""

    playbook: Annotated[str, Meta(max_length=253)]
    matcher: Annotated[str, Meta(max_length=32)]
    node_uid: Annotated[str, Meta(max_length=36)]
    first_seen: Time


class Latch(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An XID that we know of, bound to GPU and boot. ``Baseline``: it stood there when we came."""

    gpu: Annotated[str, Meta(max_length=64)]
    code: Annotated[int, Meta(ge=1, le=999)]
    boot_id: Annotated[str, Meta(max_length=64)]
    node_uid: Annotated[str, Meta(max_length=36)]
    state: Literal["Baseline", "Fault"]
    at: Time


class Strike(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A repair of one fault class; the repair memory counts these."""

    fault_class: FaultClass
    at: Time
    repair: Annotated[str, Meta(max_length=64)] = ""


class Out(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The machine is kept out by an ended run: custody of our taint."""

    run: Annotated[str, Meta(max_length=72)]
    since: Time
    fault_class: FaultClass
    reason: Annotated[str, Meta(max_length=64)] = ""
    pool: Annotated[str, Meta(max_length=63)] = ""


class HistoryEntry(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    run: Annotated[str, Meta(max_length=72)]
    fault_class: FaultClass
    outcome: Annotated[str, Meta(max_length=32)]
    at: Time


class ManagedNodeStatus(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    observed_generation: int = 0
    node: Annotated[str, Meta(max_length=253)] = ""
    node_uid: Annotated[str, Meta(max_length=36)] = ""
    identity: Annotated[str, Meta(max_length=253)] = ""
    state: Annotated[str, Meta(max_length=16)] = ""  # Active, Remediating, Out, Probation, Retired
    runs: Annotated[int, Meta(ge=0)] = 0  # highest n of <machine>-<n>
    request: BlockedRequest | UnsetType = UNSET
    suspicions: Annotated[tuple[SuspicionRecord, ...], Meta(max_length=32)] = ()
    latches: Annotated[tuple[Latch, ...], Meta(max_length=LATCHES_MAX)] = ()
    strikes: Annotated[tuple[Strike, ...], Meta(max_length=HISTORY_MAX)] = ()
    out: Out | UnsetType = UNSET
    veto_until: Time = ""
    veto_by: Line = ""
    probation_until: Time = ""
    request_done: Time = ""  # `at` of the last manual request that was answered
    history: Annotated[tuple[HistoryEntry, ...], Meta(max_length=HISTORY_MAX)] = ()
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=8)] = ()


class ManagedNode(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    api_version: str = API_VERSION
    kind: str = "ManagedNode"
    metadata: ObjectMeta
    spec: ManagedNodeSpec = ManagedNodeSpec()
    status: ManagedNodeStatus | UnsetType = UNSET
