"""Lint across playbooks: who owns a fault, and does everybody get a turn?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from msgspec import UNSET

from remediator.adapters.files.lint_rules import Context, Finding, finding
from remediator.adapters.files.loader import LoadedObject
from remediator.core.dcgm import old_name
from remediator.model.meta import LabelRequirement
from remediator.model.playbook import NodeSelection, Playbook

Signal = tuple[str, ...]
Owner = tuple[LoadedObject, Playbook]


def requirements(nodes: NodeSelection) -> frozenset[LabelRequirement]:
    """A selection as requirements that all must hold; empty matches every node."""
    if nodes.match_all or nodes.selector is UNSET:
        return frozenset()
    made = {
        LabelRequirement(key=key, operator="In", values=(value,))
        for key, value in (nodes.selector.match_labels or {}).items()
    }
    for each in nodes.selector.match_expressions:
        made.add(LabelRequirement(key=each.key, operator=each.operator, values=tuple(sorted(each.values))))
    return frozenset(made)


def may_overlap(one: NodeSelection, other: NodeSelection) -> bool:
    """False only if no node can match both."""
    return not any(_exclude(a, b) for a in requirements(one) for b in requirements(other) if a.key == b.key)


def _exclude(a: LabelRequirement, b: LabelRequirement) -> bool:
    first, second = sorted((a, b), key=lambda each: each.operator)
    match first.operator, second.operator:
        case "In", "In":
            return not set(first.values) & set(second.values)
        case "In", "NotIn":
            return set(first.values) <= set(second.values)
        case "DoesNotExist", "Exists" | "In":
            return True
        case _:
            return False


def signals(playbook: Playbook) -> frozenset[Signal]:
    """What the playbook looks at, one entry per XID code, metric comparison or condition."""
    found: set[Signal] = set()
    for matcher in playbook.spec.match.any_of:
        if matcher.xid:
            found |= {("XID", str(code)) for code in matcher.xid.codes}
        if matcher.gpu_metric:
            metric = matcher.gpu_metric
            found.add(("metric", old_name(metric.field), metric.op, f"{metric.value:g}"))
        if matcher.node_condition:
            condition = matcher.node_condition
            found.add(("condition", f"{condition.type}={condition.status}", *sorted(condition.reasons)))
    return frozenset(found)


def fault_classes(playbook: Playbook) -> frozenset[str]:
    """The fault classes that the playbook may raise."""
    return frozenset(
        matcher.fault_class or playbook.spec.fault_class for matcher in playbook.spec.match.any_of
    )


def check_owners(context: Context) -> Iterator[Finding]:
    """Every pair of playbooks that are not Disabled and whose nodes may be the same."""
    active = [each for each in context.playbooks() if each[1].spec.mode != "Disabled"]
    for one, other in combinations(active, 2):
        if may_overlap(one[1].spec.nodes, other[1].spec.nodes):
            low, high = sorted((one, other), key=lambda owner: owner[1].spec.priority)
            if low is other and one[1].spec.priority == other[1].spec.priority:
                low, high = one, other
            yield from _pair(low, high)


def _pair(low: Owner, high: Owner) -> Iterator[Finding]:
    loaded, playbook = low
    other, owner = high
    named = f"{other.name!r} (priority {owner.spec.priority}, {other.path}:{other.tree.line})"
    higher = playbook.spec.priority < owner.spec.priority
    covers = requirements(owner.spec.nodes) <= requirements(playbook.spec.nodes)
    if higher and covers and signals(playbook) <= signals(owner):
        text = f"never gets a turn: {named} sees all its signals on all its nodes"
        yield finding(
            "shadowed", loaded, ("spec", "priority"), text, "raise the priority, or remove one of them"
        )
        return
    shared_classes = sorted(fault_classes(playbook) & fault_classes(owner))
    if shared_classes:
        text = f"fault class {shared_classes[0]} is {named}'s too, on nodes that may be the same"
        rule, fix = (
            ("class-shared", "give it a class of its own, or merge the two")
            if higher
            else ("class-owned-twice", "give one of them a higher priority or a class of its own")
        )
        yield finding(rule, loaded, ("spec", "faultClass"), text, fix)
        return
    shared = sorted(signals(playbook) & signals(owner))
    if shared:
        text = f"{' '.join(shared[0])} is matched by {named} too, under another fault class"
        yield finding("signal-shared", loaded, ("spec", "match"), text, "leave it to one of them")
