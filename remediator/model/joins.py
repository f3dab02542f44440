"""How new nodes join: the taint that keeps them closed, how fast they are let in, and the books of that."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from remediator.model.duration import Duration
from remediator.model.meta import Count, Mode, Percent, PoolName, PositiveCount, QualifiedName, Rate, Time

RELEASING_MAX: Final = 64
SLOTS_MAX: Final = 64  # of the growth window: a minute each
JOIN_RATES_MAX: Final = 64
# Cluster Autoscaler sees a node with a taint of this prefix as one that still starts, without any flag.
GATE_KEY: Final = "startup-taint.cluster-autoscaler.kubernetes.io/remediator"

DaemonSetName = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=317,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
    ),
]
DaemonSets = Annotated[tuple[DaemonSetName, ...], Meta(max_length=32)]


class Growth(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """At most ``percent`` of the nodes that are in within any window, once there are ``above`` of them."""

    percent: Percent = 10
    within: Duration = "10m"
    above: Count = 200


class JoinsSpec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How new nodes are let in.

    ``gate`` is the key of the startup taint, effect NoSchedule. ``rate`` holds for the whole cluster;
    pools have their own besides. ``daemonSets`` (NAMESPACE/NAME) have to run on a node before it is let
    in. A node that is not in by ``deadline`` after its creation is reported, and never let in for that.
    """

    mode: Mode = "Audit"
    gate: QualifiedName = GATE_KEY
    rate: Rate = Rate(count=20, per="1m", burst=10)
    max_initialising: PositiveCount = 50
    growth: Growth = Growth()
    deadline: Duration = "30m"
    daemon_sets: DaemonSets = ()


class PoolJoins(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What holds for the new nodes of one pool, besides what holds for all."""

    rate: Rate | UnsetType = UNSET
    max_initialising: PositiveCount | UnsetType = UNSET
    daemon_sets: DaemonSets = ()


class JoinRate(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A token bucket's level at one instant; ``pool`` is empty for the whole cluster."""

    pool: PoolName = ""
    tokens: float
    at: Time


class Release(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A node that may be let in: its token is paid."""

    node: Annotated[str, Meta(max_length=253)]
    uid: Annotated[str, Meta(max_length=36)]
    pool: PoolName = ""
    at: Time


class Slot(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How many nodes were let in within the minute that began then."""

    at: Time
    count: Count


class JoinsStatus(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The books: they outlive the process.

    ``gate`` is the key in force, ``since`` when it came into force: older nodes are never gated.
    ``releasing`` are paid and not yet seen to be in. In Audit these are what would have been let in.
    """

    mode: Literal["", "Audit", "Enforce"] = ""
    gate: Annotated[str, Meta(max_length=317)] = ""
    since: Time = ""
    term: Annotated[int, Meta(ge=0)] = 0
    rates: Annotated[tuple[JoinRate, ...], Meta(max_length=JOIN_RATES_MAX)] = ()
    releasing: Annotated[tuple[Release, ...], Meta(max_length=RELEASING_MAX)] = ()
    let_in: Annotated[tuple[Slot, ...], Meta(max_length=SLOTS_MAX)] = ()
