"""Says in plain lines what a playbook does, with the defaults that the file leaves out."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import UNSET

from remediator.model.meta import LabelSelector, Limit
from remediator.model.playbook import Matcher, NodeSelection, Playbook, Step, action_name


def describe(playbook: Playbook) -> str:
    """Write one playbook as aligned lines: what, nodes, when, limits, then the steps in order."""
    spec = playbook.spec
    rows = [
        ("playbook", f"{playbook.metadata.name}: {spec.summary}"),
        ("acts as", f"mode {spec.mode}, {spec.severity} fault {spec.fault_class}, priority {spec.priority}"),
        ("nodes", _nodes(spec.nodes)),
        *(("when", _when(each, spec.fault_class)) for each in spec.match.any_of),
        ("limits", ", ".join(_limits(playbook)) or "the policy's and the pool's"),
        ("no spare", spec.no_spare),
        ("memory", f"{spec.memory}: the same fault again within it goes to people"),
        *((f"step {number}", _step(step)) for number, step in enumerate(spec.steps, start=1)),
    ]
    return "\n".join(f"{name:<10}{text}" for name, text in rows)


def _nodes(nodes: NodeSelection) -> str:
    if nodes.selector is UNSET:
        return "all"
    return ", ".join(_requirements(nodes.selector))


def _requirements(selector: LabelSelector) -> Iterator[str]:
    for key, value in sorted((selector.match_labels or {}).items()):
        yield f"{key}={value}"
    for each in selector.match_expressions:
        yield f"{each.key} {each.operator} {', '.join(each.values)}".strip()


def _when(matcher: Matcher, fault_class: str) -> str:
    if matcher.xid:
        text = "XID " + " or ".join(str(code) for code in matcher.xid.codes)
    elif matcher.gpu_metric:
        text = f"{matcher.gpu_metric.field} {matcher.gpu_metric.op} {matcher.gpu_metric.value:g}"
    elif matcher.node_condition:
        condition = matcher.node_condition
        text = f"{condition.type}={condition.status}"
        if condition.reasons:
            text += f" ({' or '.join(condition.reasons)})"
    else:
        text = "never"
    if matcher.for_:
        text += f" for {matcher.for_}"
    if matcher.fault_class and matcher.fault_class != fault_class:
        text += f", as fault {matcher.fault_class}"
    return text


def _limits(playbook: Playbook) -> Iterator[str]:
    limits = playbook.spec.limits
    if not limits:
        return
    if limits.max_concurrent:
        yield f"{limits.max_concurrent} at once"
    if limits.max_unavailable:
        yield f"{_limit(limits.max_unavailable)} unavailable"
    if limits.rate:
        yield f"{limits.rate.count} in {limits.rate.per}, burst {limits.rate.burst}"


def _limit(limit: Limit) -> str:
    if limit.count is not UNSET:
        return str(limit.count)
    floor = f", at least {limit.at_least}" if limit.at_least else ""
    return f"{limit.percent} %{floor}"


def _step(step: Step) -> str:
    action = action_name(step)
    made = getattr(step, "return_" if action == "return" else action)
    return f"{step.id}: {action} {_words(made)}".rstrip()


def _words(value: msgspec.Struct) -> str:
    said = []
    for each in msgspec.structs.fields(value):
        found = getattr(value, each.name)
        if isinstance(found, msgspec.Struct):
            said.append(f"{each.encode_name} ({_words(found)})")
        elif found is not UNSET:
            shown = str(found).lower() if isinstance(found, bool) else str(found)
            said.append(f"{each.encode_name} {shown}")
    return ", ".join(said)
