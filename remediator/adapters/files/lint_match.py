"""Lint of ``spec.nodes`` and ``spec.match``: would it match anything, and the right thing?"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from msgspec import UNSET, UnsetType

from remediator.adapters.files.gpufields import XID_FIELDS
from remediator.adapters.files.lint_rules import Context, Finding, finding, touches_nodes
from remediator.adapters.files.loader import LoadedObject
from remediator.adapters.files.tree import Path
from remediator.adapters.files.walker import near_miss
from remediator.model.meta import LabelSelector
from remediator.model.playbook import GpuMetricMatch, NodeConditionMatch, Playbook, XidMatch
from remediator.model.policy import RemediationPolicy

# Codes that many tools act on and that are no reason to: what to watch instead.
NEVER_ALONE: Final = MappingProxyType(
    {
        63: "match DCGM_FI_DEV_ROW_REMAP_PENDING == 1 instead: the repair that 63 records waits for a reset",
        94: "leave it out: the program restarts, and DCGM_FI_DEV_ROW_REMAP_PENDING says when to reset",
        154: "match DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION instead: the gauge does not carry 154's text",
    }
)


def is_empty(selector: LabelSelector) -> bool:
    """True if the selector would match every node."""
    return not (selector.match_labels or selector.match_expressions)


def check_selector(loaded: LoadedObject, _context: Context) -> Iterator[Finding]:
    """An empty selector, one that contradicts ``matchAll``, or operators without their values."""
    if isinstance(loaded.value, RemediationPolicy) and loaded.value.spec.exporter:
        exporter = loaded.value.spec.exporter
        yield from _operators(loaded, ("spec", "exporter", "podSelector"), exporter.pod_selector)
        yield from _operators(loaded, ("spec", "exporter", "nodes"), exporter.nodes)
    if not isinstance(loaded.value, Playbook):
        return
    yield from _operators(loaded, ("spec", "nodes", "selector"), loaded.value.spec.nodes.selector)
    nodes = loaded.value.spec.nodes
    chosen = nodes.selector is not UNSET and not is_empty(nodes.selector)
    at: Path = ("spec", "nodes")
    if not chosen and not nodes.match_all:
        fix = "give matchLabels or matchExpressions, or write matchAll: true"
        yield finding("empty-selector", loaded, at, "the selector is empty", fix)
    if chosen and nodes.match_all:
        at = (*at, "matchAll")
        yield finding(
            "selector-and-match-all", loaded, at, "matchAll: true beside a selector", "keep one of them"
        )


def _operators(loaded: LoadedObject, at: Path, selector: LabelSelector | UnsetType) -> Iterator[Finding]:
    for index, each in enumerate(selector.match_expressions if selector else ()):
        here = (*at, "matchExpressions", index, "operator")
        if each.operator in ("In", "NotIn") and not each.values:
            yield finding("selector-values", loaded, here, f"{each.operator} without values", "add values")
        if each.operator in ("Exists", "DoesNotExist") and each.values:
            yield finding("selector-values", loaded, here, f"{each.operator} with values", "remove them")


def check_matchers(loaded: LoadedObject, context: Context) -> Iterator[Finding]:
    """Each matcher: is there such a signal, and does it speak of the node?"""
    if not isinstance(loaded.value, Playbook):
        return
    harmful = touches_nodes(loaded.value)
    seen: set[str] = set()
    for index, matcher in enumerate(loaded.value.spec.match.any_of):
        at: Path = ("spec", "match", "anyOf", index)
        if matcher.id in seen:
            text = f"matcher id {matcher.id!r} stands twice"
            yield finding("duplicate-id", loaded, (*at, "id"), text, "rename one of them")
        seen.add(matcher.id)
        if matcher.xid is not UNSET:
            yield from _xid(loaded, (*at, "xid"), matcher.xid, context, harmful)
            if matcher.for_ is not UNSET:
                text = "`for` on an xid matcher waits for nothing"
                yield finding("xid-for", loaded, (*at, "for"), text, "remove it: a code counts at once")
        if matcher.node_condition is not UNSET:
            yield from _condition(loaded, (*at, "nodeCondition"), matcher.node_condition, context)
        if matcher.gpu_metric is not UNSET:
            yield from _metric(loaded, (*at, "gpuMetric"), matcher.gpu_metric, context)


def _xid(
    loaded: LoadedObject, at: Path, match: XidMatch, context: Context, harmful: bool
) -> Iterator[Finding]:
    for index, code in enumerate(match.codes):
        entry = context.xids.get(code)
        here = (*at, "codes", index)
        if entry is None:
            fix = f"known codes are {min(context.xids)} to {max(context.xids)}" if context.xids else ""
            yield finding("xid-unknown", loaded, here, f"XID {code} is not in the catalogue", fix)
            continue
        named = f"XID {code} ({entry.mnemonic})"
        if not harmful:
            continue  # telling people is fine on any known code
        if code in NEVER_ALONE:
            yield finding(
                "xid-never-alone", loaded, here, f"{named} alone is no reason to act", NEVER_ALONE[code]
            )
        elif entry.standing == "Application":
            text = f"{named} is the application's fault"
            yield finding("xid-application", loaded, here, text, "leave it out, or only report it")
        elif entry.standing == "Hint":
            text = f"{named} may have its cause elsewhere"
            yield finding(
                "xid-hint", loaded, here, text, "pair it with a condition or metric, or only report it"
            )
        elif entry.standing == "Unspecified":
            text = f"{named} has no documented action"
            yield finding("xid-unspecified", loaded, here, text, "only report it, or hand off to people")


def _condition(
    loaded: LoadedObject, at: Path, match: NodeConditionMatch, context: Context
) -> Iterator[Finding]:
    good = context.polarity.get(match.type)
    if good is None:
        meant = near_miss(match.type, context.polarity)
        fix = f"did you mean {meant}?" if meant else "add it to the policy's spec.conditions"
        text = f"nobody is known to publish condition {match.type}"
        yield finding("condition-unknown", loaded, (*at, "type"), text, fix)
    elif good == match.status:
        bad = "False" if good == "True" else "True"
        text = f"{match.type}={match.status} is the good status"
        yield finding("condition-is-good", loaded, (*at, "status"), text, f'write status: "{bad}"')


def _metric(loaded: LoadedObject, at: Path, match: GpuMetricMatch, context: Context) -> Iterator[Finding]:
    at = (*at, "field")
    if match.field in XID_FIELDS:
        text = f"{match.field} holds a code, not a measure"
        yield finding("metric-is-xid", loaded, at, text, "write xid: {codes: […]} instead")
    elif match.field not in context.metric_fields:
        meant = near_miss(match.field, context.metric_fields)
        fix = f"did you mean {meant}?" if meant else "check the exporter's CSV"
        yield finding("metric-unknown", loaded, at, f"no exporter is known to publish {match.field}", fix)
