"""Stories 1 and 2 on nodes at work: a gang, a guarded StatefulSet, a training pool that is full."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any, Final

import pytest

from remediator.adapters.audit import AuditRecord
from remediator.fleet.node_objects import LABEL_RACK
from remediator.fleet.workloads import (
    BUDGET,
    GANG,
    STATEFUL_SET,
)
from remediator.testbed.stage import NODES, POLICY, Stage
from remediator.testbed.waiting import wait_until
from remediator.testbed.workloads import (
    pending_pods,
    running_pods,
)
from tests.e2e import verdict

PODS: Final = "/api/v1/namespaces/workload/pods"
PDB: Final = f"/apis/policy/v1/namespaces/workload/poddisruptionbudgets/{BUDGET}"
GANG_KEY: Final = f"workload/batch.kubernetes.io/job-name={GANG}"
DRIVER: Final = "nvidia.com/cuda.driver-version.full"
PENDING: Final = "DCGM_FI_DEV_ROW_REMAP_PENDING"


def gang_pods(stage: Stage) -> dict[str, dict[str, Any]]:
    """The gang's running pods by the node that they run on."""
    pods = stage.api.list(PODS, label_selector=f"batch.kubernetes.io/job-name={GANG}")
    alive = [pod for pod in pods if pod["status"]["phase"] == "Running" and "nodeName" in pod["spec"]]
    return {pod["spec"]["nodeName"]: pod for pod in alive if "deletionTimestamp" not in pod["metadata"]}


def pod_uid(record: AuditRecord) -> str:
    return str(verdict.patch_of(record)["deleteOptions"]["preconditions"]["uid"])


def evicted_uids(stage: Stage) -> list[str]:
    return [pod_uid(each) for each in verdict.evicted(stage)]


def assert_unmoved(stage: Stage, before: dict[str, dict[str, Any]], *left: str) -> None:
    """The gang's pods on all nodes but these run where they ran, and nobody tried to evict them."""
    now = gang_pods(stage)
    tried = {pod_uid(each) for each in verdict.our_writes(stage, "pods", "eviction")}
    for node in before.keys() - set(left):
        uid = before[node]["metadata"]["uid"]
        assert now[node]["metadata"]["uid"] == uid, f"the gang's pod on healthy {node} was moved"
        assert uid not in tried


@pytest.mark.timeout(180)
def test_hard_fault_swaps_repairs_and_returns(shared_full_stage: Stage) -> None:
    """XID 79 under one pod of a gang: the whole chain, judged from objects and the audit log alone."""
    stage = shared_full_stage
    gang = gang_pods(stage)
    assert len(gang) == 8
    bad = min(gang)
    spare, leaver = verdict.nearest_spare(stage, bad), stage.node(bad)
    assert stage.node(spare)["metadata"]["labels"][LABEL_RACK] == leaver["metadata"]["labels"][LABEL_RACK]
    pods = {bad: verdict.pods_on(stage, bad)}
    boot_before = leaver["status"]["nodeInfo"]["bootID"]
    running = len(running_pods(stage.api))
    plan = json.loads(stage.cli("plan", bad, "--playbook", "gpu-off-bus", "-o", "json").stdout)
    assert plan["pods"]["gangs"] == [GANG_KEY], "who approves the plan reads which gang restarts"

    stage.exporters.inject_xid(bad, 5, 79)
    run = stage.wait_run(bad, "Returned", timeout_s=90)

    node, taker = stage.node(bad), stage.node(spare)
    assert verdict.pool_of(taker) == "train", "the spare of the same rack took the place"
    assert not verdict.misfits(stage, taker, leaver, "train")
    assert verdict.pool_of(node) == "buffer"
    assert "remediator.dev/probation-until" in node["metadata"]["annotations"]
    assert node["status"]["nodeInfo"]["bootID"] != boot_before
    verdict.assert_nothing_leaks(stage, bad, spare)
    verdict.assert_taint_before_eviction(stage, pods)
    assert evicted_uids(stage) == [gang[bad]["metadata"]["uid"]], "the gang's pod alone; DaemonSet pods stay"
    assert_unmoved(stage, gang, bad)
    wait_until(lambda: len(running_pods(stage.api)) == running, timeout_s=30, what="the workload in full")
    assert not pending_pods(stage.api)
    assert spare in gang_pods(stage), "its index runs on where there is room: on the spare"

    patches = verdict.node_patches(stage, bad)
    first = verdict.patch_of(patches[0])
    assert verdict.adds_quarantine(patches[0])
    assert first["spec"]["unschedulable"] is True, "taint and cordon in one patch"
    assert len(patches) == 3, "quarantine, detach, return"
    assert len(verdict.node_patches(stage, spare)) == 1, "handed over with one patch"
    assert all(verdict.attributed(record) for record in patches)
    assert len(verdict.jobs_sent(stage, bad)) == 1, "one reboot"
    assert run["spec"]["evidence"][0]["code"] == 79
    stage.wait_ledger(run["spec"]["machine"], "Probation")


