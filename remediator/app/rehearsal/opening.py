"""Turns what a Fleet file and a story give into the objects that the story begins with. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from remediator.adapters.files.testfile import (
    Given,
    GivenBudget,
    GivenCondition,
    GivenLedger,
    GivenNodes,
    GivenPod,
    GivenPool,
    Repairs,
)
from remediator.core.own_keys import keys_of
from remediator.model.ledger import ManagedNode
from remediator.model.meta import ObjectMeta, Taint
from remediator.model.policy import PolicySpec
from remediator.model.pool import PoolSpec, ResourcePool
from remediator.model.remediation import Remediation
from remediator.model.views import ConditionView, NodeView, TaintView

GPUS: int = 8
READY = ConditionView("Ready", "True", "KubeletReady")


@dataclass(frozen=True, slots=True)
class Opening:
    """The fleet at the start. Everything by name but pods and budgets."""

    nodes: Mapping[str, NodeView]
    pools: Mapping[str, ResourcePool]
    policy: PolicySpec
    pods: tuple[GivenPod, ...]
    budgets: tuple[GivenBudget, ...]
    ledgers: Mapping[str, ManagedNode]
    runs: Mapping[str, Remediation]
    repairs: Repairs


@dataclass(slots=True)
class _Draft:
    nodes: dict[str, NodeView] = field(default_factory=dict)
    pools: dict[str, ResourcePool] = field(default_factory=dict)
    pods: dict[tuple[str, str], GivenPod] = field(default_factory=dict)
    budgets: dict[tuple[str, str], GivenBudget] = field(default_factory=dict)
    ledgers: dict[str, ManagedNode] = field(default_factory=dict)
    runs: dict[str, Remediation] = field(default_factory=dict)
    repairs: Repairs = field(default_factory=Repairs)


def open_fleet(givens: Iterable[Given], policies: Iterable[object]) -> Opening:
    """Lay several layers of what is given over each other, the later ones on top.

    Args:
        givens: the fleet first, then what a story changes in it.
        policies: the policy's keys of each layer as they stand in its file, plain values: an
            absent key says nothing, whatever its default.

    Raises:
        ValueError: a node names a pool that is not given; the message says which.
    """
    draft = _Draft()
    for given in givens:
        _lay(draft, given)
    merged: dict[str, object] = {}
    for keys in policies:
        merged |= keys if isinstance(keys, dict) else {}
    # Which keys the account may write is the cluster's affair, and no part of a playbook.
    merged.setdefault("nodeKeys", sorted(frozenset[str]().union(*map(_keys, draft.pools.values()))))
    return Opening(
        nodes=draft.nodes,
        pools=draft.pools,
        policy=msgspec.convert(merged, PolicySpec),
        pods=tuple(pod for pod in draft.pods.values() if pod.node in draft.nodes),
        budgets=tuple(draft.budgets.values()),
        ledgers=draft.ledgers,
        runs=draft.runs,
        repairs=draft.repairs,
    )


def _keys(pool: ResourcePool) -> frozenset[str]:
    return keys_of(pool.spec)


def _lay(draft: _Draft, given: Given) -> None:
    draft.pools |= {each.name: _pool(each) for each in given.pools}
    for group in given.nodes:
        for name in group.names:
            if group.gone:
                draft.nodes.pop(name, None)
            else:
                draft.nodes[name] = _node(draft, name, group)
    draft.pods |= {(each.namespace, each.name): each for each in given.pods}
    draft.budgets |= {(each.namespace, each.name): each for each in given.budgets}
    draft.ledgers |= {each.machine: _ledger(each) for each in given.ledgers}
    draft.runs |= {each.metadata.name: each for each in given.runs}
    if given.repairs is not UNSET:
        draft.repairs = given.repairs


def _pool(given: GivenPool) -> ResourcePool:
    return ResourcePool(metadata=ObjectMeta(name=given.name, uid=f"pool-{given.name}"), spec=given.spec)


def _ledger(given: GivenLedger) -> ManagedNode:
    metadata = ObjectMeta(name=given.machine, uid=f"ledger-{given.machine}")
    return ManagedNode(metadata=metadata, status=given.status)


def _node(draft: _Draft, name: str, group: GivenNodes) -> NodeView:
    node = draft.nodes.get(name) or NodeView(
        name=name,
        uid=f"uid-{name}",
        resource_version="1",
        created_at="2025-12-01T00:00:00Z",
        conditions=(READY,),
        system_uuid=name,
        boot_id=f"{name}-boot-1",
        gpus=GPUS,
    )
    labels, annotations, taints = dict(node.labels), dict(node.annotations), list(node.taints)
    if group.pool is not UNSET:
        if group.pool not in draft.pools:
            raise ValueError(f"node {name}: pool {group.pool!r} is not given")
        _join(draft.pools[group.pool].spec, labels, annotations, taints)
    labels |= group.labels or {}
    annotations |= group.annotations or {}
    taints += [view_taint(each) for each in group.taints]
    return with_taints(
        replace(
            node,
            labels=labels,
            annotations=annotations,
            conditions=_conditions(node.conditions, group.conditions),
            gpus=node.gpus if group.gpus is UNSET else group.gpus,
            unschedulable=node.unschedulable if group.cordoned is UNSET else group.cordoned,
            system_uuid=node.system_uuid if group.machine is UNSET else group.machine,
        ),
        taints,
    )


def _join(
    pool: PoolSpec, labels: dict[str, str], annotations: dict[str, str], taints: list[TaintView]
) -> None:
    labels[pool.membership.key] = pool.membership.value
    labels |= pool.projection.labels or {}
    annotations |= pool.projection.annotations or {}
    taints += [view_taint(each) for each in pool.projection.taints]


def view_taint(taint: Taint) -> TaintView:
    return TaintView(key=taint.key, effect=taint.effect, value=taint.value)


def with_taints(node: NodeView, taints: Iterable[TaintView]) -> NodeView:
    """The node with exactly these taints, each key and effect once, the last one standing."""
    kept = {(each.key, each.effect): each for each in taints}
    return replace(node, taints=tuple(kept.values()), taints_raw=msgspec.json.encode(tuple(kept.values())))


def _conditions(
    old: tuple[ConditionView, ...], given: tuple[GivenCondition, ...]
) -> tuple[ConditionView, ...]:
    for each in given:
        old = with_condition(old, ConditionView(each.type, each.status, each.reason))
    return old


def with_condition(old: tuple[ConditionView, ...], new: ConditionView) -> tuple[ConditionView, ...]:
    """The conditions with one of them set, in the order of first appearance."""
    found = {each.type: each for each in old}
    found[new.type] = new
    return tuple(found.values())
