"""Nodes, pods, identities and the audit log of the test bed, on the real programs.

What a story relies on is tried here first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from remediator.adapters.audit import writes
from remediator.testbed.api import Api, ApiError, Json
from remediator.testbed.components import Options
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.node_edits import lifecycle_taints
from remediator.testbed.waiting import wait_until

NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/default/pods"
GPU_CONDITION = {
    "type": "GpuHealthy",
    "status": "False",
    "reason": "Xid79",
    "message": "fell off the bus",
    "lastHeartbeatTime": "2026-01-01T00:00:00Z",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


def a_node(name: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"testbed/kubelet": "alive", "kubernetes.io/hostname": name}},
        "status": {
            "capacity": {"cpu": "96", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": "8"},
            "allocatable": {"cpu": "95", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": "7"},
            "conditions": [GPU_CONDITION],
            # The versions look like numbers on purpose: unquoted in a stage, they would be some.
            "nodeInfo": {
                "bootID": f"boot-{name}",
                "systemUUID": f"uuid-{name}",
                "machineID": "1e5",
                "kernelVersion": "6.8",
                "osImage": "24.04",
                "containerRuntimeVersion": "containerd://2.1",
                "kubeletVersion": "v1.36.4",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
        },
    }


def a_pod(name: str, node: str, **annotations: str) -> Json:
    return {
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "nodeName": node,
            "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
            "containers": [{"name": "main", "image": "example.org/train:1"}],
        },
    }


def a_job(name: str, node: str, **annotations: str) -> Json:
    template = a_pod(name, node, **annotations)
    template["spec"]["restartPolicy"] = "Never"
    del template["metadata"]["name"]
    return {"metadata": {"name": name}, "spec": {"backoffLimit": 3, "template": template}}


def condition(node: Json, kind: str = "Ready") -> str:
    return next((c["status"] for c in node["status"].get("conditions", []) if c["type"] == kind), "missing")


def in_service(node: Json) -> bool:
    return condition(node) == "True" and not node["spec"].get("taints", [])


def running(pod: Json) -> bool:
    return str(pod["status"].get("phase")) == "Running"


@pytest.fixture
def node(api: Api, request: pytest.FixtureRequest) -> Iterator[str]:
    """One node in service, under the test's name; deleted at the end."""
    yield from _one_node(api, request.node.name)


@pytest.fixture
def quick_node(quick_api: Api, request: pytest.FixtureRequest) -> Iterator[str]:
    yield from _one_node(quick_api, request.node.name)


def _one_node(api: Api, test: str) -> Iterator[str]:
    name = test.replace("_", "-")[:60].rstrip("-")
    api.create(NODES, a_node(name))
    api.wait_for(f"{NODES}/{name}", in_service, timeout_s=30)
    yield name
    api.delete(f"{NODES}/{name}")
    for pod in api.list(PODS, field_selector=f"spec.nodeName={name}"):
        api.remove(f"{PODS}/{pod['metadata']['name']}", grace_s=0)


# ---- nodes and pods


def test_nodes_are_in_service_within_seconds(quick_control_plane, quick_api):
    """66 nodes are the size of the end-to-end stories."""
    names = [f"many-{number:02}" for number in range(66)]
    for name in names:
        quick_api.create(NODES, a_node(name))

    def all_in_service() -> bool:
        return sum(map(in_service, quick_api.list(NODES))) >= len(names)

    wait_until(all_in_service, timeout_s=40, every_s=0.2, what="66 nodes in service")
    for name in names:
        quick_api.delete(f"{NODES}/{name}")


def test_node_keeps_what_it_was_created_with(api, node):
    """Hardware facts and other people's conditions come from the scene, never from the fake kubelet."""
    made, seen = a_node(node)["status"], api.get(f"{NODES}/{node}")["status"]

    assert seen["nodeInfo"] == made["nodeInfo"]
    assert seen["capacity"] == made["capacity"]
    assert seen["allocatable"] == made["allocatable"]
    assert GPU_CONDITION in seen["conditions"]
    assert {"type": "Hostname", "address": node} in seen["addresses"]


def test_node_reboot_keeps_the_new_boot_and_foreign_conditions(api, node):
    """A reboot is: kubelet away, not ready, another bootID, kubelet back."""
    path = f"{NODES}/{node}"
    api.merge_patch(path, {"metadata": {"labels": {"testbed/kubelet": None}}})
    status = api.get(path)["status"]
    for entry in status["conditions"]:
        if entry["type"] == "Ready":
            entry["status"] = "False"
    patch = {"conditions": status["conditions"], "nodeInfo": {"bootID": "boot-new"}}
    api.merge_patch(path, {"status": patch}, subresource="status")
    down = api.wait_for(path, lambda seen: bool(seen["spec"].get("taints")), timeout_s=45)
    api.merge_patch(path, {"metadata": {"labels": {"testbed/kubelet": "alive"}}})
    back = api.wait_for(path, in_service, timeout_s=45)

    assert condition(down) == "False"
    assert back["status"]["nodeInfo"]["bootID"] == "boot-new"
    assert back["status"]["nodeInfo"]["kernelVersion"] == "6.8"
    assert GPU_CONDITION in back["status"]["conditions"]


