"""Compiles playbooks' matchers: closures over a ``Scene`` that answer in three values and say why.

Nothing here keeps state or knows time: how long a signal must hold is ``core.diagnose``'s affair.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType

from remediator.core.dcgm import old_name
from remediator.model.duration import seconds
from remediator.model.instant import read_instant
from remediator.model.ledger import Latch
from remediator.model.meta import LINE_MAX, LabelRequirement, LabelSelector
from remediator.model.playbook import (
    GpuMetricMatch,
    Matcher,
    NodeConditionMatch,
    NodeSelection,
    PlaybookInForce,
    XidMatch,
)
from remediator.model.signal import Evidence, GpuReading, PageReading, Truth
from remediator.model.views import NodeView

Source = Literal["condition", "exporter"]

EVIDENCE_MAX: Final = 16

_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = MappingProxyType(
    {
        "==": operator.eq,
        "!=": operator.ne,
        ">": operator.gt,
        ">=": operator.ge,
        "<": operator.lt,
        "<=": operator.le,
    }
)


class Scene(Struct, frozen=True):
    """What is known of one node right now.

    ``reading`` is None unless it is fresh and of this boot; ``no_reading`` then says why. ``latches``
    are the XIDs of this boot that count as faults. ``missing`` are GPUs that were on the page since
    the boot and are not on it now.
    """

    node: NodeView
    reading: PageReading | None = None
    no_reading: str = "no exporter page"
    latches: tuple[Latch, ...] = ()
    missing: tuple[str, ...] = ()


class Finding(Struct, frozen=True):
    """One matcher's answer. ``line`` explains any answer; ``evidence`` comes with TRUE only.

    ``since`` is set where the signal itself has an age that we know of. ``unpublished`` marks an
    UNKNOWN about something that nobody reports here: it can't be waited for.
    """

    truth: Truth
    line: str
    evidence: tuple[Evidence, ...] = ()
    since: datetime | None = None
    unpublished: bool = False


Judge = Callable[[Scene], Finding]


class CompiledMatcher(Struct, frozen=True):
    """One matcher. ``reads`` is a condition type, a metric field, or ``xid``.

    ``fault_class`` is its own or the playbook's; ``rank`` orders all matchers of all playbooks, the
    owner of a fault first. ``clears``: the fault ends when the signal turns false.
    """

    playbook: str
    id: str
    source: Source
    reads: str
    fault_class: str
    hard: bool
    for_s: int
    rank: tuple[int, int]
    clears: bool
    judge: Judge

    @property
    def key(self) -> tuple[str, str]:
        return (self.playbook, self.id)


class CompiledPlaybook(Struct, frozen=True):
    """One playbook's selector and matchers. ``codes`` and ``fields`` are what it reads of a page."""

    name: str
    priority: int
    nodes: NodeSelection
    matchers: tuple[CompiledMatcher, ...]
    codes: frozenset[int]
    fields: frozenset[str]

    @property
    def uses_exporter(self) -> bool:
        return bool(self.codes or self.fields)

    def selects(self, labels: Mapping[str, str]) -> bool:
        return selects(self.nodes, labels)


Pair = tuple[CompiledPlaybook, CompiledMatcher]


class Book(Struct, frozen=True):
    """All playbooks, and who reads what. Pairs stand in the order of ``rank``."""

    playbooks: tuple[CompiledPlaybook, ...]
    by_key: Mapping[tuple[str, str], Pair]
    by_condition: Mapping[str, tuple[Pair, ...]]
    by_page: tuple[Pair, ...]
    codes: frozenset[int]
    fields: frozenset[str]


def compile_playbooks(playbooks: Iterable[PlaybookInForce]) -> tuple[CompiledPlaybook, ...]:
    """Compile every playbook that is not Disabled; the highest priority first, then by name."""
    order = sorted(playbooks, key=lambda playbook: (-playbook.spec.priority, playbook.name))
    active = [playbook for playbook in order if playbook.spec.mode != "Disabled"]
    return tuple(_compile(playbook, rank) for rank, playbook in enumerate(active))


