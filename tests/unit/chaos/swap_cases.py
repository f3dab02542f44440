"""Traces about one node that stands in for another, and about what is not the controller's to take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from remediator.chaos.profile import Pools
from tests.unit.chaos.trace import FENCE, POOL, THEM, Trace, a_node, merged

Play = Callable[[Trace], None]

LEAVER, SPARE, OTHER = "gpu-1", "spare-1", "spare-2"

#: What these rules need of a profile, beside that of remediator. Pools are named by the label ``pool``.
FIELDS: dict[str, Any] = {"pools": Pools(label="pool", spare=("buffer",), alike=("gpu",)), "floor": 1}


def born(trace: Trace, name: str, pool: str, gpu: str = "h100") -> None:
    trace.write("create", "nodes", name, user="kubelet", left=a_node(POOL, pool=pool, gpu=gpu))


def fleet(trace: Trace) -> None:
    """One node of the pool, and two spares."""
    born(trace, LEAVER, "train")
    born(trace, SPARE, "buffer")
    born(trace, OTHER, "buffer")


def move(trace: Trace, name: str, pool: str, *taints: dict[str, str], run: str = "m-1") -> None:
    """The controller writes the Node as one of this pool, with these taints."""
    left = a_node(*taints, pool=pool, gpu="h100")
    trace.write("patch", "nodes", name, sent={"metadata": {"resourceVersion": "1"}}, left=left, run=run)


def promise(trace: Trace, *spares: str) -> None:
    grants = [{"run": f"m-{number}", "spare": spare} for number, spare in enumerate(spares, start=1)]
    left = {"status": {"grants": grants}}
    trace.write("update", "remediationpolicies", "cluster", subresource="status", left=left)


def fence_another(trace: Trace) -> None:
    born(trace, "gpu-2", "train")
    move(trace, "gpu-2", "train", FENCE, run="m-2")


def hide_behind_a_label(trace: Trace) -> None:
    """One may be out, and one is: it has only lost its label."""
    fleet(trace)
    move(trace, LEAVER, "repair", FENCE)
    fence_another(trace)


def swap_and_fence_another(trace: Trace) -> None:
    fleet(trace)
    move(trace, LEAVER, "train", FENCE)
    move(trace, SPARE, "train")
    move(trace, LEAVER, "repair", FENCE)
    fence_another(trace)


def return_and_fence_another(trace: Trace) -> None:
    """Nobody has come for it, and it is well again: what it does now is another matter."""
    fleet(trace)
    move(trace, LEAVER, "repair", FENCE)
    move(trace, LEAVER, "buffer")
    fence_another(trace)


def lose_and_fence_another(trace: Trace) -> None:
    """Its Node is deleted by somebody else: that is not this controller's doing."""
    fleet(trace)
    move(trace, LEAVER, "repair", FENCE)
    trace.write("delete", "nodes", LEAVER, user=THEM)
    fence_another(trace)


def leave_first(trace: Trace) -> None:
    fleet(trace)
    promise(trace, SPARE)
    move(trace, LEAVER, "train", FENCE)
    move(trace, LEAVER, "", FENCE)


def leave_last(trace: Trace) -> None:
    fleet(trace)
    promise(trace, SPARE)
    move(trace, LEAVER, "train", FENCE)
    move(trace, SPARE, "train")
    move(trace, LEAVER, "", FENCE)


def leave_for_nobody(trace: Trace) -> None:
    """No spare was promised to this work, or the one that was is gone."""
    fleet(trace)
    promise(trace, "", OTHER)
    move(trace, LEAVER, "train", FENCE)
    move(trace, LEAVER, "", FENCE)


def leave_when_the_spare_is_gone(trace: Trace) -> None:
    fleet(trace)
    promise(trace, SPARE)
    move(trace, LEAVER, "train", FENCE)
    trace.write("delete", "nodes", SPARE, user=THEM)
    move(trace, LEAVER, "", FENCE)


def leave_when_the_spare_is_sick(trace: Trace) -> None:
    """Found by seeds 160001 and 50023 of the reference controller: the spare broke too, and was fenced."""
    fleet(trace)
    promise(trace, SPARE)
    move(trace, LEAVER, "train", FENCE)
    move(trace, SPARE, "buffer", FENCE)
    move(trace, LEAVER, "", FENCE)


