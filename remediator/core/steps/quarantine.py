"""Quarantine: our taint and the cordon, in one patch, before anything else happens to the node."""

from __future__ import annotations

from remediator.core import patches
from remediator.core.prior import Prior, read_prior
from remediator.core.run_view import RunView
from remediator.model.action import PatchNode
from remediator.model.decision import Act, Decision, Done
from remediator.model.playbook import QuarantineStep


def decide_quarantine(view: RunView, step: QuarantineStep, step_id: str) -> Decision:
    """Taint and cordon the node, or say that both are seen.

    A node that an earlier run of this machine left quarantined keeps that run's ``prior``: what
    stood before the first of our writes is what has to come back.
    """
    node = view.node
    assert node is not None
    if view.marked and view.quarantined and (node.unschedulable or not step.cordon):
        return Done(reason="tainted and cordoned" if step.cordon else "tainted")
    prior = read_prior(node) if view.quarantined else None
    patch = patches.quarantine(
        node,
        mark=view.mark(step_id),
        value=step.value,
        cordon=step.cordon,
        # Without a cordon of ours, one that comes later is somebody else's and stays as well.
        prior=prior or Prior(unschedulable=node.unschedulable or not step.cordon),
        because=because(view),
    )
    action = PatchNode(name=node.name, uid=node.uid, resource_version=node.resource_version, patch=patch)
    return Act(actions=(action,), reason="quarantining")


def because(view: RunView) -> str:
    """One line for `kubectl describe node`."""
    evidence = view.run.spec.evidence
    what = evidence[0].text if evidence else view.run.spec.fault_class
    return f"{what}; run {view.name}; kubectl remediator why {view.run.spec.node.name}"
