"""Story 7: a Node is deleted and re-created in mid-run. What is remembered follows the machine."""

from __future__ import annotations

import pytest

from remediator.fleet.repairs import (
    JobEnds,
)
from remediator.testbed.stage import Stage
from remediator.testbed.waiting import wait_until
from tests.e2e import verdict


def start_a_repair_that_hangs(stage: Stage, node: str) -> None:
    stage.player.plan(node, job=JobEnds.HANGS)
    stage.exporters.inject_xid(node, 5, 79)
    stage.wait_run(node, "Repairing", timeout_s=90)


@pytest.mark.timeout(180)
def test_same_machine_under_a_new_node_is_quarantined_at_first_sight(
    shared_stage: Stage, victim: str
) -> None:
    """Deleting the Node repairs nothing: the machine stays out."""
    stage, node = shared_stage, victim
    start_a_repair_that_hangs(stage, node)
    stage.hardware.delete_node(node)
    stage.wait_run(node, "NodeGone", timeout_s=60)

    stage.hardware.recreate_node(node, same_machine=True)

    wait_until(lambda: verdict.taint_of(stage.node(node)) is not None, timeout_s=60, what="the quarantine")
    second = wait_until(lambda: stage.runs(node)[1:], timeout_s=30, what="run 2")[0]
    assert second["spec"]["trigger"] == "Reappeared"
    assert second["spec"]["machine"] == stage.runs(node)[0]["spec"]["machine"]
    assert second["spec"]["node"]["uid"] == stage.node(node)["metadata"]["uid"]


@pytest.mark.timeout(180)
def test_another_machine_under_the_same_name_inherits_nothing(shared_stage: Stage, victim: str) -> None:
    """A new board in the same place is innocent: no taint, no run, no history."""
    stage, node = shared_stage, victim
    start_a_repair_that_hangs(stage, node)
    machine = stage.runs(node)[0]["spec"]["machine"]
    stage.hardware.delete_node(node)
    stage.wait_run(node, "NodeGone", timeout_s=60)

    stage.hardware.recreate_node(node, same_machine=False)
    # Another node's whole run is the proof that the controller looked at this one and let it be.
    stage.exporters.inject_xid("gpu-e-01", 1, 79)
    stage.wait_run("gpu-e-01", "Returned", timeout_s=90)

    assert len(stage.runs(node)) == 1
    assert verdict.taint_of(stage.node(node)) is None
    assert not stage.node(node)["spec"].get("unschedulable")
    stage.wait_ledger(machine, "Out")  # the old machine stays out, wherever it is


@pytest.mark.timeout(180)
def test_restart_in_mid_run_goes_on_where_it_stood(shared_stage: Stage, victim: str) -> None:
    """Nothing that a run needs is in memory only: killed in the repair, it still ends well, once."""
    stage, node = shared_stage, victim
    stage.player.plan(node, job=JobEnds.SUCCEEDS)
    stage.exporters.inject_xid(node, 5, 79)
    wait_until(
        lambda: stage.runs(node) and verdict.taint_of(stage.node(node)), timeout_s=60, what="the quarantine"
    )
    stage.stop_controller(crash=True)
    stage.start_controller()

    stage.wait_run(node, "Returned", timeout_s=120)
    jobs = stage.api.list(
        "/apis/batch/v1/namespaces/remediator-repair/jobs", label_selector=f"remediator.dev/node={node}"
    )
    assert len(jobs) == 1, "one reboot, not two"
    assert len(stage.runs(node)) == 1
    verdict.assert_nothing_leaks(stage, node)
