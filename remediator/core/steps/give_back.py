"""Return: the proved machine leaves quarantine and becomes a spare on probation."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from remediator.core import patches
from remediator.core.account import handed_over
from remediator.core.run_view import RunView
from remediator.model.action import PatchNode
from remediator.model.decision import Act, Decision, Done, GiveUp, Wait
from remediator.model.duration import seconds
from remediator.model.instant import read_instant, write_instant
from remediator.model.playbook import ReturnStep
from remediator.model.pool import ResourcePool
from remediator.model.remediation import RunState, StepStatus

NO_BUFFER_MAX: Final = timedelta(hours=24)


def decide_return(view: RunView, step: ReturnStep, status: StepStatus) -> Decision:
    """Lift our taint and cordon; join the pool that the record names, or the buffer.

    Where no spare took its place, the node goes back to its own pool instead: the place is
    still empty. Where there is no buffer for a day, people are handed a machine that is well.
    """
    node = view.node
    assert node is not None
    target = return_target(view)
    if target is None:
        deadline = (read_instant(status.started_at) or view.now) + NO_BUFFER_MAX
        named = view.run.spec.return_to
        reason = f"no pool {named} to return to" if named else "no Buffer pool to return to"
        if view.now >= deadline:
            return GiveUp(RunState.HANDED_OFF, "NoBuffer", f"{reason}; the machine is well, and stays out")
        return Wait(after_s=30.0, reason=reason, until=deadline, blocked="NoBuffer")
    membership = target.spec.membership
    member = node.labels.get(membership.key) == membership.value
    if member and not view.quarantined and not view.marked:
        return Done(reason=f"in {target.metadata.name}", note=target.metadata.name)
    to_buffer = target.spec.role == "Buffer"
    until = view.now + timedelta(seconds=seconds(step.probation))
    leaving = tuple(
        pool.spec
        for pool in (view.home, view.repair_pool)
        if pool is not None and pool.metadata.name != target.metadata.name
    )
    patch = patches.give_back(
        node,
        target=target.spec,
        leaving=leaving,
        prior=view.prior,
        probation_until=write_instant(until.replace(microsecond=0)) if to_buffer else "",
    )
    action = PatchNode(name=node.name, uid=node.uid, resource_version=node.resource_version, patch=patch)
    return Act(actions=(action,), reason=f"returning to {target.metadata.name}")


def return_target(view: RunView) -> ResourcePool | None:
    """The pool that the record names; else the buffer where a spare took the place, or the own pool."""
    if view.run.spec.return_to:
        return view.buffer
    if view.home is not None and view.home.spec.role == "Workload" and not handed_over(view.run):
        return view.home
    return view.buffer
