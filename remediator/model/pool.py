"""The ResourcePool: a set of nodes that do one job, divided from others by taints."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from remediator.model.joins import PoolJoins
from remediator.model.keys import API_VERSION
from remediator.model.meta import (
    Condition,
    Count,
    Labels,
    LabelValue,
    Limit,
    Line,
    Mode,
    Name,
    ObjectMeta,
    Pause,
    PositiveCount,
    QualifiedName,
    Taint,
)


class Membership(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The one label that makes a node a member; a hand-over writes it."""

    key: QualifiedName
    value: LabelValue


class Projection(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a member looks like. Written at hand-over, detach and return, never as a mass write."""

    labels: Labels | UnsetType = UNSET
    annotations: Annotated[dict[QualifiedName, Line], Meta(max_length=32)] | UnsetType = UNSET
    taints: Annotated[tuple[Taint, ...], Meta(max_length=16)] = ()


class HardwareClass(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a spare must equal: GPUs in all, and the values of these labels on both nodes.

    ``driver`` names the label that carries the driver version, where one is published.
    """

    gpus: Annotated[int, Meta(ge=0, le=1_024)]
    labels: Annotated[tuple[QualifiedName, ...], Meta(max_length=16)] = ()
    driver: Annotated[str, Meta(max_length=317)] = ""

    @property
    def compared(self) -> tuple[str, ...]:
        """Every label whose value is the same on two nodes of the class."""
        return (*self.labels, self.driver) if self.driver else self.labels


class TopologyLevel(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A label that names a domain; levels stand from the widest to the narrowest."""

    key: QualifiedName
    match: Literal["Required", "Preferred"] = "Preferred"


class PoolSpec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    role: Literal["Workload", "Buffer", "Repair"]
    membership: Membership
    projection: Projection = Projection()
    hardware_class: HardwareClass | UnsetType = UNSET
    topology: Annotated[tuple[TopologyLevel, ...], Meta(max_length=8)] = ()
    buffers: Annotated[tuple[Name, ...], Meta(max_length=8)] = ()  # empty: any Buffer pool
    max_mode: Mode = "Enforce"
    max_unavailable: Limit | UnsetType = UNSET
    max_concurrent: PositiveCount | UnsetType = UNSET
    spares_wanted: Count = 0
    joins: PoolJoins | UnsetType = UNSET
    pause: Pause | UnsetType = UNSET


class PoolStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """Numbers are written even where they are zero: a blank column would look like "not known"."""

    observed_generation: int = 0
    nodes: Count = 0
    serving: Count = 0
    not_serving: Count = 0
    limit: Count = 0
    spares: Count = 0
    out: Count = 0
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=8)] = ()


class ResourcePool(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    api_version: str = API_VERSION
    kind: str = "ResourcePool"
    metadata: ObjectMeta
    spec: PoolSpec
    status: PoolStatus | UnsetType = UNSET