def bind(playbooks: tuple[CompiledPlaybook, ...]) -> Book:
    """Index compiled playbooks, so that a change of a node asks only those whom it concerns."""
    pairs = [(playbook, matcher) for playbook in playbooks for matcher in playbook.matchers]
    by_condition: dict[str, list[Pair]] = {}
    for playbook, matcher in pairs:
        if matcher.source == "condition":
            by_condition.setdefault(matcher.reads, []).append((playbook, matcher))
    return Book(
        playbooks=playbooks,
        by_key=MappingProxyType({matcher.key: (playbook, matcher) for playbook, matcher in pairs}),
        by_condition=MappingProxyType({type_: tuple(found) for type_, found in by_condition.items()}),
        by_page=tuple(pair for pair in pairs if pair[1].source == "exporter"),
        codes=frozenset[int]().union(*(playbook.codes for playbook in playbooks)),
        fields=frozenset[str]().union(*(playbook.fields for playbook in playbooks)),
    )


def matches(selector: LabelSelector | UnsetType, labels: Mapping[str, str]) -> bool:
    """Kubernetes' label selector: an absent or empty one selects everything."""
    if selector is UNSET:
        return True
    if selector.match_labels is not UNSET and any(
        labels.get(key) != value for key, value in selector.match_labels.items()
    ):
        return False
    return all(_meets(requirement, labels) for requirement in selector.match_expressions)


def selects(nodes: NodeSelection, labels: Mapping[str, str]) -> bool:
    """May a playbook touch a node with these labels? "All nodes" must be spelled out."""
    selector = nodes.selector
    if selector is UNSET or not (selector.match_labels or selector.match_expressions):
        return nodes.match_all
    return matches(selector, labels)


