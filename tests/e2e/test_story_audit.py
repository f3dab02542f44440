"""Story 6: in Audit the same faults are recorded, and nothing is touched."""

from __future__ import annotations

import json
import urllib.request

import pytest

from remediator.testbed.stage import GROUP, Stage
from remediator.testbed.waiting import wait_until
from tests.e2e import verdict

FAULTY = ("gpu-a-01", "gpu-b-01")


def put_everything_in_audit(stage: Stage) -> None:
    for playbook in stage.api.list(f"{GROUP}/playbooks"):
        stage.patch_playbook(playbook["metadata"]["name"], {"mode": "Audit"})


@pytest.mark.timeout(180)
def test_audit_records_the_plan_and_writes_nothing(stage: Stage) -> None:
    """Remediation, Event, metric and log tell the plan; no write to a node or a pod was even tried."""
    put_everything_in_audit(stage)
    stage.exporters.inject_xid(FAULTY[0], 5, 79)
    stage.hardware.set_condition(FAULTY[1], "KernelDeadlock", "True", "Hung")
    runs = [stage.wait_run(node, "WouldAct", timeout_s=60) for node in FAULTY]

    for run in runs:
        assert run["spec"]["mode"] == "Audit"
        assert run["spec"]["plan"], "the plan is in the record"
        assert run["spec"]["planHash"]
        assert run["spec"]["spare"]["name"].endswith("-08"), "with the spare that it would have taken"
    wait_until(lambda: _told(stage), timeout_s=20, what="an Event for each node")
    with urllib.request.urlopen(f"{stage.controller.health_url}/metrics", timeout=5) as reply:
        metrics = reply.read().decode()
    assert 'remediator_decisions_total{decision="audit",reason="ModeAudit"} 2.0' in metrics
    logged = [json.loads(line) for line in stage.log.read_text().splitlines() if '"would act"' in line]
    assert {line["node"] for line in logged} == set(FAULTY)

    assert not verdict.our_writes(stage, "nodes")
    assert not verdict.our_writes(stage, "pods")
    assert not verdict.our_writes(stage, "jobs")


@pytest.mark.timeout(180)
def test_audit_records_a_fault_once_also_over_a_restart(stage: Stage) -> None:
    """One record per fault until it clears: a week of Audit has to stay readable."""
    put_everything_in_audit(stage)
    stage.exporters.inject_xid(FAULTY[0], 5, 79)
    stage.wait_run(FAULTY[0], "WouldAct", timeout_s=60)

    stage.stop_controller()
    stage.start_controller()
    stage.hardware.set_condition(FAULTY[1], "KernelDeadlock", "True", "Hung")
    stage.wait_run(FAULTY[1], "WouldAct", timeout_s=60)

    assert len(stage.runs(FAULTY[0])) == 1


@pytest.mark.timeout(180)
def test_one_pool_goes_from_audit_to_enforce(stage: Stage) -> None:
    """The ceiling of a pool holds its nodes in Audit while another pool acts already."""
    stage.patch_pool("infer", {"maxMode": "Audit"})
    stage.exporters.inject_xid("gpu-a-07", 1, 79)  # infer
    stage.exporters.inject_xid("gpu-b-01", 1, 79)  # train
    stage.wait_run("gpu-b-01", "Returned", timeout_s=90)
    stage.wait_run("gpu-a-07", "WouldAct", timeout_s=30)
    assert not verdict.node_patches(stage, "gpu-a-07")

    stage.patch_pool("infer", {"maxMode": "Enforce"})
    stage.wait_run("gpu-a-07", "Returned", timeout_s=90, number=2)


def _told(stage: Stage) -> bool:
    return all("WouldRemediate" in stage.told(node) for node in FAULTY)
