"""A person's No in mid-run: how we know it, and what undoing means. Pure.

What decides between "our write never landed" and "somebody took it back": a stored result first;
without one, the mark that the same patch wrote. Only when neither result nor mark is there was
nothing applied.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from remediator.core import patches
from remediator.core.put_back import taint_lost
from remediator.core.run_view import RunView
from remediator.core.steps.give_back import return_target
from remediator.model.action import PatchNode
from remediator.model.decision import Act, Decision, Done, Veto
from remediator.model.playbook import action_name

_LIFTED: Final = ("TaintRemoved", "Uncordoned")


def find_veto(view: RunView) -> Veto | None:
    """Why this run has to stop and take itself back, or None."""
    cancel = view.run.spec.cancel
    if cancel is not UNSET:
        return Veto("CancelledByUser", cancel.reason or "cancelled", by=cancel.by)
    if view.hold:
        return Veto("HoldActive", view.hold)
    current = view.step()
    action = action_name(current[0]) if current is not None else ""
    if action == "return" and _free_as_returned(view):
        return None
    return _taken_back(view, action) or _moved_away(view)


def _taken_back(view: RunView, action: str) -> Veto | None:
    """Our taint or cordon was there, and is not any more."""
    # A run on a machine that is out begins behind a fence: without one, somebody has lifted it.
    fenced = view.run.spec.trigger == "Return"
    applied = fenced or view.did("quarantine") is not None or (action == "quarantine" and view.marked)
    if not applied or view.node is None:
        return None
    cordons = any(step.quarantine is not UNSET and step.quarantine.cordon for step in view.playbook.steps)
    if not view.quarantined and taint_lost(view) is not None:
        return None
    if not view.quarantined:
        return Veto("TaintRemoved", f"{_who(view)} removed our taint")
    if cordons and not view.node.unschedulable:
        return Veto("Uncordoned", "somebody uncordoned the node")
    return None


def _who(view: RunView) -> str:
    """Somebody; by name where a live watch has shown it."""
    rewrite = view.node.rewrite if view.node is not None else None
    return rewrite.manager if rewrite is not None else "somebody"


def _moved_away(view: RunView) -> Veto | None:
    """Before the detach the node has to be where it was at the grant."""
    begun = view.did("detach") is not None or any(each.action == "detach" for each in view.status.steps)
    if view.home is None or begun or view.node is None or not view.run.spec.pool:
        return None
    membership = view.home.spec.membership
    if view.node.labels.get(membership.key) == membership.value:
        return None
    return Veto("PoolChanged", f"somebody moved the node out of pool {view.run.spec.pool}")


def _free_as_returned(view: RunView) -> bool:
    target = return_target(view)
    if view.node is None or target is None:
        return False
    membership = target.spec.membership
    # Our own patch takes the mark away too: without the taint but with the mark it was a person.
    return (
        not view.quarantined and not view.marked and view.node.labels.get(membership.key) == membership.value
    )


def keeps_out(view: RunView, veto: Veto) -> bool:
    """Does this No leave the machine out, as it was before the run?

    Who stops the way back of a machine does not say that it is well; who lifts the quarantine does.
    """
    return view.run.spec.trigger == "Return" and veto.reason not in _LIFTED


def decide_undo(view: RunView) -> Decision:
    """Restore what stood before the run: one patch, or nothing when nothing of ours is left."""
    node = view.node
    if node is None or not (view.marked or (view.quarantined and view.did("quarantine") is not None)):
        return Done(reason="nothing of ours is on the node")
    leaving = (view.repair_pool.spec,) if view.repair_pool is not None else ()
    patch = patches.restore(node, view.prior, leaving)
    action = PatchNode(name=node.name, uid=node.uid, resource_version=node.resource_version, patch=patch)
    return Act(actions=(action,), reason="restoring the node as it was before the run")
