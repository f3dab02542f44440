"""Marks by which others claim a node: what they cordoned or marked stays theirs.

One literal table. A plain cordon is not in it: it blocks nothing, counts as not serving, and
comes back as found.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from remediator.model.views import NodeView


class Mark(Struct, frozen=True, gc=False):
    """``kind`` taint, label or annotation; ``values`` empty means any value but the empty one."""

    owner: str
    kind: Literal["taint", "label", "annotation"]
    key: str
    values: tuple[str, ...] = ()


MARKS: Final[tuple[Mark, ...]] = (
    Mark("cluster-autoscaler", "taint", "ToBeDeletedByClusterAutoscaler"),
    Mark("cluster-autoscaler", "taint", "DeletionCandidateOfClusterAutoscaler"),
    Mark("karpenter", "taint", "karpenter.sh/disrupted"),
    Mark("karpenter", "taint", "karpenter.sh/disruption"),
    Mark(
        "gpu-operator upgrade",
        "label",
        "nvidia.com/gpu-driver-upgrade-state",
        (
            "cordon-required",
            "wait-for-jobs-required",
            "pod-deletion-required",
            "drain-required",
            "node-maintenance-required",
            "pod-restart-required",
            "validation-required",
            "uncordon-required",
            "upgrade-failed",
        ),
    ),
    Mark("kured", "annotation", "weave.works/kured-reboot-in-progress"),
    Mark("kured", "annotation", "kured.dev/reboot-in-progress"),
    Mark("cluster-api", "annotation", "cluster.x-k8s.io/delete-machine"),
    Mark("node-maintenance-operator", "taint", "medik8s.io/drain"),
    Mark("node-maintenance-operator", "taint", "kubevirt.io/drain"),
    Mark("nvsentinel", "annotation", "quarantineHealthEvent"),
    Mark(
        "nvsentinel",
        "label",
        "dgxc.nvidia.com/nvsentinel-state",
        ("quarantined", "draining", "drain-succeeded", "remediating", "drain-failed", "remediation-failed"),
    ),
)

ANNOTATIONS: Final = tuple(mark.key for mark in MARKS if mark.kind == "annotation")


def claimed_by_other(node: NodeView) -> str | None:
    """Who else works on this node, with the mark that says so, or None."""
    for mark in MARKS:
        value = _value(node, mark)
        if value is not None and (not mark.values or value in mark.values):
            return f"{mark.owner} ({mark.kind} {mark.key})"
    return None


def _value(node: NodeView, mark: Mark) -> str | None:
    if mark.kind == "taint":
        taint = node.taint(mark.key)
        return None if taint is None else taint.value
    found = node.labels if mark.kind == "label" else node.annotations
    return found.get(mark.key) or None
