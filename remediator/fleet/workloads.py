"""Workloads for a fleet: they fill the training pool to the last GPU, as real ones do.

A Deployment and a gang (Indexed Job) of pods that take a whole node each; a StatefulSet guarded by
a PodDisruptionBudget; two DaemonSets, of which one stays on a quarantined node. Images never run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from remediator.fleet.machines import GPUS_PER_MACHINE
from remediator.fleet.node_objects import LABEL_POOL, Object

NAMESPACE: Final = "workload"
LABEL_APP: Final = "app"
IMAGE: Final = "registry.example.com/workload:v1"

DEPLOYMENT: Final = "trainers"
GANG: Final = "gang"
SMALL_GANG: Final = 4  # pods
STATEFUL_SET: Final = "frontend"
BUDGET: Final = "frontend"
AGENT_EVERYWHERE: Final = "node-agent"  # tolerates every taint
AGENT_OF_POOLS: Final = "pool-agent"  # tolerates the pools' taints, not a quarantine

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


def filling(racks: int, per_rack: int) -> Workload:
    """What fills the training pool of a fleet with one node for inference and one spare in each rack."""
    full = racks * (per_rack - 2)
    gang = min(SMALL_GANG, full)
    return Workload(trainers=full - gang, gang=gang, frontends=racks)


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
