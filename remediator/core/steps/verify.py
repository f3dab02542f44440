"""Verify: no machine comes back without evidence. A reply is not evidence; silence is not health."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from msgspec import UNSET

from remediator.core.dcgm import old_name
from remediator.core.run_view import RunView
from remediator.core.steps.give_back import return_target
from remediator.model.decision import Decision, Done, GiveUp, Wait
from remediator.model.duration import seconds
from remediator.model.instant import read_instant
from remediator.model.playbook import VerifyStep
from remediator.model.remediation import RunState, StepStatus
from remediator.model.views import NodeView

POLL_S: Final = 1.0


def decide_verify(view: RunView, step: VerifyStep, status: StepStatus) -> Decision:
    """Wait until fresh positive signals have held for ``quietFor`` without a gap.

    The soak begins anew whenever something is bad or unknown. At the time-out the machine stays
    out.
    """
    started = read_instant(status.started_at) or view.now
    deadline = started + timedelta(seconds=seconds(step.timeout))
    missing = what_is_missing(view, step)
    if missing is not None:
        if view.now >= deadline:
            return GiveUp(RunState.FAILED, "VerifyFailed", missing)
        return Wait(after_s=POLL_S, reason=missing, until=deadline, blocked="SignalsNotGood", quiet=False)
    since = read_instant(view.status.quiet_since)
    if since is None:
        return Wait(after_s=POLL_S, reason=f"good signals, for {step.quiet_for}", until=deadline, quiet=True)
    left_s = seconds(step.quiet_for) - (view.now - since).total_seconds()
    if left_s <= 0:
        return Done(reason=f"good signals for {step.quiet_for}")
    ends = view.now + timedelta(seconds=left_s)
    return Wait(
        after_s=min(left_s, POLL_S * 5), reason=f"good signals, for {step.quiet_for}", until=ends, quiet=True
    )


def what_is_missing(view: RunView, step: VerifyStep) -> str | None:
    """The first thing that speaks against the machine, or None when all is well."""
    node = view.node
    assert node is not None
    if not node.ready:
        return "the node is not Ready"
    expected = view.status.repair_boot_id or view.run.spec.boot_id
    if step.boot_changed and (not expected or not node.boot_id):
        return "the bootID is not known, so it can't have changed"
    if step.boot_changed and node.boot_id == expected:
        return "the bootID has not changed"
    if view.signals:
        return f"still true: {view.signals[0]}"
    unknown = view.signals_unknown or _trigger_unknown(view, node)
    if unknown:
        return unknown
    # Where it goes decides: a machine that comes from people has no pool any more.
    pool = return_target(view) if view.run.spec.return_to else view.home
    hardware = pool.spec.hardware_class if pool is not None else UNSET
    if not step.gpus_equal_class or hardware is UNSET:
        return None
    if node.gpus != hardware.gpus:
        return f"{node.gpus} of {hardware.gpus} GPUs allocatable"
    if view.reading is not None and len(view.reading.gpus) != hardware.gpus:
        return f"{len(view.reading.gpus)} of {hardware.gpus} GPUs on the exporter's page"
    return None


def _trigger_unknown(view: RunView, node: NodeView) -> str:
    """What the run began with has to be seen good: a detector that fell silent is no cure.

    An XID is its latch, which ends with the boot; its sample may be absent on a healthy GPU.
    """
    for evidence in view.run.spec.evidence:
        if evidence.source == "condition":
            found = node.condition(evidence.key)
            if found is None:
                return f"condition {evidence.key} is not published any more"
            if found.status not in ("True", "False"):
                return f"condition {evidence.key} is {found.status}"
        if evidence.source == "exporter" and evidence.key != "xid" and view.reading is not None:
            name = old_name(evidence.key)
            if all(gpu.value(name) is None for gpu in view.reading.gpus):
                return f"no {evidence.key} on the exporter's page"
    return ""