@pytest.mark.timeout(180)
def test_drain_waits_for_a_budget_that_lets_no_pod_go(shared_full_stage: Stage) -> None:
    """A hard fault of its own does not break a PodDisruptionBudget: named, waited for, never forced."""
    stage = shared_full_stage
    stage.api.merge_patch(PDB, {"spec": {"maxUnavailable": 0}})
    wait_until(lambda: allowed(stage) == 0, timeout_s=60, what="a budget that allows nothing")
    name = f"{STATEFUL_SET}-0"
    pod = stage.api.get(f"{PODS}/{name}")
    node = pod["spec"]["nodeName"]
    assert verdict.pool_of(stage.node(node)) == "infer"
    spare = verdict.nearest_spare(stage, node)

    stage.exporters.inject_xid(node, 5, 79)
    run = stage.wait_run(node, "Blocked", timeout_s=60)

    waits_for = run["status"]["waitsFor"]
    assert f"PDB workload/{BUDGET}" in waits_for
    assert f"pod workload/{name}" in waits_for
    blocked = next(each for each in run["status"]["conditions"] if each["type"] == "Blocked")
    assert (blocked["status"], blocked["reason"]) == ("True", "DisruptionBudget")
    assert verdict.pool_of(stage.node(spare)) == "infer", "the place is filled meanwhile"
    wait_until(lambda: len(attempts(stage, name)) >= 2, timeout_s=30, what="it to ask again")
    answers = {each.response_status.code for each in attempts(stage, name)}
    assert answers == {429}, "asked by eviction, and refused"
    assert not verdict.our_writes(stage, "pods", ""), "no delete around the budget"
    assert not verdict.jobs_sent(stage, node), "no reboot under a pod that still runs"
    still = stage.api.get(f"{PODS}/{name}")
    assert still["metadata"]["uid"] == pod["metadata"]["uid"]
    assert "deletionTimestamp" not in still["metadata"]
    wait_until(lambda: "DisruptionBudget" in stage.told(node), timeout_s=40, what="people to be told")

    stage.api.merge_patch(PDB, {"spec": {"maxUnavailable": 1}})
    stage.wait_run(node, "Returned", timeout_s=90)

    assert len(verdict.landed(attempts(stage, name))) == 1
    moved = stage.api.get(f"{PODS}/{name}")
    assert moved["metadata"]["uid"] != pod["metadata"]["uid"]
    assert moved["spec"]["nodeName"] != node
    assert not verdict.our_writes(stage, "pods", "")
    verdict.assert_nothing_leaks(stage, node, spare)


def allowed(stage: Stage) -> int:
    """How many pods the budget lets go, where its controller has seen the newest rule."""
    pdb = stage.api.get(PDB)
    current = pdb["status"].get("observedGeneration") == pdb["metadata"]["generation"]
    return int(pdb["status"]["disruptionsAllowed"]) if current else -1


