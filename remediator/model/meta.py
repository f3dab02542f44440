"""Shared parts of the custom resources: metadata, conditions, bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from remediator.model.duration import Duration

NAME_MAX: Final = 63
TEXT_MAX: Final = 1_024
LINE_MAX: Final = 256

Name = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
Id = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
FaultClass = Annotated[str, Meta(min_length=1, max_length=48, pattern=r"^[a-z]([-a-z0-9.]*[a-z0-9])?$")]
QualifiedName = Annotated[str, Meta(min_length=1, max_length=317)]
LabelValue = Annotated[str, Meta(max_length=63)]
PoolName = Annotated[str, Meta(max_length=63)]
Line = Annotated[str, Meta(max_length=LINE_MAX)]
Text = Annotated[str, Meta(max_length=TEXT_MAX)]
Time = Annotated[
    str, Meta(max_length=32, description="RFC 3339, UTC.", extra_json_schema={"format": "date-time"})
]
Labels = Annotated[dict[QualifiedName, LabelValue], Meta(max_length=64)]
Percent = Annotated[int, Meta(ge=1, le=100)]
Count = Annotated[int, Meta(ge=0, le=10_000)]
PositiveCount = Annotated[int, Meta(ge=1, le=10_000)]

Mode = Literal["Disabled", "Audit", "Enforce"]
SeverityName = Literal["Hard", "Soft"]


class ObjectMeta(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The part of metadata that we read and write."""

    name: str
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: Mapping[str, str] | UnsetType = UNSET
    annotations: Mapping[str, str] | UnsetType = UNSET


class Condition(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A status condition as the Kubernetes API conventions have it."""

    type: Annotated[str, Meta(min_length=1, max_length=64)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z]([A-Za-z0-9]*)?$")]
    message: Text = ""
    last_transition_time: Time = ""
    observed_generation: int = 0


class Pause(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A person's stop sign on a policy, a pool or a playbook."""

    by: Line = ""
    reason: Line = ""
    until: Time = ""


class Limit(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A number of nodes: ``count``, or ``percent`` of the pool rounded down and then ``atLeast``."""

    count: Count | UnsetType = UNSET
    percent: Percent | UnsetType = UNSET
    at_least: Count = 0


class Rate(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A token bucket: ``count`` grants in ``per``, at most ``burst`` at once."""

    count: PositiveCount
    per: Duration
    burst: PositiveCount = 1


class LabelRequirement(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    key: QualifiedName
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[tuple[LabelValue, ...], Meta(max_length=32)] = ()


class LabelSelector(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    match_labels: Labels | UnsetType = UNSET
    match_expressions: Annotated[tuple[LabelRequirement, ...], Meta(max_length=16)] = ()


class Taint(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    key: QualifiedName
    value: LabelValue = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
