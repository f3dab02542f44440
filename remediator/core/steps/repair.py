"""Repair: one Job a run, none for a machine that has booted; or the hand-off. The end is only observed."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Final

from msgspec import UNSET

from remediator.core.run_view import RunView
from remediator.model.action import CreateJob
from remediator.model.decision import Act, Decision, Done, GiveUp, Look, Wait
from remediator.model.duration import seconds
from remediator.model.instant import read_instant
from remediator.model.keys import LABEL_NODE, LABEL_REPAIR
from remediator.model.playbook import JobRepair, RepairStep
from remediator.model.remediation import RunState, StepStatus

POLL_S: Final = 2.0
RUN_PART_MAX: Final = 50
JOB_S_MIN: Final = 10.0


def decide_repair(view: RunView, step: RepairStep, status: StepStatus) -> Decision:
    """Send the repair Job once, then wait for another bootID.

    The same fault class again within the playbook's memory goes to people, not to a second
    reboot. The Job carries EXPECTED_BOOT_ID and must exit unless the machine still runs it, so
    that even a Job that starts late reboots nothing twice.
    """
    if step.handoff is not UNSET:
        return GiveUp(RunState.HANDED_OFF, "HandedOff", f"handed to {step.handoff.queue}")
    assert step.job is not UNSET
    assert view.node is not None
    if view.strikes > 0 and view.run.spec.trigger != "Return":  # whoever asks again has looked at it
        message = (
            f"{view.run.spec.fault_class} again after {view.strikes} repairs within {view.playbook.memory}"
        )
        return GiveUp(RunState.HANDED_OFF, "RepairedBefore", message)
    expected = view.status.repair_boot_id or view.run.spec.boot_id
    if expected and view.node.boot_id and view.node.boot_id != expected:
        return Done(reason="the machine has booted anew", note=f"{expected} -> {view.node.boot_id}")
    started = read_instant(status.started_at) or view.now
    deadline = started + timedelta(seconds=seconds(step.job.timeout))
    if not view.job_known and view.policy.repair is not UNSET:
        if view.now >= deadline:  # it can't be read, and nothing but a new boot would end this step
            return GiveUp(RunState.FAILED, "RepairTimedOut", f"no new bootID within {step.job.timeout}")
        return Wait(after_s=0.0, reason="looking for the repair Job", look=Look.JOB)
    if view.job is None and view.repairs_before >= view.policy.max_repairs:
        # Repairs that came first have time-outs of their own, so this ends.
        reason = f"{view.policy.max_repairs} repairs are under way (maxRepairs)"
        return Wait(after_s=POLL_S * 5, reason=reason, blocked="RepairsBusy", idle=True)
    if view.now >= deadline:
        return GiveUp(RunState.FAILED, "RepairTimedOut", f"no new bootID within {step.job.timeout}")
    if view.job is not None:
        return _watch_job(view, deadline_text=step.job.timeout)
    return _send(view, step.job, status, expected, left_s=(deadline - view.now).total_seconds())


def job_name(run: str, step_id: str, attempt: int) -> str:
    """One name per attempt, so that the API server itself refuses a second Job.

    A long run name is cut and told apart by a hash: its end is what makes it this run's.
    """
    if len(run) > RUN_PART_MAX:
        digest = hashlib.sha256(run.encode()).hexdigest()[:6]
        run = f"{run[: RUN_PART_MAX - 7].rstrip('-.')}-{digest}"
    return f"{run}-{step_id[:8]}-{attempt}"


def _watch_job(view: RunView, deadline_text: str) -> Decision:
    assert view.job is not None
    if view.job.failed:
        return GiveUp(
            RunState.FAILED, "RepairFailed", f"Job {view.job.name}: {view.job.message or 'failed'}"[:240]
        )
    state = "has finished; waiting for a new bootID" if view.job.succeeded else "is at work"
    return Wait(after_s=POLL_S, reason=f"Job {view.job.name} {state}, within {deadline_text}")


def _send(view: RunView, job: JobRepair, status: StepStatus, expected: str, *, left_s: float) -> Decision:
    assert view.node is not None
    if left_s < JOB_S_MIN:
        return Wait(after_s=POLL_S, reason="too late to send a repair Job", blocked="RepairTooLate")
    if view.policy.repair is UNSET:
        return Wait(after_s=30.0, reason="policy.spec.repair is not set", blocked="NoRepairNamespace")
    if not view.node.ready:
        reason = "the node is not Ready: a Job would not run (waiting for people or a new boot)"
        return Wait(after_s=POLL_S, reason=reason, blocked="NodeNotReady")
    if not expected:
        return GiveUp(
            RunState.FAILED, "NoBootID", "the node publishes no bootID: a reboot could not be proved"
        )
    node = view.node.name
    action = CreateJob(
        namespace=view.policy.repair.namespace,
        name=job_name(view.name, status.id, status.attempt),
        template=job.template,
        node=node,
        labels={LABEL_REPAIR: view.name, LABEL_NODE: node[:63].rstrip("-._")},
        env={"NODE_NAME": node, "EXPECTED_BOOT_ID": expected, "REMEDIATION": view.name},
        # Its own end is the step's: a Job that outlived the run could reboot a node that serves again.
        deadline_s=int(left_s),
    )
    return Act(actions=(action,), reason=f"sending Job {action.name}")
