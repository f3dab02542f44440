"""Turns Kubernetes' own objects into the views of ``model.views``.

Tolerant: unknown fields are ignored and a null is an absent field. It judges nothing, but for one
rule: of a condition that stands twice in the list the worse one is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from sys import intern
from typing import Final

import msgspec
from msgspec import Raw, Struct

from remediator.adapters.kube.wire import ObjectDecoder
from remediator.model.keys import GROUP, MIRROR_ANNOTATION
from remediator.model.views import EMPTY, ConditionView, JobView, NodeView, PdbView, PodView, TaintView

OWN_PREFIX: Final = f"{GROUP}/"
NO_TAINTS: Final = b"[]"
DEFAULT_GRACE_S: Final = 30
SHARED_MAX: Final = 16_384
SHARED_CHARS_MAX: Final = 256

Share = Callable[[str, str], str]

# Which of two entries of one type is worse. Ready is good when True; for all other conditions
# True means trouble, which holds for Kubernetes' own and node-problem-detector's.
_WORSE_IF_GOOD_IS_TRUE: Final = {"False": 2, "Unknown": 1, "True": 0}
_WORSE_IF_GOOD_IS_FALSE: Final = {"True": 2, "Unknown": 1, "False": 0}
_TWICE: Final = "stands twice on the Node"


class _Owner(Struct, gc=False):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class _Meta(Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


class _Taint(Struct, gc=False):
    key: str = ""
    value: str | None = None
    effect: str = ""


class _Condition(Struct, gc=False):
    type: str = ""
    status: str = "Unknown"
    reason: str | None = None
    message: str | None = None


class _Address(Struct, gc=False):
    type: str = ""
    address: str = ""


class _NodeSpec(Struct, rename="camel"):
    unschedulable: bool | None = None
    taints: Raw = Raw(b"null")
    provider_id: str | None = msgspec.field(default=None, name="providerID")


class _NodeInfo(Struct, rename="camel", gc=False):
    boot_id: str | None = msgspec.field(default=None, name="bootID")
    system_uuid: str | None = msgspec.field(default=None, name="systemUUID")


class _NodeStatus(Struct, rename="camel"):
    conditions: list[_Condition] | None = None
    addresses: list[_Address] | None = None
    node_info: _NodeInfo | None = None
    allocatable: dict[str, str | int] | None = None


class _Node(Struct):
    metadata: _Meta
    spec: _NodeSpec | None = None
    status: _NodeStatus | None = None


_taints: Final = msgspec.json.Decoder(list[_Taint] | None)


def node_decoder(
    *,
    gpu_resource: str,
    annotations: frozenset[str] = frozenset(),
    good_when_true: frozenset[str] = frozenset(("Ready",)),
) -> ObjectDecoder[NodeView]:
    """Make a decoder of Nodes.

    Args:
        gpu_resource: the extended resource whose allocatable count becomes ``NodeView.gpus``.
        annotations: keys to keep besides those of our own group.
        good_when_true: condition types whose good status is True, for types that stand twice.
    """
    # One copy of each text that many nodes carry: label values and conditions' messages. Without it
    # a thousand nodes hold 5 MB more. Bounded, because some values (names, times) are on one node only;
    # the first nodes bring what all have in common, so it is never full of those.
    texts: dict[str, str] = {}

    def view(node: _Node) -> NodeView:
        # Both are called with (text, text); no function of ours, for there are eighty calls a node.
        share: Share = texts.setdefault if len(texts) < SHARED_MAX else texts.get
        spec, status, meta = node.spec or _NodeSpec(), node.status or _NodeStatus(), node.metadata
        info = status.node_info or _NodeInfo()
        raw = bytes(spec.taints)
        return NodeView(
            name=meta.name,
            uid=meta.uid,
            resource_version=meta.resource_version,
            created_at=meta.creation_timestamp or "",
            labels={intern(key): share(value, value) for key, value in meta.labels.items()}
            if meta.labels
            else EMPTY,
            annotations=_wanted(meta.annotations, annotations),
            unschedulable=bool(spec.unschedulable),
            taints=_read_taints(raw),
            taints_raw=NO_TAINTS if raw == b"null" else raw,
            conditions=_read_conditions(status.conditions, good_when_true, share),
            provider_id=spec.provider_id or "",
            system_uuid=info.system_uuid or "",
            boot_id=info.boot_id or "",
            addresses=tuple((intern(each.type), each.address) for each in status.addresses or ()),
            gpus=_count((status.allocatable or {}).get(gpu_resource)),
            deleting=meta.deletion_timestamp is not None,
        )

    return ObjectDecoder(_Node, view)


def _read_taints(raw: bytes) -> tuple[TaintView, ...]:
    if raw in (b"null", NO_TAINTS):
        return ()
    return tuple(
        TaintView(key=intern(each.key), effect=intern(each.effect), value=each.value or "")
        for each in _taints.decode(raw) or ()
    )


def _read_conditions(
    found: list[_Condition] | None, good_when_true: frozenset[str], share: Share
) -> tuple[ConditionView, ...]:
    """Keep one entry per type, in the order of first appearance; of two the worse one."""
    kept: dict[str, ConditionView] = {}
    for each in found or ():
        type_ = intern(each.type)
        message = each.message or ""
        if len(message) <= SHARED_CHARS_MAX:
            message = share(message, message)
        view = ConditionView(type_, intern(each.status), intern(each.reason or ""), message)
        if (rival := kept.get(type_)) is None:
            kept[type_] = view
            continue
        badness = _WORSE_IF_GOOD_IS_TRUE if type_ in good_when_true else _WORSE_IF_GOOD_IS_FALSE
        # A status that no API version defines ranks like Unknown.
        worse, other = view, rival
        if badness.get(view.status, 1) <= badness.get(rival.status, 1):
            worse, other = rival, view
        if not worse.message.startswith(_TWICE):  # a third one changes nothing of what is said
            said = f"{_TWICE}, also {other.status}; the worse counts. {worse.message}"
            worse = ConditionView(type_, worse.status, worse.reason, said)
        kept[type_] = worse
    return tuple(kept.values())


class _Requirements(Struct, gc=False):
    requests: dict[str, str | int] | None = None
    limits: dict[str, str | int] | None = None


class _Container(Struct, rename="camel", gc=False):
    resources: _Requirements | None = None
    restart_policy: str | None = None


class _Toleration(Struct, gc=False):
    key: str | None = None
    operator: str | None = None
    effect: str | None = None


class _Volume(Struct, rename="camel"):
    empty_dir: Raw = Raw(b"null")


class _PodSpec(Struct, rename="camel"):
    node_name: str | None = None
    priority: int | None = None
    priority_class_name: str | None = None
    termination_grace_period_seconds: int | None = None
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    tolerations: list[_Toleration] | None = None
    volumes: list[_Volume] | None = None


class _PodStatus(Struct, rename="camel"):
    phase: str | None = None
    qos_class: str | None = None
    conditions: list[_Condition] | None = None


class _Pod(Struct):
    metadata: _Meta
    spec: _PodSpec | None = None
    status: _PodStatus | None = None


def pod_decoder(*, gpu_resource: str, annotations: frozenset[str] = frozenset()) -> ObjectDecoder[PodView]:
    """Make a decoder of Pods; arguments as of ``node_decoder``, the GPUs being those requested."""

    def view(pod: _Pod) -> PodView:
        spec, status, meta = pod.spec or _PodSpec(), pod.status or _PodStatus(), pod.metadata
        owner = next((each for each in meta.owner_references or () if each.controller), _Owner())
        grace_s = spec.termination_grace_period_seconds
        return PodView(
            namespace=intern(meta.namespace),
            name=meta.name,
            uid=meta.uid,
            node=spec.node_name or "",
            phase=intern(status.phase or "Pending"),
            created_at=meta.creation_timestamp or "",
            owner_kind=intern(owner.kind),
            owner_name=owner.name,
            owner_uid=owner.uid,
            priority=spec.priority or 0,
            priority_class=intern(spec.priority_class_name or ""),
            qos=intern(status.qos_class or "BestEffort"),
            labels=_interned(meta.labels),
            annotations=_wanted(meta.annotations, annotations),
            grace_s=DEFAULT_GRACE_S if grace_s is None else grace_s,
            deleting=meta.deletion_timestamp is not None,
            mirror=MIRROR_ANNOTATION in (meta.annotations or {}),
            empty_dir=any(bytes(each.empty_dir) != b"null" for each in spec.volumes or ()),
            gpus=_requested(spec, gpu_resource),
            tolerates_all=_tolerates_all(spec.tolerations),
            ready=any(each.type == "Ready" and each.status == "True" for each in status.conditions or ()),
        )

    return ObjectDecoder(_Pod, view)


def _requested(spec: _PodSpec, resource: str) -> int:
    """Count as the scheduler does: all containers and sidecars together, or one greedy init step."""
    running = sum(_of(each, resource) for each in spec.containers or ())
    greediest = 0
    for each in spec.init_containers or ():
        if each.restart_policy == "Always":  # a sidecar: it stays
            running += _of(each, resource)
        else:
            greediest = max(greediest, _of(each, resource))
    return max(running, greediest)


def _of(container: _Container, resource: str) -> int:
    wants = container.resources or _Requirements()
    # An extended resource has request = limit; an absent request is filled in by the server.
    return _count((wants.requests or {}).get(resource) or (wants.limits or {}).get(resource))


def _tolerates_all(found: list[_Toleration] | None) -> bool:
    """Every taint that keeps pods away or throws them out, whatever its key."""
    effects = {each.effect or "" for each in found or () if not each.key and each.operator == "Exists"}
    return "" in effects or effects >= {"NoSchedule", "NoExecute"}


class _Selector(Struct, rename="camel"):
    match_labels: dict[str, str] | None = None


class _PdbSpec(Struct):
    selector: _Selector | None = None


class _PdbStatus(Struct, rename="camel"):
    disruptions_allowed: int | None = None


class _Pdb(Struct):
    metadata: _Meta
    spec: _PdbSpec | None = None
    status: _PdbStatus | None = None


def _pdb_view(pdb: _Pdb) -> PdbView:
    spec, status = pdb.spec or _PdbSpec(), pdb.status or _PdbStatus()
    return PdbView(
        namespace=pdb.metadata.namespace,
        name=pdb.metadata.name,
        disruptions_allowed=status.disruptions_allowed or 0,
        match_labels=_interned((spec.selector or _Selector()).match_labels),
    )


def pdb_decoder() -> ObjectDecoder[PdbView]:
    return ObjectDecoder(_Pdb, _pdb_view)


class _JobStatus(Struct):
    conditions: list[_Condition] | None = None


class _Job(Struct):
    metadata: _Meta
    status: _JobStatus | None = None


def _job_view(job: _Job) -> JobView:
    true = {
        each.type: each for each in (job.status or _JobStatus()).conditions or () if each.status == "True"
    }
    failed = true.get("Failed")
    return JobView(
        namespace=job.metadata.namespace,
        name=job.metadata.name,
        uid=job.metadata.uid,
        labels=_interned(job.metadata.labels),
        succeeded="Complete" in true and failed is None,
        failed=failed is not None,
        message=(failed.message or failed.reason or "") if failed else "",
    )


def job_decoder() -> ObjectDecoder[JobView]:
    """Make a decoder of Jobs; a Job ends by its conditions Complete or Failed, not by counters."""
    return ObjectDecoder(_Job, _job_view)


def _interned(labels: dict[str, str] | None) -> Mapping[str, str]:
    # Keys repeat on every object and are few; values (names, times) must not fill the table.
    return {intern(key): value for key, value in labels.items()} if labels else EMPTY


def _wanted(found: dict[str, str] | None, also: frozenset[str]) -> Mapping[str, str]:
    kept = {
        intern(key): value
        for key, value in (found or {}).items()
        if key.startswith(OWN_PREFIX) or key in also
    }
    return kept or EMPTY


def _count(quantity: str | int | None) -> int:
    """Read a count of devices; a quantity that is no plain number counts as none."""
    if quantity is None:
        return 0
    text = str(quantity)
    return int(text) if text.isascii() and text.isdigit() else 0
