"""Says in one line what a write changed: the words that a PlaybookTest expects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from remediator.model.action import CreateJob, EvictPod
from remediator.model.keys import ANNOTATION_PROBATION, GROUP
from remediator.model.views import NodeView, TaintView


def say_patch(before: NodeView, after: NodeView) -> str:
    """``node gpu-a-03: + taint remediator.dev/quarantine=gpu-bus:NoSchedule, + cordon``.

    Taints first, then cordon, labels and annotations, each sorted. Our own book-keeping
    annotations are left out, the probation excepted.
    """
    said = ", ".join((*_taints(before, after), *_cordon(before, after), *_rest(before, after)))
    return f"node {after.name}: {said or 'only our own annotations'}"


def say_eviction(action: EvictPod, refused: str = "") -> str:
    return f"pod {action.namespace}/{action.name}: evict" + (f", refused by {refused}" if refused else "")


def say_job(action: CreateJob) -> str:
    return f"job {action.namespace}/{action.name}: {action.template} on {action.node}"


def _taints(before: NodeView, after: NodeView) -> Iterator[str]:
    had, has = set(before.taints), set(after.taints)
    for taint in sorted(had - has, key=_spell):
        yield f"- taint {_spell(taint)}"
    for taint in sorted(has - had, key=_spell):
        yield f"+ taint {_spell(taint)}"


def _spell(taint: TaintView) -> str:
    value = f"={taint.value}" if taint.value else ""
    return f"{taint.key}{value}:{taint.effect}"


def _cordon(before: NodeView, after: NodeView) -> Iterator[str]:
    if before.unschedulable != after.unschedulable:
        yield "+ cordon" if after.unschedulable else "- cordon"


def _rest(before: NodeView, after: NodeView) -> Iterator[str]:
    yield from _changes("label", before.labels, after.labels)
    kept = (_foreign(before.annotations), _foreign(after.annotations))
    yield from _changes("annotation", *kept)
    probation = (ANNOTATION_PROBATION in before.annotations, ANNOTATION_PROBATION in after.annotations)
    if probation[0] != probation[1]:
        yield "+ probation" if probation[1] else "- probation"


def _foreign(annotations: Mapping[str, str]) -> Mapping[str, str]:
    return {key: value for key, value in annotations.items() if not key.startswith(f"{GROUP}/")}


def _changes(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for key in sorted({*before, *after}):
        had, has = before.get(key), after.get(key)
        if had == has:
            continue
        if had is None:
            yield f"+ {what} {key}={has}"
        elif has is None:
            yield f"- {what} {key}={had}"
        else:
            yield f"{what} {key}: {had} -> {has}"
