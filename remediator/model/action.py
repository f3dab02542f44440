"""Everything that the program can write, as values. The writer is the only one who sends them.

``WorldAction`` changes nodes, pods and Jobs; ``RecordAction`` changes our own objects and Events.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct, UnsetType

from remediator.model.ledger import ManagedNode, ManagedNodeStatus
from remediator.model.playbook import PlaybookStatus
from remediator.model.policy import PolicyStatus
from remediator.model.pool import PoolStatus
from remediator.model.remediation import Remediation, RemediationStatus


class Attribution(Struct, frozen=True, gc=False):
    """Who writes: goes into the User-Agent, so that the audit log can prove each rule."""

    term: int
    run: str = ""
    step: str = ""
    attempt: int = 1


class PatchNode(Struct, frozen=True):
    """A merge patch of one Node. ``patch`` has no resourceVersion: the writer adds the precondition.

    A value may be ``msgspec.Raw`` (the taints list, whole).
    """

    name: str
    uid: str
    resource_version: str
    patch: Mapping[str, object]


class EvictPod(Struct, frozen=True, gc=False):
    """An Eviction with the pod's uid as precondition."""

    namespace: str
    name: str
    uid: str


class CreateJob(Struct, frozen=True):
    """A repair Job made from a PodTemplate; the name is the same for one attempt of one run.

    ``env`` and ``labels`` are added to the template's; ``node`` becomes ``spec.nodeName``.
    """

    namespace: str
    name: str
    template: str
    node: str
    labels: Mapping[str, str]
    env: Mapping[str, str]
    deadline_s: int


WorldAction = PatchNode | EvictPod | CreateJob  # what a run does


class SetCondition(Struct, frozen=True, gc=False):
    """One condition of ours in the status of a Node, by a strategic merge; all others stay as they are.

    ``turned``: its status is another one than before.
    """

    name: str
    resource_version: str
    type: str
    status: str
    reason: str
    message: str
    at: datetime
    turned: bool


class CreateRun(Struct, frozen=True):
    run: Remediation


class SaveRun(Struct, frozen=True):
    """Replace the status of one Remediation (merge patch of status, resourceVersion as precondition)."""

    name: str
    resource_version: str
    before: RemediationStatus
    status: RemediationStatus


class DeleteRun(Struct, frozen=True, gc=False):
    """Delete an old record, with uid and resourceVersion as preconditions."""

    name: str
    uid: str
    resource_version: str


class SavePolicy(Struct, frozen=True):
    """The one PUT: status of RemediationPolicy/cluster. ``raw`` is the object as last seen."""

    raw: bytes
    status: PolicyStatus


class CreateLedger(Struct, frozen=True):
    node: ManagedNode


class SaveLedger(Struct, frozen=True):
    name: str
    resource_version: str
    before: ManagedNodeStatus
    status: ManagedNodeStatus


class SavePoolStatus(Struct, frozen=True):
    """``before`` is UNSET where there is no status yet; then every number is written, zeros as well."""

    name: str
    resource_version: str
    before: PoolStatus | UnsetType
    status: PoolStatus


class SavePlaybookStatus(Struct, frozen=True):
    """As ``SavePoolStatus``."""

    name: str
    resource_version: str
    before: PlaybookStatus | UnsetType
    status: PlaybookStatus


EVENT_PERIOD_S = 900


class PublishEvent(Struct, frozen=True, gc=False):
    """One events.k8s.io/v1 Event regarding a Node, in namespace ``default``, with its real uid.

    Of one ``machine`` and ``reason`` there is one in each quarter of an hour.
    """

    machine: str
    node: str
    node_uid: str
    type: str  # Normal | Warning
    reason: str
    action: str
    note: str  # at most 1,024 bytes
    at: datetime
    run: str = ""
    run_uid: str = ""


RecordAction = (
    CreateRun
    | SaveRun
    | DeleteRun
    | SavePolicy
    | CreateLedger
    | SaveLedger
    | SavePoolStatus
    | SavePlaybookStatus
    | PublishEvent
)
