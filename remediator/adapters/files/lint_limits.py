"""Lint of numbers: durations that are zero or in the wrong order, limits that allow nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from remediator.adapters.files.lint_rules import Context, Finding, finding, touches_nodes
from remediator.adapters.files.loader import LoadedObject
from remediator.adapters.files.tree import Path
from remediator.core.joins.validity import faults_of_joins
from remediator.core.silence import is_silence
from remediator.model.duration import seconds
from remediator.model.meta import Limit
from remediator.model.playbook import Playbook, PlaybookSpec
from remediator.model.policy import RemediationPolicy
from remediator.model.pool import ResourcePool

# A cut network is heard node by node: kubelets renew every 10 s, node lifecycle looks every 5 s and
# marks some twenty nodes a second. What acts sooner acts on the first node, as if it were the only one.
SILENCE_S_MIN: Final = 30
SPEC_BYTES_MAX: Final = 32_768  # of status.inForce and of the copy that a run carries

# By action and field: durations that make no sense at zero.
_ABOVE_ZERO: Final = (
    ("collect", "events_window"),
    ("swap", "timeout"),
    ("drain", "deadline"),
    ("drain", "protect_deadline"),
    ("verify", "quiet_for"),
    ("verify", "timeout"),
)

# (action, shorter, longer, may be equal)
_SHORTER: Final = (
    ("drain", "deadline", "protect_deadline", True),
    ("verify", "quiet_for", "timeout", False),
)

_SPELLED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "events_window": "eventsWindow",
        "protect_deadline": "protectDeadline",
        "quiet_for": "quietFor",
    }
)


def check_durations(loaded: LoadedObject, _context: Context) -> Iterator[Finding]:
    """Durations of one object."""
    if isinstance(loaded.value, Playbook):
        yield from _step_durations(loaded, loaded.value)
        yield from _playbook_durations(loaded, loaded.value)
    elif isinstance(loaded.value, RemediationPolicy):
        yield from _policy_durations(loaded, loaded.value)


def _zero(loaded: LoadedObject, at: Path, text: str) -> Iterator[Finding]:
    if seconds(text) == 0:
        yield finding("zero-duration", loaded, at, f"{at[-1]} is {text}", "write a duration above zero")


def _step_durations(loaded: LoadedObject, playbook: Playbook) -> Iterator[Finding]:
    for index, step in enumerate(playbook.spec.steps):
        at: Path = ("spec", "steps", index)
        for action, name in _ABOVE_ZERO:
            made = getattr(step, action)
            if made is not UNSET:
                yield from _zero(loaded, (*at, action, _SPELLED.get(name, name)), getattr(made, name))
        for action, shorter, longer, equal in _SHORTER:
            made = getattr(step, action)
            if made is UNSET:
                continue
            short, long = getattr(made, shorter), getattr(made, longer)
            if seconds(short) > seconds(long) or (not equal and seconds(short) == seconds(long)):
                names = _SPELLED.get(shorter, shorter), _SPELLED.get(longer, longer)
                text = f"{names[0]} {short} is not below {names[1]} {long}"
                yield finding("duration-order", loaded, (*at, action, names[0]), text, f"raise {names[1]}")
        if step.repair and step.repair.job:
            yield from _zero(loaded, (*at, "repair", "job", "timeout"), step.repair.job.timeout)


def _playbook_durations(loaded: LoadedObject, playbook: Playbook) -> Iterator[Finding]:
    spec = playbook.spec
    yield from _zero(loaded, ("spec", "memory"), spec.memory)
    if spec.limits and spec.limits.rate:
        yield from _zero(loaded, ("spec", "limits", "rate", "per"), spec.limits.rate.per)
    for index, matcher in enumerate(spec.match.any_of):
        if matcher.for_ and seconds(matcher.for_) >= seconds(spec.memory):
            at: Path = ("spec", "match", "anyOf", index, "for")
            text = f"for {matcher.for_} is not below memory {spec.memory}"
            yield finding("duration-order", loaded, at, text, "raise spec.memory")
    if touches_nodes(playbook):
        yield from _early_silence(loaded, spec)


def _early_silence(loaded: LoadedObject, spec: PlaybookSpec) -> Iterator[Finding]:
    for index, matcher in enumerate(spec.match.any_of):
        waits = seconds(matcher.for_) if matcher.for_ else 0
        if is_silence(matcher) and waits < SILENCE_S_MIN:
            at: Path = ("spec", "match", "anyOf", index)
            text = f"acts {waits} s after a kubelet fell silent; a cut zone takes longer to be seen as one"
            yield finding("early-silence", loaded, at, text, f"write for: {SILENCE_S_MIN}s, or more")


def _policy_durations(loaded: LoadedObject, policy: RemediationPolicy) -> Iterator[Finding]:
    spec = policy.spec
    yield from _zero(loaded, ("spec", "rate", "per"), spec.rate.per)
    yield from _zero(loaded, ("spec", "breaker", "within"), spec.breaker.within)
    yield from _zero(loaded, ("spec", "breaker", "quiet"), spec.breaker.quiet)
    if spec.exporter:
        yield from _zero(loaded, ("spec", "exporter", "period"), spec.exporter.period)
        yield from _zero(loaded, ("spec", "exporter", "timeout"), spec.exporter.timeout)
        if seconds(spec.exporter.timeout) > seconds(spec.exporter.period):
            text = f"timeout {spec.exporter.timeout} is above period {spec.exporter.period}"
            at: Path = ("spec", "exporter", "timeout")
            yield finding("duration-order", loaded, at, text, "raise period, or lower timeout")


def check_limits(loaded: LoadedObject, context: Context) -> Iterator[Finding]:
    """Limits that allow no node at all."""
    value = loaded.value
    if isinstance(value, Playbook) and value.spec.limits:
        yield from _limit(
            loaded, ("spec", "limits", "maxUnavailable"), value.spec.limits.max_unavailable, context
        )
    elif isinstance(value, ResourcePool):
        yield from _limit(loaded, ("spec", "maxUnavailable"), value.spec.max_unavailable, context)
    elif isinstance(value, RemediationPolicy):
        yield from _limit(loaded, ("spec", "maxUnavailable"), value.spec.max_unavailable, context)
        yield from _limit(loaded, ("spec", "poolMaxUnavailable"), value.spec.pool_max_unavailable, context)
        yield from _joins(loaded, value, context)


def _joins(loaded: LoadedObject, policy: RemediationPolicy, context: Context) -> Iterator[Finding]:
    """Limits by which the controller lets nobody in; it says the same in the condition JoinsReady."""
    if policy.spec.joins is UNSET:
        return
    pools = {pool.metadata.name: pool for _, pool in context.pools()}
    for fault in faults_of_joins(policy.spec.joins, pools):
        said, _, fix = fault.rpartition("; ")
        yield finding("join-limits", loaded, ("spec", "joins"), said, fix)


def _limit(loaded: LoadedObject, at: Path, limit: Limit | UnsetType, context: Context) -> Iterator[Finding]:
    if not isinstance(limit, Limit):
        return
    if limit.count == 0:
        text = "count is 0: no node may ever be out"
        yield finding("limit-zero", loaded, (*at, "count"), text, "raise it, or set mode: Disabled")
    if limit.count is not UNSET and limit.at_least > 0:
        text = f"atLeast {limit.at_least} beside count {limit.count}"
        yield finding("floor-of-count", loaded, (*at, "atLeast"), text, "remove it, or write percent")
    if limit.percent is UNSET or limit.at_least > 0:
        return
    sizes = {pool.metadata.name: pool.status.nodes for _, pool in context.pools() if pool.status}
    known = {name: size for name, size in sizes.items() if size > 0}
    starved = sorted(name for name, size in known.items() if size * limit.percent < 100)
    enough = math.ceil(100 / limit.percent)
    if starved:
        text = f"{limit.percent} % of pool {starved[0]} ({known[starved[0]]} nodes) rounds to zero"
    elif not known and enough > 1:
        text = f"{limit.percent} % rounds to zero below {enough} nodes"
    else:
        return
    yield finding("percent-rounds-to-zero", loaded, (*at, "percent"), text, "add atLeast: 1")


def check_size(loaded: LoadedObject, _context: Context) -> Iterator[Finding]:
    """A spec that no run could carry."""
    if not isinstance(loaded.value, Playbook):
        return
    size = len(msgspec.json.encode(loaded.value.spec))
    if size > SPEC_BYTES_MAX:
        text = f"the spec has {size:,} bytes as JSON, at most {SPEC_BYTES_MAX:,} fit"
        yield finding("too-large", loaded, ("spec",), text, "split the playbook")
