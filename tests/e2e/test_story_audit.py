"""Story 6: in Audit the same faults are recorded, and nothing is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import pytest

from remediator.testbed.stage import GROUP, Stage
from remediator.testbed.waiting import wait_until
from tests.e2e import verdict

FAULTY = ("gpu-a-01", "gpu-b-01")


def xid(code: int) -> Callable[[Stage, str], None]:
    return lambda stage, node: stage.exporters.inject_xid(node, 5, code)


def gauge(name: str) -> Callable[[Stage, str], None]:
    return lambda stage, node: stage.exporters.set_gauge(node, 1, name, 1)


def condition(type_: str, status: str) -> Callable[[Stage, str], None]:
    return lambda stage, node: stage.hardware.set_condition(node, type_, status, "Broken")


# Every fault that the other stories play, one on a node; with the class that it is of.
FAULTS: Final[Mapping[str, tuple[str, Callable[[Stage, str], None]]]] = {
    "gpu-a-01": ("gpu.bus", xid(79)),
    "gpu-b-01": ("node.kernel", condition("KernelDeadlock", "True")),
    "gpu-c-01": ("gpu.row-remap", gauge("DCGM_FI_DEV_ROW_REMAP_PENDING")),
    "gpu-d-01": ("gpu.eks", condition("AcceleratedHardwareReady", "False")),
    "gpu-e-01": ("gpu.row-remap-failed", gauge("DCGM_FI_DEV_ROW_REMAP_FAILURE")),
    "gpu-f-01": ("gpu.row-remap-failed", xid(64)),
    "gpu-g-01": ("gpu.gsp", xid(119)),
    "gpu-h-01": ("node.storage", condition("ReadonlyFilesystem", "True")),
}
ROOMY: Final = {
    "maxUnavailable": {"percent": 50},
    "poolMaxUnavailable": {"percent": 50},
    "maxConcurrent": 20,
    "poolMaxConcurrent": 20,
    "maxRepairs": 20,
    "rate": {"count": 60, "per": "1m", "burst": 20},
    "breaker": {"count": 50, "percent": 50, "within": "1m", "quiet": "30s"},
}


def put_everything_in_audit(stage: Stage) -> None:
    for playbook in stage.api.list(f"{GROUP}/playbooks"):
        stage.patch_playbook(playbook["metadata"]["name"], {"mode": "Audit"})


@pytest.mark.timeout(180)
def test_audit_records_the_plan_and_writes_nothing(stage: Stage) -> None:
    """Remediation, Event, metric and log tell each plan; no write to a node or a pod was even tried."""
    put_everything_in_audit(stage)
    stage.patch_policy(ROOMY)  # shadow grants keep to the budgets; here each fault has to get its own
    for node, (_, inject) in FAULTS.items():
        inject(stage, node)
    runs = {node: stage.wait_run(node, "WouldAct", timeout_s=60) for node in FAULTS}

    for node, run in runs.items():
        spec = run["spec"]
        assert (spec["mode"], spec["faultClass"]) == ("Audit", FAULTS[node][0])
        assert spec["evidence"], "what was seen is in the record"
        assert spec["plan"], "and the plan"
        assert spec["planHash"]
        spare = stage.node(spec["spare"]["name"])
        assert verdict.pool_of(spare) == "buffer", "with the spare that it would have taken"
        assert not verdict.misfits(stage, spare, stage.node(node), "train")
    assert len({run["spec"]["spare"]["name"] for run in runs.values()}) == len(runs), "none promised twice"
    wait_until(lambda: _told(stage), timeout_s=60, what="an Event for each node")
    _, metrics = stage.controller.ask("/metrics")
    total = f'remediator_decisions_total{{decision="audit",reason="ModeAudit"}} {len(FAULTS)}.0'
    assert total in metrics
    for fault_class in {found for found, _ in FAULTS.values()}:
        count = sum(found == fault_class for found, _ in FAULTS.values())
        assert f'remediator_faults_total{{fault_class="{fault_class}"}} {count}.0' in metrics
    logged = {line["node"]: line for line in stage.controller.lines("would act")}
    assert {node: line["fault_class"] for node, line in logged.items()} == {
        node: found for node, (found, _) in FAULTS.items()
    }
    assert all(logged[node]["plan_hash"] == run["spec"]["planHash"] for node, run in runs.items())
    assert_untouched(stage)


def assert_untouched(stage: Stage) -> None:
    """The API server was never asked to change a node, a pod or a Job."""
    for resource in ("nodes", "pods", "jobs"):
        assert not verdict.our_writes(stage, resource), resource


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
    return all("WouldRemediate" in stage.told(node) for node in FAULTS)
