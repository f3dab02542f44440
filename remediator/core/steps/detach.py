"""Detach: the empty node leaves its pool, and goes to the Repair pool where there is one."""

from __future__ import annotations

from remediator.core import patches
from remediator.core.run_view import RunView
from remediator.model.action import PatchNode
from remediator.model.decision import Act, Decision, Done


def decide_detach(view: RunView, step_id: str) -> Decision:
    """Take the membership label and the projection of the pool away: one patch."""
    node = view.node
    assert node is not None
    membership = view.home.spec.membership if view.home is not None else None
    if membership is None or node.labels.get(membership.key) != membership.value:
        return Done(reason="not a member of its pool")
    assert view.home is not None
    if view.repair_pool is not None and view.repair_pool.metadata.name == view.home.metadata.name:
        return Done(reason="in the Repair pool already")
    prior = patches.what_detach_takes(
        node, view.home.spec, view.prior, view.repair_pool.spec if view.repair_pool is not None else None
    )
    patch = patches.detach(
        node,
        mark=view.mark(step_id),
        pool=view.home.spec,
        repair=view.repair_pool.spec if view.repair_pool is not None else None,
        prior=prior,
    )
    action = PatchNode(name=node.name, uid=node.uid, resource_version=node.resource_version, patch=patch)
    return Act(actions=(action,), reason=f"detaching from {view.home.metadata.name}")
