"""Workloads for a fleet: they fill the training pool to the last GPU, as real ones do.

A Deployment and a gang (Indexed Job) of pods that take a whole node each; a StatefulSet guarded by
a PodDisruptionBudget; two DaemonSets, of which one stays on a quarantined node. Images never run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from remediator.testbed.api import Api
from remediator.testbed.machines import GPUS_PER_MACHINE
from remediator.testbed.node_edits import NODES
from remediator.testbed.node_objects import LABEL_POOL, Object
from remediator.testbed.waiting import wait_until

NAMESPACE: Final = "workload"
LABEL_APP: Final = "app"
IMAGE: Final = "registry.example.com/workload:v1"

DEPLOYMENT: Final = "trainers"
GANG: Final = "gang"
STATEFUL_SET: Final = "frontend"
BUDGET: Final = "frontend"
AGENT_EVERYWHERE: Final = "node-agent"  # tolerates every taint
AGENT_OF_POOLS: Final = "pool-agent"  # tolerates the pools' taints, not a quarantine

_COLLECTIONS: Final = {
    "Namespace": "/api/v1/namespaces",
    "Deployment": f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
    "StatefulSet": f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets",
    "DaemonSet": f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets",
    "Job": f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs",
    "PodDisruptionBudget": f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets",
}
_PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
_TOLERATE_ALL: Final[tuple[Object, ...]] = ({"operator": "Exists"},)
_TOLERATE_POOLS: Final[tuple[Object, ...]] = ({"key": LABEL_POOL, "operator": "Exists"},)


@dataclass(frozen=True, slots=True)
class Workload:
    """How many pods of each kind. The defaults fill the standard fleet's training pool of 48 nodes."""

    trainers: int = 40
    gang: int = 8
    frontends: int = 2
    daemon_sets: bool = True

    def pods(self, nodes: int) -> int:
        """How many pods there are in all on a fleet of ``nodes`` nodes."""
        return self.trainers + self.gang + self.frontends + (2 * nodes if self.daemon_sets else 0)


def workload_objects(workload: Workload) -> tuple[Object, ...]:
    """All objects of a workload, in the order in which they must be created."""
    objects: list[Object] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}]
    if workload.trainers:
        objects.append(deployment(DEPLOYMENT, workload.trainers, pool="train", gpus=GPUS_PER_MACHINE))
    if workload.gang:
        objects.append(gang(GANG, workload.gang, pool="train", gpus=GPUS_PER_MACHINE))
    if workload.frontends:
        objects.append(disruption_budget(BUDGET, app=STATEFUL_SET, unavailable_max=1))
        objects.append(stateful_set(STATEFUL_SET, workload.frontends, pool="infer"))
    if workload.daemon_sets:
        objects.append(daemon_set(AGENT_EVERYWHERE, _TOLERATE_ALL))
        objects.append(daemon_set(AGENT_OF_POOLS, _TOLERATE_POOLS))
    return tuple(objects)


def deploy_workload(api: Api, workload: Workload | None = None, *, timeout_s: float = 60.0) -> int:
    """Create the workload, or make it so, and wait until every pod runs.

    Returns:
        How many pods there are.

    Raises:
        WaitExpiredError: some pod did not run in time; names those that hang.
    """
    chosen = workload or Workload()
    for item in workload_objects(chosen):
        api.apply(f"{_COLLECTIONS[item['kind']]}/{item['metadata']['name']}", item)
    wanted = chosen.pods(len(api.list(NODES)))
    wait_until(
        lambda: len(running_pods(api)) == wanted,
        timeout_s=timeout_s,
        every_s=0.2,
        what=f"{wanted} running pods",
        detail=lambda: f"{len(running_pods(api))} run; pending: {', '.join(pending_pods(api)[:5])}",
    )
    return wanted


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


def deployment(name: str, replicas: int, *, pool: str, gpus: int = 0) -> Object:
    """A Deployment in one pool; ``gpus`` per pod."""
    return _controller(
        "apps/v1", "Deployment", name, {"replicas": replicas}, _pod_spec(_in_pool(pool), gpus=gpus)
    )


def gang(name: str, pods: int, *, pool: str, gpus: int = 0) -> Object:
    """An Indexed Job all of whose pods run at once: one multi-node training run."""
    spec = {"completionMode": "Indexed", "completions": pods, "parallelism": pods, "backoffLimit": 1000}
    pod = _pod_spec(_in_pool(pool), gpus=gpus) | {"restartPolicy": "Never"}
    return _controller("batch/v1", "Job", name, spec, pod)


def stateful_set(name: str, replicas: int, *, pool: str) -> Object:
    """A StatefulSet in one pool, all pods started at once, on different nodes."""
    spec = {"replicas": replicas, "serviceName": name, "podManagementPolicy": "Parallel"}
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {LABEL_APP: name}}}
    pod = _pod_spec(_in_pool(pool)) | {
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    }
    return _controller("apps/v1", "StatefulSet", name, spec, pod)


def daemon_set(name: str, tolerations: Sequence[Object]) -> Object:
    """A DaemonSet on every node whose taints ``tolerations`` cover; without GPUs."""
    return _controller("apps/v1", "DaemonSet", name, {}, _pod_spec({"tolerations": list(tolerations)}))


def disruption_budget(name: str, *, app: str, unavailable_max: int) -> Object:
    """A PodDisruptionBudget over the pods of one controller of this module."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"maxUnavailable": unavailable_max, "selector": {"matchLabels": {LABEL_APP: app}}},
    }


def _pods_in(api: Api, phase: str) -> tuple[str, ...]:
    pods = api.list(_PODS, field_selector=f"status.phase={phase}")
    return tuple(
        sorted(pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"])
    )


def _controller(api_version: str, kind: str, name: str, spec: Object, pod: Object) -> Object:
    labels = {LABEL_APP: name}
    # A Job makes its own selector and refuses one from outside.
    selector = {} if kind == "Job" else {"selector": {"matchLabels": labels}}
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {**spec, **selector, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


def _in_pool(pool: str) -> Object:
    return {
        "nodeSelector": {LABEL_POOL: pool},
        "tolerations": [{"key": LABEL_POOL, "value": pool, "effect": "NoSchedule"}],
    }


def _pod_spec(placement: Object, *, gpus: int = 0) -> Object:
    container: Object = {"name": "main", "image": IMAGE, "resources": {"requests": {"cpu": "100m"}}}
    if gpus:
        container["resources"]["limits"] = {"nvidia.com/gpu": str(gpus)}
    return {**placement, "automountServiceAccountToken": False, "containers": [container]}
