"""Our taint was lost by a controller that people have listed: it is put back, a few times. Pure.

Everybody else who takes our taint away has said No (core.veto). The listed one is believed to have
written an old list, and only where a live watch showed that very write (decision 0020).
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from remediator.core import patches
from remediator.core.account import run_state
from remediator.core.prior import read_prior
from remediator.core.run_view import RunView
from remediator.core.steps.quarantine import because
from remediator.model.action import PatchNode
from remediator.model.instant import write_instant
from remediator.model.meta import Condition
from remediator.model.playbook import action_name
from remediator.model.remediation import RemediationStatus
from remediator.model.views import Rewrite

PUT_BACKS_MAX: Final = 5
# In these steps nothing is lost by a moment without the fence: pods are looked at anew, or stay. From the end
# of the drain to the end of the repair, pods that came in the gap would be rebooted.
_STEPS: Final = frozenset(("quarantine", "swap", "collect", "drain", "verify"))


def taint_lost(view: RunView) -> Rewrite | None:
    """The write that lost our taint, where it is to be put back; None where it is not ours to undo."""
    node, current = view.node, view.step()
    if node is None or node.rewrite is None or view.quarantined or current is None:
        return None
    if node.rewrite.manager not in view.policy.rewriters or action_name(current[0]) not in _STEPS:
        return None
    # Without what stood before us a later undo would lift a cordon that is somebody else's.
    if read_prior(node) is None and not view.status.prior:
        return None
    known = view.status.taint_lost == node.rewrite.text
    return node.rewrite if known or view.status.put_backs < PUT_BACKS_MAX else None


def counted(view: RunView, lost: Rewrite) -> RemediationStatus | None:
    """The record with this loss in it; None when it stands there already."""
    status = view.status
    if status.taint_lost == lost.text:
        return None
    count = status.put_backs + 1
    message = f"{lost.manager} took our taint away: it is put back ({count} of {PUT_BACKS_MAX} times)"
    told = Condition(
        type="TaintLost",
        status="True",
        reason="PutBack",
        message=message,
        last_transition_time=write_instant(view.now),
    )
    others = tuple(each for each in status.conditions if each.type != told.type)
    return replace(
        status,
        state=run_state(view.run).value,
        taint_lost=lost.text,
        put_backs=count,
        message=message,
        conditions=(*others, told),
    )


def fence(view: RunView) -> PatchNode:
    """Taint, cordon and marks as the quarantine step wrote them, with what stood before it."""
    node = view.node
    assert node is not None
    step = next(each for each in view.playbook.steps if each.quarantine is not UNSET)
    assert step.quarantine is not UNSET
    patch = patches.quarantine(
        node,
        mark=view.mark(step.id),
        value=step.quarantine.value,
        cordon=step.quarantine.cordon,
        prior=view.prior,
        because=because(view),
    )
    return PatchNode(name=node.name, uid=node.uid, resource_version=node.resource_version, patch=patch)
