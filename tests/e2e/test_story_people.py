"""Story 5: people say no in mid-run, and find the node as they left it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from remediator.fleet.repairs import (
    JobEnds,
)
from remediator.testbed.stage import LEDGERS, NODES, RUNS, Stage
from remediator.testbed.waiting import wait_until
from tests.e2e import verdict


@pytest.fixture(scope="module", autouse=True)
def _no_storm(shared_stage: Stage) -> None:
    """The same two faults come on node after node here: with the breaker as it is, stories wait for it."""
    shared_stage.patch_policy({"breaker": {"count": 50, "percent": 50, "within": "1m", "quiet": "30s"}})
    often = {"maxConcurrent": 6, "rate": {"count": 60, "per": "1m", "burst": 6}}
    shared_stage.patch_playbook("gpu-off-bus", {"limits": often})


def start_a_drain_that_waits(stage: Stage, node: str) -> str:
    """A run that stands in its drain: a pod without controller, which nothing may force away."""
    stage.api.create(
        "/api/v1/namespaces/default/pods",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"blocker-{node}", "namespace": "default"},
            "spec": {
                "nodeName": node,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "main", "image": "registry.example.com/bare:v1"}],
            },
        },
    )
    wait_until(
        lambda: (
            stage.api.get(f"/api/v1/namespaces/default/pods/blocker-{node}")["status"].get("phase")
            == "Running"
        ),
        timeout_s=60,
        what="the blocking pod to run",
    )
    stage.exporters.inject_xid(node, 5, 79)
    run = wait_until(
        lambda: next((each for each in stage.runs(node) if _drains(each)), None),
        timeout_s=60,
        what="the drain",
    )
    return str(run["metadata"]["name"])


def _drains(run: dict[str, object]) -> bool:
    status = run.get("status", {})
    assert isinstance(status, dict)
    return any(step["action"] == "drain" for step in status.get("steps", []))


def uncordon(stage: Stage, node: str, run: str) -> None:
    del run
    stage.cluster.kubectl("uncordon", node)


def untaint(stage: Stage, node: str, run: str) -> None:
    del run
    stage.cluster.kubectl("taint", "node", node, f"{verdict.QUARANTINE}-")


def delete_record(stage: Stage, node: str, run: str) -> None:
    del node
    stage.cluster.kubectl("delete", "rmd", run)


def hold(stage: Stage, node: str, run: str) -> None:
    del run
    done = stage.cli("hold", node, "--for", "1h", "--reason", "looking at it myself")
    assert done.returncode == 0, done.stderr


def cancel(stage: Stage, node: str, run: str) -> None:
    del node
    done = stage.cli("cancel", run, "--reason", "not now")
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(180)
@pytest.mark.parametrize("veto", [uncordon, untaint, delete_record, hold, cancel])
def test_veto_leaves_nothing_behind_and_is_respected(
    shared_stage: Stage, victim: str, veto: Callable[[Stage, str, str], None]
) -> None:
    """Cancelled, restored, and not again within the hold time: the fault is still there."""
    stage, node = shared_stage, victim
    taints_before = stage.node(node)["spec"].get("taints")
    run = start_a_drain_that_waits(stage, node)

    veto(stage, node, run)

    wait_until(
        lambda: (
            verdict.taint_of(stage.node(node)) is None
            and not stage.node(node)["spec"].get("unschedulable")
            and not verdict.left_behind(stage.node(node)) - {"remediator.dev/hold"}
        ),
        timeout_s=60,
        what="the node to be as it was",
    )
    # The cordon's own taint is the node lifecycle controller's to remove; it lags a little.
    wait_until(
        lambda: stage.node(node)["spec"].get("taints") == taints_before, timeout_s=40, what="the same taints"
    )
    if veto is not delete_record:
        stage.wait_run(node, "Cancelled", timeout_s=30)
    known = wait_until(
        lambda: next((each for each in stage.api.list(LEDGERS) if _vetoed(each, node)), None),
        timeout_s=30,
        what="the veto in the ledger",
    )
    assert known["status"]["vetoBy"], "and who said no"
    patches = len(verdict.node_patches(stage, node))
    stage.hardware.set_condition(node, "KernelDeadlock", "True", "AnotherFault")
    code = "HoldActive" if veto is hold else "VetoHold"
    wait_for_gate(stage, node, "hold", code)
    assert len(verdict.node_patches(stage, node)) == patches, "no return within the hold time"
    gone = [record.object_ref.name for record in verdict.evicted(stage)]
    assert f"blocker-{node}" not in gone, "the bare pod was never evicted"


def wait_for_gate(stage: Stage, node: str, gate: str, code: str) -> None:
    """Wait until this gate stops the node's request: the controller's Event says so, then the commands."""
    wait_until(
        lambda: code in stage.told(node),
        timeout_s=60,
        what=f"the Event {code}",
        detail=lambda: stage.cli("why", node).stdout,
    )
    why = stage.cli("why", node)
    assert why.returncode == 11, why.stdout
    assert f"gate {gate} stops it ({code})" in " ".join(why.stdout.split())
    plan = json.loads(stage.cli("plan", node, "-o", "json").stdout)
    assert plan["blocked_by"] == code
    stops = [(each["gate"], each["reason"]) for each in plan["gates"] if each["verdict"] == "STOP"]
    assert stops[0] == (gate, code), "the first gate that stops"


def _vetoed(ledger: dict[str, object], node: str) -> bool:
    status = ledger.get("status", {})
    assert isinstance(status, dict)
    return bool(status.get("vetoUntil")) and status.get("node") == node


@pytest.mark.timeout(180)
def test_foreign_cordon_comes_back_as_found(shared_stage: Stage, victim: str) -> None:
    """A node that somebody cordoned before is repaired, and still cordoned afterwards."""
    stage, node = shared_stage, victim
    stage.api.merge_patch(f"{NODES}/{node}", {"spec": {"unschedulable": True}})
    stage.exporters.inject_xid(node, 5, 79)
    stage.wait_run(node, "Returned", timeout_s=90)

    found = stage.node(node)
    assert found["spec"].get("unschedulable") is True
    assert verdict.taint_of(found) is None
    assert not verdict.left_behind(found)


@pytest.mark.timeout(180)
def test_pause_lets_nothing_new_begin(shared_stage: Stage, victim: str) -> None:
    """The kill switch is one documented patch: what is confirmed meanwhile waits and says why."""
    stage, node = shared_stage, victim
    stage.patch_policy({"pause": {"by": "alice", "reason": "change freeze"}})
    stage.exporters.inject_xid(node, 5, 79)
    wait_for_gate(stage, node, "pause", "Paused")
    assert "change freeze" in stage.cli("why", node).stdout
    assert not verdict.node_patches(stage, node)

    stage.patch_policy({"pause": None})
    stage.wait_run(node, "Returned", timeout_s=90)


@pytest.mark.timeout(180)
def test_repair_that_was_sent_is_named_when_the_run_is_cancelled(shared_stage: Stage, victim: str) -> None:
    """A Job on its way can't be called back: the record says that it may still run."""
    stage, node = shared_stage, victim
    stage.player.plan(node, job=JobEnds.HANGS)
    stage.exporters.inject_xid(node, 5, 79)
    stage.wait_run(node, "Repairing", timeout_s=90)
    jobs = "/apis/batch/v1/namespaces/remediator-repair/jobs"
    wait_until(
        lambda: stage.api.list(jobs, label_selector=f"remediator.dev/node={node}"),
        timeout_s=30,
        what="the Job",
    )
    run = stage.runs(node)[0]["metadata"]["name"]
    stage.api.merge_patch(f"{RUNS}/{run}", {"spec": {"cancel": {"by": "alice", "reason": "enough"}}})

    ended = stage.wait_run(node, "Cancelled", timeout_s=30)
    assert ended["status"]["reason"] == "RepairMayStillRun"
    assert verdict.pool_of(stage.node(node)) == "train", "the pool's projection is restored too"
    assert verdict.taint_of(stage.node(node)) is None