def test_node_reports_not_ready_while_annotated(api, node):
    """A living kubelet that says no is another fault than a dead one."""
    path = f"{NODES}/{node}"
    api.merge_patch(path, {"metadata": {"annotations": {"testbed/not-ready": "runtime is down"}}})
    sick = api.wait_for(path, lambda seen: condition(seen) == "False", timeout_s=45)
    api.merge_patch(path, {"metadata": {"annotations": {"testbed/not-ready": None}}})
    well = api.wait_for(path, in_service, timeout_s=45)

    ready = next(entry for entry in sick["status"]["conditions"] if entry["type"] == "Ready")
    assert ready["message"] == "runtime is down"
    assert condition(well) == "True"


def test_silent_node_becomes_unknown_and_its_pods_hang(quick_api, quick_node):
    """The dead kubelet: lease stops, node lifecycle taints, marked pods never end."""
    # With every node of the cluster silent, node lifecycle blames itself and evicts nobody.
    others = [f"healthy-{number}" for number in range(3)]
    for name in others:
        quick_api.create(NODES, a_node(name))
    path, pod = f"{NODES}/{quick_node}", f"{PODS}/hangs"
    quick_api.create(PODS, a_pod("hangs", quick_node))
    quick_api.wait_for(pod, running, timeout_s=45)
    quick_api.merge_patch(path, {"metadata": {"labels": {"testbed/kubelet": None}}})
    began = time.monotonic()
    quick_api.wait_for(path, lambda seen: condition(seen) == "Unknown", timeout_s=40)
    took_s = time.monotonic() - began
    # Another loop of node lifecycle sets the taint, a little later.
    tainted = "node.kubernetes.io/unreachable"
    quick_api.wait_for(path, lambda seen: tainted in lifecycle_taints(seen), timeout_s=40)
    # Its toleration of 10 s passes, then taint eviction deletes it; with no kubelet it stays.
    quick_api.wait_for(pod, lambda seen: "deletionTimestamp" in seen["metadata"], timeout_s=40)
    time.sleep(2)
    still = quick_api.get(pod)
    flapped = [name for name in others if condition(quick_api.get(f"{NODES}/{name}")) != "True"]
    for name in others:
        quick_api.delete(f"{NODES}/{name}")

    assert not flapped
    assert took_s > 3, "the Lease has to run out first"
    assert running(still)


def test_pod_gets_an_address_that_can_be_served_here(api, node):
    """Exporters are found by pod address, and served by the harness on this machine."""
    api.create(PODS, a_pod("addressed", node))
    pod = api.wait_for(f"{PODS}/addressed", running, timeout_s=45)

    assert pod["status"]["podIP"].startswith("127.8.")


def test_evicted_pod_goes_at_once_or_as_late_as_annotated(api, node):
    """Slow evictions are one annotation away."""
    api.create(PODS, a_pod("fast", node))
    api.create(PODS, a_pod("slow", node, **{"testbed/delete-after": "3s"}))
    for name in ("fast", "slow"):
        api.wait_for(f"{PODS}/{name}", running, timeout_s=45)
    began = time.monotonic()
    answers = [api.evict("default", name) for name in ("slow", "fast")]
    api.wait_gone(f"{PODS}/fast", timeout_s=40)
    fast_s = time.monotonic() - began
    api.wait_gone(f"{PODS}/slow", timeout_s=60)
    slow_s = time.monotonic() - began

    assert answers == [201, 201]
    assert fast_s < 3 <= slow_s


def test_eviction_is_refused_by_a_budget(api, node):
    """The refusal is a value here: stories count on it."""
    pod = a_pod("guarded", node)
    pod["metadata"]["labels"] = {"app": "guarded"}
    api.create(PODS, pod)
    api.wait_for(f"{PODS}/guarded", running, timeout_s=45)
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}}
    api.create(budgets, {"metadata": {"name": "guarded"}, "spec": spec})
    api.wait_for(f"{budgets}/guarded", lambda seen: seen["status"].get("currentHealthy") == 1, timeout_s=45)
    answer = api.evict("default", "guarded")
    api.delete(f"{budgets}/guarded")

    assert answer == 429
    assert api.evict("default", "missing") == 404


def test_removing_what_is_gone_already_is_no_error(api):
    """Between a list and the delete a garbage collector may be faster; tidying up must not fail by that."""
    api.remove(f"{PODS}/never-was", grace_s=0)

    with pytest.raises(ApiError, match="404"):
        api.delete(f"{PODS}/never-was", grace_s=0)


def test_job_pod_runs_until_told_how_it_ends(api, node):
    """A reboot Job that succeeds without a reboot would prove every repair a success."""
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    api.create(jobs, a_job("reboot", node))
    selector = "batch.kubernetes.io/job-name=reboot"

    def pods() -> list[Json]:
        return [pod for pod in api.list(PODS, label_selector=selector) if running(pod)]

    (pod,) = wait_until(pods, timeout_s=45, what="the Job's pod")
    time.sleep(2)
    before = api.get(f"{jobs}/reboot")["status"]
    path = f"{PODS}/{pod['metadata']['name']}"
    api.merge_patch(path, {"metadata": {"annotations": {"testbed/complete": "Succeeded"}}})
    after = api.wait_for(f"{jobs}/reboot", lambda job: bool(job["status"].get("succeeded")), timeout_s=60)
    api.delete(f"{jobs}/reboot")

    assert before.get("active") == 1
    assert after["status"]["succeeded"] == 1


