"""Deploys a workload on a control plane, and looks what became of its pods."""

from __future__ import annotations

from typing import Final

from remediator.fleet.workloads import NAMESPACE, Workload, workload_objects
from remediator.testbed.api import Api
from remediator.testbed.node_edits import NODES
from remediator.testbed.waiting import wait_until

_COLLECTIONS: Final = {
    "Namespace": "/api/v1/namespaces",
    "Deployment": f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
    "StatefulSet": f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets",
    "DaemonSet": f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets",
    "Job": f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs",
    "PodDisruptionBudget": f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets",
}
PER_POD_S: Final = 0.2
_PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"


def deploy_workload(api: Api, workload: Workload | None = None) -> int:
    """Create the workload, or make it so, and wait until every pod runs: a minute and a while for each.

    Returns:
        How many pods there are.

    Raises:
        WaitExpiredError: some pod did not run in time; names those that hang.
    """
    chosen = workload or Workload()
    submit_workload(api, chosen)
    wanted = chosen.pods(len(api.list(NODES)))
    wait_until(
        lambda: len(running_pods(api)) == wanted,
        timeout_s=60.0 + PER_POD_S * wanted,
        every_s=0.2 if wanted <= 500 else 2.0,
        what=f"{wanted} running pods",
        detail=lambda: f"{len(running_pods(api))} run; pending: {', '.join(pending_pods(api)[:5])}",
    )
    return wanted


def submit_workload(api: Api, workload: Workload) -> None:
    """Create the workload, or make it so, and wait for nothing: there may be no room for it yet."""
    for item in workload_objects(workload):
        api.apply(f"{_COLLECTIONS[item['kind']]}/{item['metadata']['name']}", item)


def pending_pods(api: Api) -> tuple[str, ...]:
    """Names of the workload's pods that wait for a node, sorted."""
    return _pods_in(api, "Pending")


def running_pods(api: Api) -> tuple[str, ...]:
    """Names of the workload's pods that run, sorted; those that are being deleted are left out."""
    return _pods_in(api, "Running")


def remove_workload(api: Api, *, timeout_s: float = 60.0) -> None:
    """Delete every controller and budget in the workload's namespace and wait for the end of all pods.

    Harmless when there is nothing. The namespace stays, since its deletion alone takes eight seconds.
    """
    for kind, collection in _COLLECTIONS.items():
        if kind != "Namespace":
            api.delete_all(collection)
    wait_until(
        lambda: not api.list(_PODS), timeout_s=timeout_s, every_s=0.2, what="the end of all workload pods"
    )


def _pods_in(api: Api, phase: str) -> tuple[str, ...]:
    pods = api.list(_PODS, field_selector=f"status.phase={phase}")
    return tuple(
        sorted(pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"])
    )
