"""The merge patches that we send to Nodes: pure builders, one per change.

A patch carries the whole taints list, raw, so that fields which we do not know survive; the
writer adds the resourceVersion and our term. Nothing here decides whether to patch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import UNSET

from remediator.core.joins.gate import EFFECT, is_gate
from remediator.core.prior import Prior, write_prior
from remediator.model.keys import (
    ANNOTATION_BECAUSE,
    ANNOTATION_FENCED,
    ANNOTATION_JOINED,
    ANNOTATION_PRIOR,
    ANNOTATION_PROBATION,
    ANNOTATION_RUN,
    OUT_OF_SERVICE_VALUE,
    TAINT_OUT_OF_SERVICE,
    TAINT_QUARANTINE,
)
from remediator.model.meta import Taint
from remediator.model.pool import PoolSpec
from remediator.model.views import NodeView, TaintView

Patch = Mapping[str, object]

BECAUSE_MAX: Final = 256
_LEFT_BEHIND: Final = (ANNOTATION_RUN, ANNOTATION_PRIOR, ANNOTATION_BECAUSE, ANNOTATION_FENCED)


def quarantine(node: NodeView, *, mark: str, value: str, cordon: bool, prior: Prior, because: str) -> Patch:
    """Our taint, the cordon, and the three annotations that explain and undo them: one patch."""
    ours = Taint(key=TAINT_QUARANTINE, value=value, effect="NoSchedule")
    spec: dict[str, object] = {
        "taints": _with(without_taints(node.taints_raw, _is_quarantine), (ours,)),
    }
    if cordon:
        spec["unschedulable"] = True
    annotations = {
        ANNOTATION_RUN: mark,
        ANNOTATION_PRIOR: write_prior(prior),
        ANNOTATION_BECAUSE: because[:BECAUSE_MAX],
    }
    return {"metadata": {"annotations": annotations}, "spec": spec}


def shut_gate(node: NodeView, key: str) -> Patch:
    """The join gate's taint, and nothing else."""
    gate = Taint(key=key, effect=EFFECT)
    return {"spec": {"taints": _with(msgspec.Raw(node.taints_raw), (gate,))}}


def open_gate(node: NodeView, key: str, mark: str) -> Patch:
    """The join gate's taint away, and the mark that this Node was let in: one patch."""
    taints = without_taints(node.taints_raw, lambda taint: is_gate(taint, key))
    return {"metadata": {"annotations": {ANNOTATION_JOINED: mark}}, "spec": {"taints": taints}}


def hand_over(spare: NodeView, *, pool: PoolSpec, buffer: PoolSpec) -> Patch:
    """Buffer's membership and projection away, the pool's on: one patch.

    It leaves no mark of the run: from here on the node is a member like any other.
    """
    labels, annotations, taints = _move(spare, leaving=(buffer,), joining=pool)
    annotations |= {ANNOTATION_PROBATION: None}
    return _patch(labels, annotations, {"taints": taints})


def detach(
    node: NodeView, *, mark: str, pool: PoolSpec | None, repair: PoolSpec | None, prior: Prior
) -> Patch:
    """Out of the pool; what is taken away is written into ``prior`` in the same patch."""
    leaving = (pool,) if pool is not None else ()
    labels, annotations, taints = _move(node, leaving=leaving, joining=repair)
    annotations |= {ANNOTATION_RUN: mark, ANNOTATION_PRIOR: write_prior(prior)}
    return _patch(labels, annotations, {"taints": taints})


def what_detach_takes(
    node: NodeView, pool: PoolSpec | None, prior: Prior, repair: PoolSpec | None = None
) -> Prior:
    """``prior`` plus what leaving ``pool`` takes away, and what joining ``repair`` overwrites."""
    if pool is None:
        return prior
    labels, annotations, _ = _move(node, leaving=(pool,), joining=repair)
    moved = {
        (taint.key, taint.effect)
        for each in (pool, repair)
        if each is not None
        for taint in each.projection.taints
    }
    raws = msgspec.json.decode(node.taints_raw, type=list[msgspec.Raw])
    return Prior(
        unschedulable=prior.unschedulable,
        labels={key: node.labels[key] for key in sorted(labels) if key in node.labels},
        annotations={key: node.annotations[key] for key in sorted(annotations) if key in node.annotations},
        taints=tuple(raw for raw in raws if _key(raw) in moved),
    )


def give_back(
    node: NodeView,
    *,
    target: PoolSpec | None,
    leaving: tuple[PoolSpec, ...],
    prior: Prior,
    probation_until: str,
) -> Patch:
    """Lift the quarantine and join ``target``: the end of a repair.

    A cordon that was there before us stays.
    """
    labels, annotations, taints = _move(node, leaving=leaving, joining=target)
    annotations |= dict.fromkeys(_LEFT_BEHIND)
    if probation_until:
        annotations[ANNOTATION_PROBATION] = probation_until
    spec: dict[str, object] = {"taints": without_taints(bytes(taints), is_ours)}
    if node.unschedulable and not prior.unschedulable:
        spec["unschedulable"] = None
    return _patch(labels, annotations, spec)