def test_evicted_job_pod_fails_before_it_goes_and_is_replaced(api, node):
    """As with a real kubelet: the Job counts the failure, then starts another pod."""
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    api.create(jobs, a_job("train", node, **{"testbed/delete-after": "1s"}))
    selector = "batch.kubernetes.io/job-name=train"

    def others(than: str = "") -> list[Json]:
        pods = api.list(PODS, label_selector=selector)
        return [pod for pod in pods if running(pod) and pod["metadata"]["uid"] != than]

    (first,) = wait_until(others, timeout_s=45, what="the first pod")
    assert api.evict("default", first["metadata"]["name"]) == 201
    failed = api.wait_for(f"{jobs}/train", lambda job: bool(job["status"].get("failed")), timeout_s=60)
    api.wait_gone(f"{PODS}/{first['metadata']['name']}", timeout_s=60)
    wait_until(lambda: others(first["metadata"]["uid"]), timeout_s=40, every_s=0.2, what="the next pod")
    api.delete(f"{jobs}/train")

    assert failed["status"]["failed"] == 1


# ---- identities and audit


def test_people_get_only_what_rbac_gives_them(api, audit, audit_mark):
    """Alice is known by name, refused without a role, and recorded."""
    alice = api.as_user("alice", ["ops"])
    with pytest.raises(ApiError) as refused:
        alice.get(NODES)
    record = audit.wait_for(
        lambda seen: seen.username == "alice", since=audit_mark, timeout_s=20, what="alice's request"
    )

    assert refused.value.status == 403
    assert 'User "alice" cannot list resource "nodes"' in str(refused.value)
    assert "ops" in record.user.groups
    assert record.response_status.code == 403


def test_service_account_kubeconfig_is_bound_to_its_role(api, tmp_path):
    """The controller never runs as an administrator."""
    api.create("/api/v1/namespaces", {"metadata": {"name": "accounts"}})
    api.create("/api/v1/namespaces/accounts/serviceaccounts", {"metadata": {"name": "robot"}})
    path = api.service_account_kubeconfig("accounts", "robot", tmp_path / "robot.kubeconfig")
    robot = Api.from_kubeconfig(path)
    review = robot.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", {"kind": "SelfSubjectReview"})
    with pytest.raises(ApiError) as refused:
        robot.get(NODES)

    assert review["status"]["userInfo"]["username"] == "system:serviceaccount:accounts:robot"
    assert refused.value.status == 403


def test_audit_tells_spec_writes_with_bodies_and_status_writes_without(api, audit, node, audit_mark):
    """Checkers read taints from the bodies; the status chatter would only fill the disk."""
    path = f"{NODES}/{node}"
    api.merge_patch(path, {"spec": {"unschedulable": True}})
    api.merge_patch(path, {"status": {"phase": "Running"}}, subresource="status")
    audit.wait_for(
        lambda seen: seen.object_ref.subresource == "status" and seen.username == "admin",
        since=audit_mark,
        timeout_s=20,
        what="the status write",
    )
    mine = list(writes(audit.since(audit_mark), users=["admin"], resource="nodes"))
    spec, status = mine[-2:]

    assert json.loads(bytes(spec.request_object)) == {"spec": {"unschedulable": True}}
    assert json.loads(bytes(spec.response_object))["spec"]["unschedulable"] is True
    assert b"managedFields" not in bytes(spec.response_object)
    assert bytes(status.request_object) == bytes(status.response_object) == b""
    assert spec.committed
    assert spec.user_agent == "remediator-testbed"


def test_audit_counts_the_controller_s_leases_and_nobody_else_s(control_plane_binaries, tmp_path):
    """Leases are 97 % of the traffic; ours must be countable all the same."""
    options = Options(audited_users=("alice",))
    with ControlPlane(tmp_path / "audited", control_plane_binaries, options) as audited:
        api = audited.admin()
        alice = api.as_user("alice", ["system:masters"])
        mark = audited.audit.mark()
        leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
        for name, client in (("theirs", api), ("ours", alice)):
            client.create(leases, {"metadata": {"name": name}, "spec": {"holderIdentity": name}})
        alice.create("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "ours"}})
        audited.audit.wait_for(
            lambda seen: seen.object_ref.resource == "configmaps",
            since=mark,
            timeout_s=20,
            what="alice's config map",
        )
        seen = [(r.object_ref.resource, r.username, r.level) for r in writes(audited.audit.since(mark))]
        alice.close()
        api.close()

    assert [entry for entry in seen if entry[0] == "leases"] == [("leases", "alice", "Metadata")]
    assert ("configmaps", "alice", "RequestResponse") in seen
