"""The fake fleet on a real control plane: does it behave as stories assume?"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from remediator.errors import PermanentError
from remediator.fleet.dcgm_fields import REMAP_PENDING, XID
from remediator.fleet.exporter_state import ExporterStates
from remediator.fleet.layout import (
    build_fleet,
    standard_fleet,
)
from remediator.fleet.node_objects import Object
from remediator.fleet.repairs import (
    JobEnds,
    Reboot,
    Returns,
)
from remediator.fleet.workloads import (
    AGENT_EVERYWHERE,
    AGENT_OF_POOLS,
    NAMESPACE,
    Workload,
    daemon_set,
)
from remediator.model.keys import LABEL_NODE, LABEL_REPAIR, TAINT_QUARANTINE
from remediator.testbed import binaries
from remediator.testbed.api import Api
from remediator.testbed.components import Options
from remediator.testbed.exporters import ExporterServer
from remediator.testbed.fleet import (
    apply_fleet,
    remove_fleet,
)
from remediator.testbed.hardware import (
    Hardware,
)
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.node_edits import NODES, boot_id_of, is_settled, lifecycle_taints, status_of
from remediator.testbed.repair_player import (
    RepairPlayer,
)
from remediator.testbed.waiting import monotonic, wait_until
from remediator.testbed.workloads import (
    deploy_workload,
    pending_pods,
    remove_workload,
    running_pods,
)

REPAIR_NAMESPACE = "repair"
SPECS = standard_fleet()
# Each test takes nodes of its own, so that their order does not matter.
(A1, A2, A3, A4, A5, A6, A7, A8) = (f"gpu-a-{number:02d}" for number in range(1, 9))
(B1, B2, B3, B4) = (f"gpu-b-{number:02d}" for number in range(1, 5))


@dataclass
class Scene:
    """A control plane with the standard fleet, its workload, its exporters and its hardware."""

    api: Api
    states: ExporterStates
    hardware: Hardware
    player: RepairPlayer
    pods: int

    def node(self, name: str) -> Object:
        return self.api.get(f"{NODES}/{name}")

    def pods_on(self, node: str) -> dict[str, str]:
        """Pod name to uid."""
        pods = self.api.list("/api/v1/pods", field_selector=f"spec.nodeName={node}")
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods}

    def values(self, node: str, name: str) -> set[str]:
        text = self.states.answer(node).body.decode()
        return {line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(f"{name}{{")}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory: Path = tmp_path_factory.mktemp("fleet") / "control-plane"
    with ControlPlane(directory, binaries.build(os.environ), Options.quick()) as control_plane:
        api = control_plane.admin()
        apply_fleet(api, SPECS)
        pods = deploy_workload(api)
        api.create("/api/v1/namespaces", {"metadata": {"name": REPAIR_NAMESPACE}})
        account = f"/api/v1/namespaces/{REPAIR_NAMESPACE}/serviceaccounts/default"
        api.wait_for(account, bool, timeout_s=40)
        states = ExporterStates([spec.machine for spec in SPECS], clock=monotonic)
        hardware = Hardware(api, SPECS, exporters=states)
        with RepairPlayer(api, hardware, namespace=REPAIR_NAMESPACE) as player:
            yield Scene(api, states, hardware, player, pods)


def send_repair(scene: Scene, node: str, attempt: int = 1, *, expected: str = "") -> str:
    """Create a repair Job as the controller does; return its path."""
    name = f"{node}-1-{attempt}"
    labels = {LABEL_REPAIR: f"{node}-1", LABEL_NODE: node}
    boot_id = expected or boot_id_of(scene.node(node))
    pod = {
        "restartPolicy": "Never",
        "nodeName": node,
        "tolerations": [{"operator": "Exists"}],
        "containers": [
            {
                "name": "reboot",
                "image": "registry.example.com/reboot:v1",
                "env": [
                    {"name": "NODE_NAME", "value": node},
                    {"name": "EXPECTED_BOOT_ID", "value": boot_id},
                ],
            }
        ],
    }
    jobs = f"/apis/batch/v1/namespaces/{REPAIR_NAMESPACE}/jobs"
    spec = {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}}
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }
    scene.api.create(jobs, body)
    return f"{jobs}/{name}"


def job_condition(job: Object, type_: str) -> bool:
    return any(
        row["type"] == type_ and row["status"] == "True"
        for row in job.get("status", {}).get("conditions", [])
    )


def test_standard_fleet_is_ready_and_fully_loaded(scene):
    """Stories start from here: 66 nodes, no lifecycle taint, no GPU free in the training pool."""
    nodes = scene.api.list(NODES)

    assert len(nodes) == 66
    assert all(is_settled(node) for node in nodes)
    assert scene.pods == 40 + 8 + 2 + 2 * 66
    assert len(running_pods(scene.api)) == scene.pods
    assert pending_pods(scene.api) == ()
    train = {spec.name for spec in SPECS if spec.pool == "train"}
    holders = [
        pod["spec"]["nodeName"]
        for pod in scene.api.list(f"/api/v1/namespaces/{NAMESPACE}/pods")
        if "nvidia.com/gpu" in pod["spec"]["containers"][0]["resources"].get("limits", {})
    ]
    assert sorted(holders) == sorted(train)
    assert len(train) == 48


def test_node_on_the_server_is_as_large_as_a_real_one(scene):
    """Watch and memory figures are stated for nodes of about 20 KB."""
    node = scene.node(A1)

    assert 18_000 <= len(json.dumps(node, separators=(",", ":"))) <= 30_000
    assert len(node["metadata"]["labels"]) >= 60
    assert node["status"]["capacity"]["nvidia.com/gpu"] == "8"
    assert node["status"]["nodeInfo"]["systemUUID"] == SPECS[0].machine.system_uuid


def test_one_agent_leaves_a_quarantined_node_and_the_other_stays(scene):
    """A drain must wait for the first and never for the second."""
    taints = scene.node(A7)["spec"]["taints"]
    quarantine = {"key": TAINT_QUARANTINE, "effect": "NoExecute"}

    scene.api.merge_patch(f"{NODES}/{A7}", {"spec": {"taints": [*taints, quarantine]}})

    wait_until(
        lambda: not any(name.startswith(AGENT_OF_POOLS) for name in scene.pods_on(A7)),
        timeout_s=60,
        what=f"eviction of {AGENT_OF_POOLS} from {A7}",
    )
    names = scene.pods_on(A7)
    scene.api.merge_patch(f"{NODES}/{A7}", {"spec": {"taints": taints}})
    assert any(name.startswith(AGENT_EVERYWHERE) for name in names)


def test_repair_job_reboots_its_node_and_clears_its_page(scene):
    """The whole of a good repair: Job done, new boot, Ready, XID back to 0, remap done, GPU back."""
    before = boot_id_of(scene.node(A1))
    scene.states.inject_xid(A1, 3, 48)
    scene.states.set_gauge(A1, 3, REMAP_PENDING, 1)
    scene.hardware.lose_gpu(A1, 7)
    assert scene.node(A1)["status"]["allocatable"]["nvidia.com/gpu"] == "7"

    path = send_repair(scene, A1)

    scene.hardware.wait_for(A1, "node ready", timeout_s=30)
    scene.api.wait_for(path, lambda job: job_condition(job, "Complete"), timeout_s=45)
    node = scene.node(A1)
    assert boot_id_of(node) not in ("", before)
    assert is_settled(node)
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert scene.values(A1, XID) == {"0"}
    assert scene.values(A1, REMAP_PENDING) == {"0"}
    assert [event.what for event in scene.hardware.events if event.node == A1][-3:] == [
        "reboot requested",
        "reboot began",
        "node ready",
    ]


def test_repair_with_another_boot_id_reboots_nothing(scene):
    """A Job that arrives late must not hit a machine that has rebooted since."""
    before = boot_id_of(scene.node(A2))

    send_repair(scene, A2, expected="an-older-boot")

    scene.hardware.wait_for(A2, "boot id differs", timeout_s=60)
    assert boot_id_of(scene.node(A2)) == before


def test_repair_job_that_fails_says_so_and_reboots_nothing(scene):
    """The controller must see Failed and an unchanged boot."""
    before = boot_id_of(scene.node(A2))
    scene.player.plan(A2, job=JobEnds.FAILS)

    path = send_repair(scene, A2, attempt=2)

    scene.api.wait_for(path, lambda job: job_condition(job, "Failed"), timeout_s=60)
    scene.hardware.wait_for(A2, "job failed", timeout_s=60)
    assert boot_id_of(scene.node(A2)) == before


@pytest.mark.parametrize(
    ("node", "plan", "last", "changed"),
    [
        (A3, Reboot(times=0), "reboot ignored", False),
        (A3, Reboot(new_boot_id=False), "node ready", False),
        (A3, Reboot(times=2), "node ready", True),
        (A4, Reboot(returns=Returns.NOT_READY), "returned not ready", True),
        (A5, Reboot(returns=Returns.SILENT), "did not return", False),
    ],
    ids=["never", "same boot", "twice", "not ready", "silent"],
)
def test_reboot_goes_as_planned(scene, node, plan, last, changed):
    """Each is a way in which real reboots go wrong."""
    before = boot_id_of(scene.node(node))
    earlier = len([event for event in scene.hardware.events if (event.node, event.what) == (node, last)])

    scene.hardware.reboot(node, plan)

    scene.hardware.wait_for(
        node, last, timeout_s=20, count=earlier + plan.times if plan.times else earlier + 1
    )
    found = scene.node(node)
    assert (boot_id_of(found) != before) is changed
    assert (status_of(found, "Ready") == "True") is (last in ("node ready", "reboot ignored"))
    if not is_settled(found):
        scene.hardware.come_back(node)
        assert is_settled(scene.node(node))


def test_fault_that_persists_is_there_after_the_reboot(scene):
    """Verify must fail on it, although XID reads 0 and the boot is new."""
    scene.states.inject_xid(A6, 0, 48)
    scene.states.set_gauge(A6, 0, REMAP_PENDING, 1)

    scene.hardware.reboot(A6, Reboot(fault_persists=True))

    assert scene.values(A6, XID) == {"0"}
    assert scene.values(A6, REMAP_PENDING) == {"0", "1"}


def test_silent_node_becomes_unknown_and_comes_back(scene):
    """Unknown is written by node lifecycle itself, not by us: that is what makes it real."""
    scene.hardware.go_silent(B1)

    scene.api.wait_for(f"{NODES}/{B1}", lambda node: status_of(node, "Ready") == "Unknown", timeout_s=40)
    taints = scene.api.wait_for(f"{NODES}/{B1}", lifecycle_taints, timeout_s=40)["spec"]["taints"]
    scene.hardware.come_back(B1)

    assert any(taint["key"] == "node.kubernetes.io/unreachable" for taint in taints)
    # Node lifecycle writes Unknown once more where a heartbeat came just too late for its last look.
    scene.api.wait_for(f"{NODES}/{B1}", is_settled, timeout_s=60)


def test_condition_set_by_a_detector_stays_through_a_reboot(scene):
    """Heartbeats and the kubelet's return must not wipe what a detector said."""
    scene.hardware.set_condition(B2, "KernelDeadlock", "True", "DockerHung", "task docker blocked for 120 s")

    scene.hardware.reboot(B2)

    assert status_of(scene.node(B2), "KernelDeadlock") == "True"


