"""A kubelet that is not heard: is it believed, and may what ran there be started elsewhere? Pure.

Silence is believed when two witnesses agree, the Node's condition and its Lease, and when most of
the zone is heard. A silent kubelet gets no evictions: they would never end. Its pods count as
stopped only with proof that the machine is off; only then may a volume be attached elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import UNSET

from remediator.core import patches
from remediator.core.coverage import condition_coverage, uncovered
from remediator.model.action import PatchNode
from remediator.model.decision import Act, Decision, Wait
from remediator.model.keys import (
    ANNOTATION_FENCED,
    OUT_OF_SERVICE_VALUE,
    TAINT_OUT_OF_SERVICE,
    TAINT_SHUTDOWN,
)
from remediator.model.playbook import Matcher, PlaybookSpec
from remediator.model.views import LeaseView, NodeView

POLL_S: Final = 1.0
PROOF_POLL_S: Final = 5.0
FENCING_REQUIRED: Final = "FencingRequired"
ZONE: Final = "topology.kubernetes.io/zone"
SETTLE_S: Final = 300.0  # a rack that had no power comes back machine by machine, within minutes
LONE: Final = 1  # one silent node is a fault of that node, however small its zone is


def silent(node: NodeView | None) -> bool:
    """Does the control plane say that it hears nothing of this node's kubelet?"""
    found = node.condition("Ready") if node is not None else None
    return found is not None and found.status == "Unknown"


def acts_on_silence(spec: PlaybookSpec) -> bool:
    """Does any matcher of the playbook take a silent kubelet for a fault?"""
    return any(is_silence(each) for each in spec.match.any_of)


def is_silence(matcher: Matcher) -> bool:
    """Does this matcher look for Ready=Unknown?"""
    found = matcher.node_condition
    return found is not UNSET and found.type == "Ready" and found.status == "Unknown"


def contradiction(lease: LeaseView | None) -> str | None:
    """Why the second witness does not confirm the silence, or None when it does.

    Source: Kubernetes docs, "Node heartbeats": kubelets renew their Lease every 10 s, and write the
    Node's status much less often.
    """
    if lease is None:
        return "the node has no Lease: there is no second witness of its silence"
    if lease.age_s <= lease.duration_s:
        return f"its Lease was renewed {lease.age_s:.0f} s ago: the kubelet lives"
    return None


def silent_zones(nodes: Iterable[NodeView], percent: int) -> Mapping[str, str]:
    """Zones in which too few kubelets are heard to believe any silence, with the reason.

    A network that is cut looks from here like many dead machines.

    Args:
        percent: of the zone's nodes must be heard, exactly that many being enough.
    """
    seen = condition_coverage(nodes, zone_of)
    reasons = {}
    for zone in sorted(seen.expected):
        lost = seen.expected[zone] - seen.fresh[zone]
        if lost > LONE and uncovered(seen, zone, percent) is not None:
            where = f"zone {zone}" if zone else "nodes without a zone"
            heard, of = seen.fresh[zone], seen.expected[zone]
            reasons[zone] = f"{heard} of {of} kubelets are heard in {where}, needs {percent} %"
    return reasons


def settling(doubted_at: Mapping[str, float], now_s: float) -> Mapping[str, str]:
    """Zones in which most kubelets are heard again, and the silence of the last ones says nothing yet.

    Args:
        doubted_at: when each zone was last one of ``silent_zones``, in monotonic seconds.
        now_s: the same now.
    """
    return {
        zone: f"most of the zone fell silent, {now_s - at:.0f} s ago the last time; "
        f"within {SETTLE_S:.0f} s its last kubelets may still come back"
        for zone, at in sorted(doubted_at.items())
        if now_s - at < SETTLE_S
    }


def zone_of(node: NodeView) -> str:
    return node.labels.get(ZONE, "")


def proof_of_fencing(node: NodeView) -> str | None:
    """Why nothing can be running on this silent machine, in words, or None without proof.

    A new bootID is none here: it comes with a kubelet that is heard, and then nothing needs one. A
    machine that its provider deleted has no Node any more, and its run has ended.

    Source: Kubernetes docs, "Non-graceful node shutdown"; cloud-provider's node lifecycle
    controller, which sets the shutdown taint.
    """
    if node.taint(TAINT_SHUTDOWN) is not None:
        return "its provider says that it is shut down"
    if node.taint(TAINT_OUT_OF_SERVICE) is not None:
        return "it is marked out of service"
    if node.annotations.get(ANNOTATION_FENCED) == node.uid:
        return f"a person says so ({ANNOTATION_FENCED})"
    return None


def decide_silent(node: NodeView) -> Decision:
    """Say what to do about pods that a silent kubelet can't end.

    Returns:
        ``Wait`` for proof; with proof ``Act`` to mark the node out of service, on which Kubernetes
        itself removes its pods and detaches their volumes; then ``Wait`` until they are gone.
    """
    proof = proof_of_fencing(node)
    if proof is None:
        return Wait(
            after_s=PROOF_POLL_S,
            reason=_what_is_needed(node),
            blocked=FENCING_REQUIRED,
            # The time of the step starts once the kubelet is heard again: till then it can do nothing.
            idle=True,
            condition=FENCING_REQUIRED,
        )
    if node.taint(TAINT_OUT_OF_SERVICE) is None:
        return Act((_patch(node, patches.out_of_service(node)),), reason=f"out of service: {proof}")
    return Wait(after_s=POLL_S, reason=f"out of service: {proof}; Kubernetes removes its pods", idle=True)


def back_in_service(node: NodeView) -> PatchNode | None:
    """Lift our out-of-service mark, and a person's proof, from a machine that is heard again.

    IMPORTANT: the proof goes too. It was about that power-off; left there, the next silence of the
    same Node would be taken for a machine that is off.
    """
    marked = marked_by_us(node)
    if not node.ready or not (marked or ANNOTATION_FENCED in node.annotations):
        return None
    return _patch(node, patches.in_service(node))


def marked_by_us(node: NodeView) -> bool:
    taint = node.taint(TAINT_OUT_OF_SERVICE)
    return taint is not None and taint.value == OUT_OF_SERVICE_VALUE


def _what_is_needed(node: NodeView) -> str:
    said = node.annotations.get(ANNOTATION_FENCED)
    if said and said != node.uid:
        return f"the kubelet is silent; {ANNOTATION_FENCED} names another uid than this Node's"
    return (
        "the kubelet is silent and nothing proves that the machine is off: power it off, then "
        f"kubectl annotate node {node.name} {ANNOTATION_FENCED}={node.uid}"
    )


def _patch(node: NodeView, patch: Mapping[str, object]) -> PatchNode:
    return PatchNode(name=node.name, uid=node.uid, resource_version=node.resource_version, patch=patch)