def _meets(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":  # true where the label is absent, as in Kubernetes
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None


def _compile(playbook: PlaybookInForce, rank: int) -> CompiledPlaybook:
    spec = playbook.spec
    found = spec.match.any_of
    return CompiledPlaybook(
        name=playbook.name,
        priority=spec.priority,
        nodes=spec.nodes,
        matchers=tuple(_matcher(playbook, each, (rank, place)) for place, each in enumerate(found)),
        codes=frozenset(code for each in found if each.xid is not UNSET for code in each.xid.codes),
        fields=frozenset(old_name(each.gpu_metric.field) for each in found if each.gpu_metric is not UNSET),
    )


def _matcher(playbook: PlaybookInForce, matcher: Matcher, rank: tuple[int, int]) -> CompiledMatcher:
    source, reads, judge = _judge(playbook.name, matcher)
    return CompiledMatcher(
        playbook=playbook.name,
        id=matcher.id,
        source=source,
        reads=reads,
        fault_class=playbook.spec.fault_class if matcher.fault_class is UNSET else matcher.fault_class,
        hard=playbook.spec.severity == "Hard",
        for_s=0 if matcher.for_ is UNSET else seconds(matcher.for_),
        rank=rank,
        clears=matcher.xid is UNSET,
        judge=judge,
    )


def _judge(playbook: str, matcher: Matcher) -> tuple[Source, str, Judge]:
    if matcher.xid is not UNSET:
        return "exporter", "xid", _xid(matcher.xid)
    if matcher.gpu_metric is not UNSET:
        return "exporter", old_name(matcher.gpu_metric.field), _gpu_metric(matcher.gpu_metric)
    if matcher.node_condition is not UNSET:
        return "condition", matcher.node_condition.type, _node_condition(matcher.node_condition)
    raise ValueError(f"playbook {playbook!r}, matcher {matcher.id!r}: none of xid, gpuMetric, nodeCondition")


def _xid(match: XidMatch) -> Judge:
    codes = frozenset(match.codes)
    wanted = ", ".join(map(str, sorted(codes)))

    def judge(scene: Scene) -> Finding:
        latches = [latch for latch in scene.latches if latch.code in codes]
        if latches:
            index = {gpu.uuid: gpu.index for gpu in scene.reading.gpus} if scene.reading else {}
            evidence = tuple(_xid_evidence(latch, index.get(latch.gpu, "")) for latch in latches)
            since = min(filter(None, (read_instant(latch.at) for latch in latches)), default=None)
            return Finding(Truth.TRUE, evidence[0].text, evidence[:EVIDENCE_MAX], since)
        if scene.reading is None:
            return Finding(Truth.UNKNOWN, scene.no_reading)
        if not any(gpu.xid is not None for gpu in scene.reading.gpus):
            # The sample may be left out until the first XID; with no GPU on it the page says nothing.
            unpublished = bool(scene.reading.gpus)
            return Finding(Truth.UNKNOWN, "no XID on the page", unpublished=unpublished)
        if scene.missing:
            return Finding(Truth.UNKNOWN, _gone(scene.missing))
        return Finding(Truth.FALSE, f"no new xid of {wanted} since the boot")

    return judge


def _xid_evidence(latch: Latch, index: str) -> Evidence:
    where = f"GPU {index} ({latch.gpu})" if index else latch.gpu
    return Evidence("exporter", "xid", f"xid {latch.code} on {where}", gpu=latch.gpu, code=latch.code)


def _gpu_metric(match: GpuMetricMatch) -> Judge:
    field, threshold = old_name(match.field), match.value
    compare = _COMPARE[match.op]

    def judge(scene: Scene) -> Finding:
        reading = scene.reading
        if reading is None:
            return Finding(Truth.UNKNOWN, scene.no_reading)
        bad: list[tuple[GpuReading, float]] = []
        silent: list[GpuReading] = []
        for gpu in reading.gpus:
            # MIG instances of a GPU may differ: the highest and the lowest value are both here.
            values = [value for name, value in gpu.values if name == field]
            if not values:
                silent.append(gpu)
            bad.extend((gpu, value) for value in values if compare(value, threshold))
        if bad:
            evidence = tuple(_metric_evidence(gpu, field, value) for gpu, value in bad[:EVIDENCE_MAX])
            return Finding(Truth.TRUE, evidence[0].text, evidence)
        if not reading.gpus:
            return Finding(Truth.UNKNOWN, "no GPU on the page")
        if len(silent) == len(reading.gpus):
            return Finding(Truth.UNKNOWN, f"no {field} on the page", unpublished=True)
        if silent:
            return Finding(Truth.UNKNOWN, f"no {field} of GPU {silent[0].index} ({silent[0].uuid})")
        if scene.missing:
            return Finding(Truth.UNKNOWN, _gone(scene.missing))
        return Finding(Truth.FALSE, f"no GPU with {field} {match.op} {threshold:g}")

    return judge


def _metric_evidence(gpu: GpuReading, field: str, value: float) -> Evidence:
    text = f"{field} = {value:g} on GPU {gpu.index} ({gpu.uuid})"
    return Evidence("exporter", field, text[:LINE_MAX], gpu=gpu.uuid)


def _gone(missing: tuple[str, ...]) -> str:
    return f"{len(missing)} GPU(s) gone from the page, first {missing[0]}"


def _node_condition(match: NodeConditionMatch) -> Judge:
    type_, status, reasons = match.type, match.status, frozenset(match.reasons)

    def judge(scene: Scene) -> Finding:
        found = scene.node.condition(type_)
        if found is None:
            return Finding(Truth.UNKNOWN, f"no condition {type_}", unpublished=True)
        line = f"{type_}={found.status}"
        if found.reason:
            line = f"{line}: {found.reason}"
        if found.status != status:
            unknown = found.status not in ("True", "False")
            return Finding(Truth.UNKNOWN if unknown else Truth.FALSE, line[:LINE_MAX])
        if reasons and found.reason not in reasons:
            # Still the bad status, for a reason that is not ours: that is no cure, and a reason
            # that comes and goes must not start the clock again each time.
            return Finding(Truth.UNKNOWN, f"{line} (not a listed reason)"[:LINE_MAX])
        if found.message:
            line = f"{line}: {' '.join(found.message.split())}"
        return Finding(Truth.TRUE, line[:LINE_MAX], (Evidence("condition", type_, line[:LINE_MAX]),))

    return judge