def test_node_recreated_on_the_same_machine_keeps_identity_and_pods(scene):
    """Same asset tag and system UUID, new uid: the machine's story must go on."""
    before, pods = scene.node(B3), scene.pods_on(B3)
    scene.api.merge_patch(f"{NODES}/{B3}", {"spec": {"unschedulable": True}})

    scene.hardware.recreate_node(B3)

    after = scene.node(B3)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["status"]["nodeInfo"] == before["status"]["nodeInfo"]
    assert "unschedulable" not in after["spec"]
    assert pods.items() <= scene.pods_on(B3).items()


def test_other_machine_under_the_same_name_shares_nothing(scene):
    """Strikes and latches of the old machine must not fall on the new one."""
    before, gpus = scene.node(B4), scene.states.machine(B4).gpu_uuids

    scene.hardware.recreate_node(B4, same_machine=False, keep_pods=False)

    after = scene.node(B4)
    for field in ("systemUUID", "machineID", "bootID"):
        assert after["status"]["nodeInfo"][field] != before["status"]["nodeInfo"][field]
    assert (
        after["metadata"]["labels"]["example.com/asset-tag"]
        != before["metadata"]["labels"]["example.com/asset-tag"]
    )
    assert not set(gpus) & set(scene.states.machine(B4).gpu_uuids)
    assert scene.states.machine(B4).system_uuid == after["status"]["nodeInfo"]["systemUUID"]