def leave_when_the_spare_was_sick(trace: Trace) -> None:
    """It is well again by the time at which the other leaves, which has been emptied for nobody since."""
    fleet(trace)
    promise(trace, SPARE)
    move(trace, LEAVER, "train", FENCE)
    move(trace, SPARE, "buffer", FENCE)
    move(trace, SPARE, "buffer")
    move(trace, LEAVER, "", FENCE)


def work_on(trace: Trace, node: str) -> None:
    left = {"kind": "Remediation", "spec": {"node": {"name": node}}, "status": {"state": "Granted"}}
    trace.write("patch", "remediations", "m-1", subresource="status", sent={}, left=left)


def take_another_kind(trace: Trace) -> None:
    born(trace, LEAVER, "train", gpu="h200")
    born(trace, SPARE, "buffer")
    work_on(trace, LEAVER)
    move(trace, SPARE, "train")


def take_the_same_kind(trace: Trace) -> None:
    fleet(trace)
    work_on(trace, LEAVER)
    move(trace, SPARE, "train")


def take_another_kind_back(trace: Trace) -> None:
    """What leaves for the buffer stands in for nobody."""
    take_the_same_kind(trace)
    born(trace, "gpu-9", "train", gpu="h200")
    move(trace, "gpu-9", "buffer")


def promise_the_last(trace: Trace) -> None:
    fleet(trace)
    promise(trace, SPARE, OTHER)


def promise_all_but_one(trace: Trace) -> None:
    fleet(trace)
    promise(trace, SPARE)
    promise(trace, SPARE)  # nothing new is promised


def holds(trace: Trace, *finalizers: str) -> None:
    """Somebody makes an object with these finalizers."""
    trace.write("create", "configmaps", "c", user=THEM, namespace="work", left=_with(*finalizers))


def writes(trace: Trace, *finalizers: str, **more: Any) -> None:
    trace.write("patch", "configmaps", "c", namespace="work", sent={}, left=_with(*finalizers), **more)


def _with(*finalizers: str) -> dict[str, Any]:
    return {"metadata": {"finalizers": list(finalizers)}} if finalizers else {}


def strip_a_finalizer(trace: Trace) -> None:
    holds(trace, "storage.example.com/protect", "remediator.dev/x")
    writes(trace, "remediator.dev/x")


def strip_all_finalizers(trace: Trace) -> None:
    holds(trace, "storage.example.com/protect")
    writes(trace)


def strip_our_finalizer(trace: Trace) -> None:
    holds(trace, "storage.example.com/protect", "remediator.dev/x")
    writes(trace, "storage.example.com/protect")


def write_what_somebody_has_stripped(trace: Trace) -> None:
    holds(trace, "storage.example.com/protect", "remediator.dev/x")
    writes(trace, "remediator.dev/x", user=THEM)
    writes(trace, "remediator.dev/x")


def saw(trace: Trace, home: str) -> None:
    """The leader's pod runs on this node, and LEAVER is fenced."""
    fleet(trace)
    target = {"target": {"name": home}}
    pod = "remediator-7d-x"
    trace.write("create", "pods", pod, user="s", subresource="binding", namespace="remediator", sent=target)
    lease = {"spec": {"holderIdentity": f"{pod}_1f3a"}}
    trace.write("update", "leases", "remediator", namespace="remediator", left=lease)
    taints = {"metadata": {"resourceVersion": "1"}, "spec": {"taints": [FENCE]}}
    trace.write("patch", "nodes", LEAVER, sent=taints, left=merged(a_node(FENCE), {}))


def saw_its_branch(trace: Trace) -> None:
    saw(trace, LEAVER)


def saw_another_branch(trace: Trace) -> None:
    saw(trace, SPARE)


CASES: dict[str, tuple[tuple[Play, ...], tuple[Play, ...]]] = {
    "S2": (
        (hide_behind_a_label,),
        (swap_and_fence_another, return_and_fence_another, lose_and_fence_another),
    ),
    "S15": ((promise_the_last,), (promise_all_but_one,)),
    "S16": (
        (leave_first,),
        (
            leave_last,
            leave_for_nobody,
            leave_when_the_spare_is_gone,
            leave_when_the_spare_is_sick,
            leave_when_the_spare_was_sick,
        ),
    ),
    "S17": ((take_another_kind,), (take_the_same_kind, take_another_kind_back)),
    "S26": (
        (strip_a_finalizer, strip_all_finalizers),
        (strip_our_finalizer, write_what_somebody_has_stripped),
    ),
    "S31": ((saw_its_branch,), (saw_another_branch,)),
}
