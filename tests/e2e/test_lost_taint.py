"""A controller that writes whole Nodes from an old cache wipes our quarantine out: a slip, or a No?"""

from __future__ import annotations

from typing import Any

import pytest

from remediator.testbed.stage import NODES, Stage
from remediator.testbed.waiting import wait_until
from tests.e2e import verdict

pytestmark = pytest.mark.timeout(180)

LISTED, UNLISTED = "old-labeller", "fleet-console"


def soaking(stage: Stage, victim: str) -> dict[str, Any]:
    """Bring a run into its soak, which a condition keeps from ending. Returns the Node of before."""
    stage.hardware.set_condition(victim, "KernelDeadlock", "False", "Fine")
    before = stage.node(victim)
    stage.hardware.set_condition(victim, "KernelDeadlock", "True", "Broken", "as injected")
    wait_until(
        lambda: any("still true" in run.get("status", {}).get("waitsFor", "") for run in stage.runs(victim)),
        timeout_s=90,
        what="the soak",
    )
    assert verdict.taint_of(stage.node(victim)) is not None
    return before


def write_old(stage: Stage, before: dict[str, Any], manager: str) -> None:
    """PUT the whole object of before, without a version: what nobody should do, and some do."""
    body = {**before, "metadata": {**before["metadata"]}}
    for field in ("resourceVersion", "managedFields"):
        body["metadata"].pop(field, None)
    written = stage.api.replace(f"{NODES}/{before['metadata']['name']}", body, manager=manager)
    assert verdict.taint_of(written) is None
    assert not written["spec"].get("unschedulable")


def test_listed_controller_s_slip_is_put_back(shared_stage: Stage, victim: str) -> None:
    """Taint, cordon and marks stand again, people are told who it was, and the run goes on."""
    stage = shared_stage
    stage.patch_policy({"rewriters": [LISTED]})
    before = soaking(stage, victim)
    write_old(stage, before, LISTED)

    wait_until(lambda: verdict.taint_of(stage.node(victim)), timeout_s=60, what="the taint to be put back")
    assert stage.node(victim)["spec"]["unschedulable"]
    wait_until(lambda: "TaintLost" in stage.told(victim), timeout_s=40, what="people to be told")
    status = stage.runs(victim)[0]["status"]
    assert status["putBacks"] == 1
    assert status["taintLost"].startswith(f"{LISTED} at ")

    stage.hardware.set_condition(victim, "KernelDeadlock", "False", "Fine")
    stage.wait_run(victim, "Returned", timeout_s=60)
    assert verdict.pool_of(stage.node(victim)) == "buffer"
    verdict.assert_nothing_leaks(stage, victim)


def test_anybody_else_s_write_is_a_no(shared_stage: Stage, victim: str) -> None:
    """The same write by somebody whom no person has listed ends the run, and says who it was."""
    stage = shared_stage
    before = soaking(stage, victim)
    write_old(stage, before, UNLISTED)

    run = stage.wait_run(victim, "Cancelled", timeout_s=60)
    assert (run["status"]["reason"], run["status"].get("putBacks", 0)) == ("TaintRemoved", 0)
    assert f"{UNLISTED} removed our taint" in run["status"]["message"]
    assert verdict.taint_of(stage.node(victim)) is None
    verdict.assert_nothing_leaks(stage, victim)
    stage.hardware.set_condition(victim, "KernelDeadlock", "False", "Fine")