def test_exporter_pods_have_addresses_at_which_pages_can_be_served(scene):
    """Discovery by pod selector is tried for real: the address in the pod's status answers."""
    scene.api.create(
        f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets",
        daemon_set("dcgm-exporter", [{"operator": "Exists"}]),
    )

    def address() -> str:
        pods = scene.api.list(
            f"/api/v1/namespaces/{NAMESPACE}/pods",
            label_selector="app=dcgm-exporter",
            field_selector=f"spec.nodeName={A8}",
        )
        return str(pods[0]["status"].get("podIP", "")) if pods else ""

    found = wait_until(address, timeout_s=60, what=f"address of the exporter pod on {A8}")
    with ExporterServer(scene.states) as server:
        server.listen(A8, found)
        url = server.address_template.format(address=found)
        with urllib.request.urlopen(url, timeout=5) as reply:
            page = reply.read()

    assert f'Hostname="{A8}"'.encode() in page


def test_hardware_refuses_a_node_it_does_not_know(scene):
    """A typo must not pass as a fault that nobody noticed."""
    with pytest.raises(PermanentError, match="no node 'gpu-z-01'"):
        scene.hardware.reboot("gpu-z-01")


def test_fleet_and_workload_can_be_removed_and_put_back(tmp_path):
    """Stories that share a control plane clean up this way."""
    specs = build_fleet(racks=1, per_rack=3, system=0)
    with ControlPlane(tmp_path / "control-plane", binaries.build(os.environ)) as control_plane:
        api = control_plane.admin()
        for _ in range(2):
            apply_fleet(api, specs)
            pods = deploy_workload(api, Workload(trainers=1, gang=0, frontends=1))
            assert pods == 2 + 2 * 3
            remove_workload(api)
            remove_fleet(api, [spec.name for spec in specs])
            assert api.list(NODES) == []
            assert api.list(f"/api/v1/namespaces/{NAMESPACE}/pods") == []
