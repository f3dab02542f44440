"""What we keep of Kubernetes' own objects: frozen projections, a few hundred bytes each.

Only the fields that a decision reads. Times are RFC 3339 text as the server wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from msgspec import Struct

EMPTY: Final[Mapping[str, str]] = {}


class TaintView(Struct, frozen=True, gc=False):
    key: str
    effect: str
    value: str = ""


class ConditionView(Struct, frozen=True, gc=False):
    """One node condition. Heartbeat and transition times are dropped: the clock is ours."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class Rewrite(Struct, frozen=True, gc=False):
    """The field manager that wrote the taints without ours, and the resourceVersion of that write."""

    manager: str
    version: str

    @property
    def text(self) -> str:
        return f"{self.manager} at {self.version}"


class NodeView(Struct, frozen=True):
    """One Node.

    ``labels`` are all labels, ``annotations`` the ones that start with our group or are named by
    the policy (identity, foreign marks). ``taints_raw`` is the JSON array of ``spec.taints`` byte
    for byte, so that fields which we do not know survive our patch. ``conditions`` holds each type
    once; where the server had a type twice, the worse one. ``gpus`` is the allocatable count of
    each extended resource that the policy names as a GPU. ``rewrite``: who took our taint away, where
    a live watch showed it and it is still away.
    """

    name: str
    uid: str
    resource_version: str
    created_at: str = ""
    labels: Mapping[str, str] = EMPTY
    annotations: Mapping[str, str] = EMPTY
    unschedulable: bool = False
    taints: tuple[TaintView, ...] = ()
    taints_raw: bytes = b"[]"
    conditions: tuple[ConditionView, ...] = ()
    provider_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    addresses: tuple[tuple[str, str], ...] = ()  # (type, address)
    gpus: int = 0
    deleting: bool = False
    rewrite: Rewrite | None = None

    def condition(self, type_: str) -> ConditionView | None:
        return next((each for each in self.conditions if each.type == type_), None)

    @property
    def ready(self) -> bool:
        found = self.condition("Ready")
        return found is not None and found.status == "True"

    def taint(self, key: str) -> TaintView | None:
        return next((each for each in self.taints if each.key == key), None)


class PodView(Struct, frozen=True, gc=False):
    """One pod bound to a node. ``owner`` is the controller, as (kind, name, uid), or empty text."""

    namespace: str
    name: str
    uid: str
    node: str
    phase: str = "Running"
    created_at: str = ""
    owner_kind: str = ""
    owner_name: str = ""
    owner_uid: str = ""
    priority: int = 0
    priority_class: str = ""
    qos: str = "BestEffort"
    labels: Mapping[str, str] = EMPTY
    annotations: Mapping[str, str] = EMPTY
    grace_s: int = 30
    deleting: bool = False
    mirror: bool = False
    empty_dir: bool = False
    gpus: int = 0
    tolerates_all: bool = False
    ready: bool = True

    @property
    def finished(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class PdbView(Struct, frozen=True, gc=False):
    """One PodDisruptionBudget, for naming who blocks a drain; the server alone decides."""

    namespace: str
    name: str
    disruptions_allowed: int
    match_labels: Mapping[str, str] = EMPTY


class LeaseView(Struct, frozen=True, gc=False):
    """The heartbeat of one kubelet: how old it was by the server's clock, and how old it may grow."""

    age_s: float
    duration_s: float


class EventView(Struct, frozen=True, gc=False):
    """When an Event was last seen, None where it carries no time, and the Event as one line."""

    at: datetime | None
    line: str


class JobView(Struct, frozen=True, gc=False):
    """One repair Job of ours."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str] = EMPTY
    succeeded: bool = False
    failed: bool = False
    message: str = ""