def attempts(stage: Stage, pod: str) -> list[AuditRecord]:
    """Every eviction of this pod that the controller asked for."""
    found = verdict.our_writes(stage, "pods", "eviction")
    return [each for each in found if each.object_ref.name == pod]


@pytest.mark.timeout(180)
def test_soft_faults_bring_spares_first_and_move_a_gang_one_node_at_a_time(shared_full_stage: Stage) -> None:
    """A pending row remap needs no hurry: capacity before the quarantine, a gang's pods one by one."""
    stage = shared_full_stage
    wide = {"maxConcurrent": 2, "rate": {"count": 60, "per": "1m", "burst": 6}}
    stage.patch_playbook("gpu-row-remap", {"limits": wide})  # the gang has to be what holds the second back
    gang = gang_pods(stage)
    first, second = sorted(gang)[-2:]
    # The nearest spare has another driver: it is no spare for this node, however near.
    unlike = verdict.nearest_spare(stage, first)
    stage.api.merge_patch(f"{NODES}/{unlike}", {"metadata": {"labels": {DRIVER: "470.1.1"}}})
    slow = f"{PODS}/{gang[first]['metadata']['name']}"
    stage.api.merge_patch(slow, {"metadata": {"annotations": {"testbed/delete-after": "600s"}}})

    spares = {first: break_softly(stage, first)}
    assert spares[first] != unlike
    wait_until(
        lambda: "deletionTimestamp" in stage.api.get(slow)["metadata"],
        timeout_s=60,
        what="the first eviction",
    )
    spares[second] = break_softly(stage, second)
    waiting = stage.wait_run(second, "Blocked", timeout_s=60)

    assert GANG_KEY in waiting["status"]["waitsFor"]
    blocked = next(each for each in waiting["status"]["conditions"] if each["type"] == "Blocked")
    assert blocked["reason"] == "GangBusy"
    assert_unmoved(stage, gang, first)  # the second's pod among them

    stage.api.remove(slow, grace_s=0)  # it has written its checkpoint
    for node in (first, second):
        stage.wait_run(node, "Returned", timeout_s=90)
        assert_brought_first(stage, node, spares[node])
        assert verdict.pool_of(stage.node(node)) == "buffer"
        assert len(verdict.jobs_sent(stage, node)) == 1, "one reboot"
        assert set(shown(stage, node, PENDING)) == {0.0}, "and it took the row's replacement in"
        assert gang[node]["metadata"]["uid"] in evicted_uids(stage)
    assert_unmoved(stage, gang, first, second)
    verdict.assert_nothing_leaks(stage, first, second, *spares.values())
    assert not verdict.node_patches(stage, unlike)


def break_softly(stage: Stage, node: str) -> str:
    """Let a row wait for its replacement; the spare that must come for it."""
    spare = verdict.nearest_spare(stage, node)
    stage.exporters.set_gauge(node, 1, PENDING, 1)
    assert 1.0 in shown(stage, node, PENDING)
    return spare


def assert_brought_first(stage: Stage, node: str, spare: str) -> None:
    """The spare was handed over before the node was quarantined, and it fits the place."""
    handed_over = verdict.node_patches(stage, spare)[0]
    quarantine = next(each for each in verdict.node_patches(stage, node) if verdict.adds_quarantine(each))
    assert verdict.revision(handed_over) < verdict.revision(quarantine)
    assert verdict.pool_of(stage.node(spare)) == "train"
    assert not verdict.misfits(stage, stage.node(spare), stage.node(node), "train")


def shown(stage: Stage, node: str, field: str) -> list[float]:
    """The values of one field on the node's page, as a scrape gets it now; one per GPU."""
    url = stage.api.get(POLICY)["spec"]["exporter"]["address"].replace("{node}", node)
    with urllib.request.urlopen(url, timeout=5) as reply:
        page = reply.read().decode()
    return [float(value) for value in re.findall(rf"^{field}{{.*}} (\S+)$", page, re.M)]
