"""Swap: the granted spare joins the pool, with one patch, after one last look at it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from msgspec import UNSET

from remediator.core import patches
from remediator.core.run_view import RunView
from remediator.core.spares import unfit
from remediator.model.action import PatchNode
from remediator.model.decision import Act, Decision, Done, GiveUp, Wait
from remediator.model.duration import seconds
from remediator.model.instant import read_instant
from remediator.model.playbook import SwapStep
from remediator.model.pool import ResourcePool
from remediator.model.remediation import RunState, StepStatus
from remediator.model.views import NodeView

POLL_S: Final = 2.0


def decide_swap(view: RunView, step: SwapStep, status: StepStatus | None) -> Decision:
    """Hand the granted spare over.

    Without a grant for a spare (declared ``noSpare: WithoutSpare``) the step is skipped. A spare
    that is no longer fit is not used: the next fleet pass claims another one. At the time-out a
    soft fault ends before any harm; a node that is out already goes on without a spare, and so does
    one whose soft fault a hard one has joined: it is not left in its pool until a spare is free.
    """
    started = read_instant(status.started_at) if status is not None else None
    late = started is not None and view.now >= started + timedelta(seconds=seconds(step.timeout))
    if view.home is None:
        return Done(reason="the node is in no pool", skipped=True)
    if view.home.spec.role != "Workload":
        return Done(reason=f"{view.home.metadata.name} is no workload pool", skipped=True)
    hurry = bool(view.status.raised_by) and view.did("quarantine") is None
    if view.spare is not None and _is_member(view.spare, view.home):
        return _arrived(view.spare, late or hurry)
    if view.run.spec.spare is UNSET and view.playbook.no_spare == "WithoutSpare":
        return Done(reason="no spare was free; noSpare: WithoutSpare", skipped=True)
    reason = _not_now(view)
    if reason is not None:
        if hurry:
            return Done(reason=f"{reason}; a hard fault waits for none", skipped=True)
        if late:
            return _too_late(view, reason)
        return Wait(after_s=POLL_S, reason=reason, blocked="NoSpareNow")
    assert view.spare is not None
    assert view.spare_home is not None
    patch = patches.hand_over(view.spare, pool=view.home.spec, buffer=view.spare_home.spec)
    spare = view.spare
    action = PatchNode(name=spare.name, uid=spare.uid, resource_version=spare.resource_version, patch=patch)
    return Act(actions=(action,), reason=f"handing {spare.name} over")


def _is_member(node: NodeView, pool: ResourcePool) -> bool:
    return node.labels.get(pool.spec.membership.key) == pool.spec.membership.value


def _arrived(spare: NodeView, late: bool) -> Decision:
    if spare.ready and not spare.unschedulable:
        return Done(reason=f"{spare.name} is a member", note=f"{spare.name} {spare.uid}")
    state = "cordoned" if spare.unschedulable else "not Ready"
    if late:
        return Done(reason=f"{spare.name} is a member, but {state}", note=f"{spare.name} {spare.uid}")
    return Wait(after_s=POLL_S, reason=f"{spare.name} is a member, but {state}", blocked="SpareNotServing")


def _not_now(view: RunView) -> str | None:
    """Why the hand-over may not happen in this pass."""
    if view.grant is None:
        return "no grant"
    if not view.grant.spare:
        return "no spare is free"
    if view.spare is None or view.spare_home is None or view.home is None:
        return f"spare {view.grant.spare} is gone"
    assert view.node is not None
    chosen = view.run.spec.spare
    if chosen is not UNSET and chosen.name == view.spare.name and chosen.uid != view.spare.uid:
        return f"spare {view.spare.name} is another Node than the one that was granted"
    why = unfit(view.spare, view.node, view.home.spec, view.spare_home, view.fleetwide)
    return f"spare {view.spare.name}: {why}" if why is not None else None


def _too_late(view: RunView, reason: str) -> Decision:
    if view.did("quarantine") is None:
        return GiveUp(RunState.FAILED, "NoSpareInTime", f"{reason}; nothing was done to the node")
    return Done(reason=f"{reason}; the place stays empty", skipped=True)