def restore(node: NodeView, prior: Prior, leaving: tuple[PoolSpec, ...] = ()) -> Patch:
    """Undo everything: our taint, our cordon, our annotations, and what detach took away.

    What a person changed meanwhile stays: our missing taint is not put back, an uncordoned node is
    not cordoned again, a label that somebody set anew keeps its value.
    """
    labels, annotations, taints = _move(node, leaving=leaving, joining=None)
    labels |= _untouched(prior.labels, node.labels, labels)
    annotations |= _untouched(prior.annotations, node.annotations, annotations)
    annotations |= dict.fromkeys(_LEFT_BEHIND)
    kept = without_taints(bytes(taints), is_ours)
    present = {_key(raw) for raw in msgspec.json.decode(bytes(kept), type=list[msgspec.Raw])}
    missing = tuple(raw for raw in prior.taints if _key(raw) not in present)
    spec: dict[str, object] = {"taints": _append(kept, missing)}
    if node.unschedulable and not prior.unschedulable:
        spec["unschedulable"] = None
    return _patch(labels, annotations, spec)


def out_of_service(node: NodeView) -> Patch:
    """The taint by which Kubernetes removes the pods of a machine that is off, and their attachments."""
    mark = Taint(key=TAINT_OUT_OF_SERVICE, value=OUT_OF_SERVICE_VALUE, effect="NoExecute")
    return {"spec": {"taints": _with(msgspec.Raw(node.taints_raw), (mark,))}}


def in_service(node: NodeView) -> Patch:
    """That taint, if it is ours, and the proof that it was set on, away."""
    return {
        "metadata": {"annotations": {ANNOTATION_FENCED: None}},
        "spec": {"taints": without_taints(node.taints_raw, _is_out_of_service)},
    }


def without_taints(raw: bytes, unwanted: Callable[[TaintView], bool]) -> msgspec.Raw:
    """The list without the taints that ``unwanted`` names; the others byte for byte."""
    items = msgspec.json.decode(raw, type=list[msgspec.Raw])
    kept = [item for item in items if not unwanted(msgspec.json.decode(item, type=TaintView))]
    return _join(kept)


def _move(
    node: NodeView, *, leaving: tuple[PoolSpec, ...], joining: PoolSpec | None
) -> tuple[dict[str, object], dict[str, object], msgspec.Raw]:
    labels: dict[str, object] = {}
    annotations: dict[str, object] = {}
    taints = msgspec.Raw(node.taints_raw)
    for pool in leaving:
        if node.labels.get(pool.membership.key) != pool.membership.value:
            continue  # Not a member: what looks like the pool's projection is the node's own.
        projection = pool.projection
        own = {(taint.key, taint.effect) for taint in projection.taints}
        taints = without_taints(bytes(taints), lambda taint, own=own: (taint.key, taint.effect) in own)  # type: ignore[misc]  # bound per round
        labels[pool.membership.key] = None
        labels |= _absent(projection.labels if projection.labels is not UNSET else {}, node.labels)
        annotations |= _absent(
            projection.annotations if projection.annotations is not UNSET else {}, node.annotations
        )
    if joining is not None:
        labels[joining.membership.key] = joining.membership.value
        if joining.projection.labels is not UNSET:
            labels |= joining.projection.labels
        if joining.projection.annotations is not UNSET:
            annotations |= joining.projection.annotations
        keys = {(taint.key, taint.effect) for taint in joining.projection.taints}
        taints = without_taints(bytes(taints), lambda taint: (taint.key, taint.effect) in keys)
        taints = _with(taints, joining.projection.taints)
    return labels, annotations, taints


def _absent(projected: Mapping[str, str], present: Mapping[str, str]) -> dict[str, object]:
    # Only what still has the projected value is ours to take away.
    return {key: None for key, value in projected.items() if present.get(key) == value}


def _untouched(prior: Mapping[str, str], present: Mapping[str, str], going: Patch) -> dict[str, object]:
    return {key: value for key, value in prior.items() if key not in present or key in going}


def _patch(labels: Patch, annotations: Patch, spec: Patch) -> Patch:
    metadata = {name: value for name, value in (("labels", labels), ("annotations", annotations)) if value}
    return {"metadata": metadata, "spec": spec} if metadata else {"spec": spec}


def _is_quarantine(taint: TaintView) -> bool:
    return taint.key == TAINT_QUARANTINE


def _is_out_of_service(taint: TaintView) -> bool:
    return taint.key == TAINT_OUT_OF_SERVICE and taint.value == OUT_OF_SERVICE_VALUE


def is_ours(taint: TaintView) -> bool:
    """Is this a taint that we put on, whoever's key it has?"""
    return _is_quarantine(taint) or _is_out_of_service(taint)


def _with(raw: msgspec.Raw, taints: tuple[Taint, ...]) -> msgspec.Raw:
    return _append(raw, tuple(msgspec.Raw(msgspec.json.encode(taint)) for taint in taints))


def _append(raw: msgspec.Raw, more: tuple[msgspec.Raw, ...]) -> msgspec.Raw:
    return _join([*msgspec.json.decode(bytes(raw), type=list[msgspec.Raw]), *more])


def _join(items: list[msgspec.Raw]) -> msgspec.Raw:
    return msgspec.Raw(b"[" + b",".join(bytes(item) for item in items) + b"]")


def _key(raw: msgspec.Raw) -> tuple[str, str]:
    taint = msgspec.json.decode(raw, type=TaintView)
    return (taint.key, taint.effect)
