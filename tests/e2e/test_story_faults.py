"""Stories 1 to 3 on idle nodes: each fault takes its way, to the buffer or to people."""

from __future__ import annotations

import pytest

from remediator.fleet.repairs import (
    JobEnds,
)
from remediator.testbed.stage import Stage
from remediator.testbed.waiting import wait_until
from tests.e2e import verdict


def spare_of(node: str) -> str:
    """The spare of the node's own rack."""
    return f"{node[:-2]}08"


@pytest.mark.timeout(180)
def test_intent_stands_before_the_first_effect(shared_stage: Stage, victim: str) -> None:
    """Remediation and grant are committed before the node is touched: a crash in between harms nobody."""
    stage = shared_stage
    stage.exporters.inject_xid(victim, 0, 79)
    stage.wait_run(victim, "Returned", timeout_s=90)

    quarantine = next(each for each in verdict.node_patches(stage, victim) if verdict.adds_quarantine(each))
    created = verdict.landed(verdict.our_writes(stage, "remediations", ""))
    grants = verdict.landed(verdict.our_writes(stage, "remediationpolicies", "status"))
    granted = [each for each in grants if verdict.patch_of(each)["status"].get("grants")]
    # One etcd counts all revisions; times of replies would only tell when these were sent.
    assert verdict.revision(created[0]) < verdict.revision(quarantine)
    assert verdict.revision(granted[0]) < verdict.revision(quarantine)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", ["gauge", "xid"])
def test_board_replacement_is_handed_off_and_not_returned(
    shared_stage: Stage, victim: str, fault: str
) -> None:
    """A failed remap needs a new board: swap, then people; no reboot brings it back."""
    stage = shared_stage
    if fault == "gauge":
        stage.exporters.set_gauge(victim, 1, "DCGM_FI_DEV_ROW_REMAP_FAILURE", 1)
    else:
        stage.exporters.inject_xid(victim, 1, 64)
    run = stage.wait_run(victim, "HandedOff", timeout_s=90)

    node = stage.node(victim)
    assert verdict.taint_of(node) is not None, "it stays out"
    assert verdict.pool_of(node) != "train"
    assert verdict.pool_of(stage.node(spare_of(victim))) == "train"
    jobs = stage.api.list("/apis/batch/v1/namespaces/remediator-repair/jobs")
    assert not [job for job in jobs if job["metadata"]["labels"]["remediator.dev/node"] == victim], (
        "no reboot"
    )
    stage.wait_ledger(run["spec"]["machine"], "Out")


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("type_", "bad", "good"),
    [("KernelDeadlock", "True", "False"), ("AcceleratedHardwareReady", "False", "True")],
)
def test_condition_of_either_polarity_is_repaired(
    shared_stage: Stage, victim: str, type_: str, bad: str, good: str
) -> None:
    """Ours is bad when True, EKS's when False; the condition clears only after the reboot."""
    stage = shared_stage
    stage.hardware.set_condition(victim, type_, good, "Fine")
    stage.hardware.set_condition(victim, type_, bad, "Broken", "as injected")
    stage.wait_run(victim, "Blocked", timeout_s=90)
    wait_until(lambda: verdict.taint_of(stage.node(victim)) is not None, timeout_s=30, what="the quarantine")
    wait_until(
        lambda: "still true" in stage.runs(victim)[0]["status"].get("waitsFor", ""),
        timeout_s=60,
        what="the soak to see that the condition is still bad",
    )
    assert verdict.pool_of(stage.node(victim)) != "buffer", "silence is not health"

    stage.hardware.set_condition(victim, type_, good, "Fine")
    stage.wait_run(victim, "Returned", timeout_s=60)
    assert verdict.pool_of(stage.node(victim)) == "buffer"
    verdict.assert_nothing_leaks(stage, victim)


@pytest.mark.timeout(180)
def test_failed_repair_job_keeps_the_machine_out(shared_stage: Stage, victim: str) -> None:
    """A Job that fails is not a reboot: the run ends as Failed and people are told."""
    stage = shared_stage
    stage.player.plan(victim, job=JobEnds.FAILS)
    stage.exporters.inject_xid(victim, 3, 79)
    run = stage.wait_run(victim, "Failed", timeout_s=90)

    assert run["status"]["reason"] == "RepairFailed"
    assert verdict.taint_of(stage.node(victim)) is not None
    wait_until(lambda: "RepairFailed" in stage.told(victim), timeout_s=40, what="people to be told")
