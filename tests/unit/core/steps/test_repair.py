"""Repair: one Job for one boot, a bound, and no success without a new bootID."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from remediator.core.steps.repair import decide_repair, job_name
from remediator.model.action import CreateJob
from remediator.model.decision import Act, Done, GiveUp, Look, Wait
from remediator.model.playbook import HandoffRepair, JobRepair, RepairStep
from remediator.model.remediation import RemediationStatus, RunState, StepStatus
from remediator.model.views import JobView
from tests.unit.core.builders import a_node, a_policy, a_run, a_view, at, quarantined, text

INTENT = StepStatus(id="reboot", action="repair", state="Intent", started_at=text(0))
STEP = RepairStep(job=JobRepair(template="reboot", timeout="30m"))
JOB = JobView("repairs", "m-1-reboot-1", "job-uid")


def decide(node=None, *, now_s=0.0, step=STEP, boot="boot-1", born="boot-1", **fields):
    own = {
        "node": node or quarantined(a_node()),
        "job_known": True,
        "now": at(now_s),
        "run": a_run(boot_id=born, status=RemediationStatus(repair_boot_id=boot)),
    }
    return decide_repair(a_view(**own | fields), step, INTENT)


def test_repair_sends_a_job_that_knows_the_boot_it_may_end():
    """A Job that starts late must not reboot a machine that has booted already."""
    (job,) = decide().actions

    assert isinstance(job, CreateJob)
    assert (job.namespace, job.name, job.template, job.node) == ("repairs", "m-1-reboot-1", "reboot", "gpu-1")
    assert job.env["EXPECTED_BOOT_ID"] == "boot-1"
    assert job.deadline_s == 1_800


def test_repair_looks_for_its_job_before_it_sends_one():
    """A lost reply must not become a second reboot."""
    decision = decide(job_known=False)

    assert isinstance(decision, Wait)
    assert decision.look is Look.JOB
    assert isinstance(decide(job=JOB), Wait)


@pytest.mark.parametrize("length", [1, 50, 72])
def test_job_name_fits_and_is_the_same_for_one_attempt(length):
    """The API server itself refuses the second Job of that name."""
    names = {job_name("r" * length, "reboot-the-node", attempt) for attempt in (1, 1, 2)}

    assert len(names) == 2
    assert all(len(name) <= 63 for name in names)


def test_job_name_tells_the_runs_of_a_long_machine_name_apart():
    """Else the second run finds the first one's Job, and waits for a reboot that nobody was asked for."""
    machine = "rack-12-node-with-a-very-long-asset-tag-in-the-north-hall"
    runs = [f"{machine}-1", f"{machine}-2", f"{machine[:-1]}x-1"]

    assert len({job_name(run, "reboot", 1) for run in runs}) == 3


def test_repair_is_done_when_the_boot_id_changed_and_says_from_what_to_what():
    """Completion is only ever observed; the note is what the repair memory counts."""
    decision = decide(quarantined(a_node(boot_id="boot-2")))

    assert decision == Done(reason="the machine has booted anew", note="boot-1 -> boot-2")


@pytest.mark.parametrize("node", [a_node(boot_id=""), a_node()], ids=["none now", "the same"])
def test_repair_is_not_done_without_a_new_boot_id(node):
    """An empty bootID is unknown, not new."""
    assert not isinstance(decide(node, job=JOB), Done)


def test_repair_without_a_boot_id_to_compare_fails_and_proves_nothing():
    """A bootID that appears where none was known is no reboot."""
    decision = decide(a_node(boot_id="boot-9"), boot="", born="")

    assert isinstance(decision, GiveUp)
    assert (decision.state, decision.reason) == (RunState.FAILED, "NoBootID")


@pytest.mark.parametrize(("now_s", "kind"), [(1_799, Wait), (1_800, GiveUp), (1_801, GiveUp)])
def test_repair_fails_from_its_time_out_on(now_s, kind):
    """A repair that changed nothing must not keep a machine in limbo."""
    assert isinstance(decide(now_s=now_s, job=JOB), kind)


def test_repair_that_worked_is_done_also_after_its_time_out():
    """What was reached in the end counts."""
    assert isinstance(decide(a_node(boot_id="boot-2"), now_s=9_999), Done)


@pytest.mark.parametrize("state", ["failed", "succeeded"])
def test_repair_job_that_failed_ends_the_run_and_one_that_succeeded_proves_nothing(state):
    """The exit code of a reboot is no evidence."""
    job = JobView(
        "repairs", "m-1-reboot-1", "job-uid", failed=state == "failed", succeeded=state == "succeeded"
    )

    assert isinstance(decide(job=job), GiveUp if state == "failed" else Wait)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"policy": a_policy(repair=UNSET)}, "not set"),
        ({"repairs_before": 4}, "maxRepairs"),
        ({"node": a_node(ready="False")}, "not Ready"),
    ],
)
def test_repair_waits_with_the_reason_where_no_job_may_go(fields, word):
    """A Job on a dead node would hang, and too many at once are an outage."""
    decision = decide(**fields)

    assert isinstance(decision, Wait)
    assert word in decision.reason
    assert decision.blocked


def test_repair_in_the_queue_does_not_run_out_of_time():
    """Waiting for others is no failed repair; a Job that was sent is no queue."""
    queued = decide(repairs_before=4, now_s=9_999)

    assert isinstance(queued, Wait)
    assert queued.idle
    assert isinstance(decide(repairs_before=4, now_s=9_999, job=JOB), GiveUp)
    assert isinstance(decide(repairs_before=3), Act)


def test_repair_of_the_same_class_goes_to_people_the_second_time():
    """Never a second reboot for what a reboot did not cure."""
    decision = decide(strikes=1)

    assert (decision.state, decision.reason) == (RunState.HANDED_OFF, "RepairedBefore")


def test_hand_off_names_its_queue():
    """The run ends, people go on."""
    decision = decide(step=RepairStep(handoff=HandoffRepair(queue="boards")))

    assert (decision.state, decision.message) == (RunState.HANDED_OFF, "handed to boards")


def test_repair_job_ends_no_later_than_its_step():
    """A Job that outlives its run could reboot a node that serves again."""
    (job,) = decide(now_s=1_700).actions

    assert isinstance(job, CreateJob)
    assert job.deadline_s == 100


def test_repair_sends_nothing_in_the_last_seconds():
    """It could not be done in time."""
    decision = decide(now_s=1_795)

    assert isinstance(decision, Wait)
    assert "too late" in decision.reason


def test_repair_ends_at_its_time_though_its_job_cannot_be_read():
    """Every step has a way out, also without the right to look."""
    decision = decide(now_s=1_800, job_known=False)

    assert isinstance(decision, GiveUp)
    assert decision.reason == "RepairTimedOut"
