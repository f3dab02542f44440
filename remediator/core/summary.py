"""The status of pools, playbooks and the policy, as numbers and conditions. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import UNSET

from remediator.core.account import needs_grant
from remediator.core.breaker import FLEET
from remediator.core.budget import limit_of, resolve
from remediator.core.census import Census
from remediator.core.joins.validity import faults_of_joins
from remediator.core.own_keys import not_ours
from remediator.core.people import paused
from remediator.core.validity import faults_of
from remediator.model.instant import write_instant
from remediator.model.ledger import ManagedNodeStatus
from remediator.model.meta import Condition
from remediator.model.playbook import Playbook, PlaybookStatus
from remediator.model.policy import BreakerState, PolicySpec, RemediationPolicy
from remediator.model.pool import PoolStatus, ResourcePool
from remediator.model.remediation import Remediation
from remediator.model.views import NodeView
from remediator.model.words import shortened


def machines_away(ledgers: Mapping[str, ManagedNodeStatus], runs: Iterable[Remediation]) -> Counter[str]:
    """How many machines were taken out of each pool and are not back in service, by pool.

    Args:
        ledgers: the memory of every machine, by its name.
        runs: the open ones.
    """
    away = {machine: ledger.out.pool for machine, ledger in ledgers.items() if ledger.out is not UNSET}
    away |= {run.spec.machine: run.spec.pool for run in runs if not needs_grant(run)}
    return Counter(away.values())


def pool_status(
    pool: ResourcePool,
    census: Census,
    policy: PolicySpec,
    *,
    fit_spares: int,
    away: int,
    overlaps: Mapping[str, str],
    drift: tuple[str, ...],
    shared: tuple[str, ...],
    weak: tuple[str, ...],
    pages: Condition | None,
    now: str,
) -> PoolStatus:
    """What `kubectl get rpool` shows.

    Args:
        fit_spares: nodes of the pool's buffers that could join it now.
        away: machines that were taken out of the pool and are not back in service.
        overlaps: pools that share members with this one, each with what is shared.
        drift: member nodes that lack a part of the projection, sorted; never repaired en masse.
        shared: member nodes whose identity another live Node carries too, sorted.
        weak: member nodes that are known by their Node's uid only, sorted.
        pages: the condition about the exporter pages of its nodes, or None where it has none.
    """
    name = pool.metadata.name
    size, out = census.size(name), len(census.out(name))
    before = pool.status if pool.status is not UNSET else PoolStatus()
    seen = pool.metadata.generation
    ready = _ready(overlaps, not_ours(pool.spec, policy.node_keys))
    judged = (ready, _drift(drift), _identity(shared, weak), pages)
    found = [msgspec.structs.replace(each, observed_generation=seen) for each in judged if each is not None]
    return PoolStatus(
        observed_generation=seen,
        nodes=size,
        serving=size - out,
        not_serving=out,
        limit=resolve(limit_of(pool.spec, policy), size) if pool.spec.role == "Workload" else 0,
        spares=fit_spares,
        out=away,
        conditions=merge_conditions(before.conditions, found, now),
    )


def playbook_status(playbook: Playbook, *, matching: int, active: int, now: str) -> PlaybookStatus:
    """Ready or not, why, and the last good version; an invalid edit leaves that one in force."""
    before = playbook.status if playbook.status is not UNSET else PlaybookStatus()
    faults = faults_of(playbook.spec)
    ready = Condition(
        type="Ready",
        status="False" if faults else "True",
        reason="InvalidSpec" if faults else "Valid",
        message="; ".join(faults)[:1_024],
        observed_generation=playbook.metadata.generation,
    )
    text = before.in_force if faults else msgspec.json.encode(playbook.spec).decode()
    return PlaybookStatus(
        observed_generation=playbook.metadata.generation,
        conditions=merge_conditions(before.conditions, [ready], now),
        in_force=text,
        in_force_generation=before.in_force_generation if faults else playbook.metadata.generation,
        matching=matching,
        active=active,
    )


def policy_conditions(
    policy: RemediationPolicy,
    breakers: Iterable[BreakerState],
    now: datetime,
    pools: Mapping[str, ResourcePool],
) -> tuple[Condition, ...]:
    """Does the policy let new harm through, and what of it is closed? ``breakers`` are those not closed."""
    before = policy.status.conditions if policy.status is not UNSET else ()
    status, reason, message = _permits(policy.spec, tuple(breakers), now)
    ready = Condition(
        type="Ready",
        status=status,
        reason=reason,
        message=message[:1_024],
        observed_generation=policy.metadata.generation,
    )
    found = [ready, *_joins_ready(policy, pools)]
    return merge_conditions(before, found, write_instant(now.replace(microsecond=0)))


def _joins_ready(policy: RemediationPolicy, pools: Mapping[str, ResourcePool]) -> list[Condition]:
    """Are nodes let in by us? No condition where nobody has asked for it."""
    joins = policy.spec.joins
    if joins is UNSET:
        return []
    status: Literal["True", "False"] = "True"
    reason, message = "Enforced", "the join gate of new nodes opens one after another"
    if faults := faults_of_joins(joins, pools):
        status, reason, message = "False", "InvalidSpec", "; ".join(faults)
    elif joins.mode == "Disabled":
        status, reason, message = "False", "Disabled", "no gate is shut, and none is opened"
    elif joins.mode == "Audit" or policy.spec.max_mode != "Enforce":
        reason, message = "Audited", "no node is written; Events say whom Enforce would let in, and when"
    found = Condition(type="JoinsReady", status=status, reason=reason, message=message[:1_024])
    return [msgspec.structs.replace(found, observed_generation=policy.metadata.generation)]


def _permits(
    policy: PolicySpec, breakers: tuple[BreakerState, ...], now: datetime
) -> tuple[Literal["True", "False"], str, str]:
    pause = paused(policy.pause, "policy", now)
    if pause is not None:
        return "False", "Paused", f"{pause}; remediator resume"
    named = ", ".join(f"{each.scope} {each.state}" for each in breakers)
    if any(each.scope == FLEET and each.state == "Open" for each in breakers):
        return "False", "BreakerOpen", f"no new harm anywhere: {named}"
    if breakers:
        return "True", "SomeBreakersOpen", f"no new harm there: {named}"
    if policy.max_mode != "Enforce":
        return "True", f"{policy.max_mode}Only", "spec.maxMode holds every playbook below Enforce"
    return "True", "MayAct", ""


def drifted(node: NodeView, pool: ResourcePool) -> bool:
    """Does a serving member lack a taint or label that its pool projects?"""
    projection = pool.spec.projection
    labels: Mapping[str, str] = projection.labels if projection.labels is not UNSET else {}
    if any(node.labels.get(key) != value for key, value in labels.items()):
        return True
    present = {(taint.key, taint.value, taint.effect) for taint in node.taints}
    return any((taint.key, taint.value, taint.effect) not in present for taint in projection.taints)


def merge_conditions(
    before: tuple[Condition, ...], found: list[Condition], now: str
) -> tuple[Condition, ...]:
    """The new conditions; one whose status did not change keeps its transition time."""
    old = {each.type: each for each in before}
    merged = []
    for each in found:
        last = old.get(each.type)
        kept = last is not None and last.status == each.status and last.last_transition_time
        at = last.last_transition_time if kept and last is not None else now
        merged.append(msgspec.structs.replace(each, last_transition_time=at))
    return tuple(merged)


def _ready(overlaps: Mapping[str, str], keys: tuple[str, ...]) -> Condition:
    if overlaps:
        shared = [f"{what} with {name}" for name, what in sorted(overlaps.items())]
        message = f"shares {shortened(shared, 8)}; nothing is done to nodes of two pools: give each node one"
        return Condition(type="Ready", status="False", reason="PoolOverlap", message=message[:1_024])
    if keys:
        message = f"writes {', '.join(keys)}; list it in RemediationPolicy/cluster spec.nodeKeys"
        return Condition(type="Ready", status="False", reason="KeyNotListed", message=message[:1_024])
    return Condition(type="Ready", status="True", reason="Valid")


def _identity(shared: tuple[str, ...], weak: tuple[str, ...]) -> Condition:
    if shared:
        message = f"{shortened(shared, 8)}: another live Node carries the same identity; both are left alone"
        return _no_identity("IdentityConflict", f"{message}. Give each machine its own asset tag")
    if weak:
        message = f"{shortened(weak, 8)}: known by the Node's uid only; what is remembered ends with the Node"
        return _no_identity("IdentityWeak", f"{message}. Name asset tags")
    return Condition(type="Identity", status="True", reason="Known")


def _no_identity(reason: str, message: str) -> Condition:
    where = "in RemediationPolicy/cluster spec.identity"
    return Condition(type="Identity", status="False", reason=reason, message=f"{message} {where}")


def _drift(nodes: tuple[str, ...]) -> Condition:
    if not nodes:
        return Condition(type="Drift", status="False", reason="AsProjected")
    return Condition(
        type="Drift",
        status="True",
        reason="ProjectionMissing",
        message=f"{shortened(nodes, 8)} lack a part of the projection",
    )
