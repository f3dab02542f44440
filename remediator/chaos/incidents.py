"""Lets an event of a schedule happen in a simulated cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from remediator.chaos.schedule import Event
from remediator.fleet.repairs import JobEnds, Reboot, Returns
from remediator.sim.refusal import Json
from remediator.sim.world.cluster import Cluster
from remediator.sim.world.part import Part

NODES: Final = "/api/v1/nodes"
FOREIGN: Final = ("example.com/", "node.kubernetes.io/")  # taints that a person leaves alone
PODS: Final = "/api/v1/pods"
STAYS: Final = ("chaos.example.com/stays",)
PEER: Final = "ToBeDeletedByClusterAutoscaler"
REBOOTS: Final[Mapping[str, tuple[Reboot, JobEnds]]] = {
    "never": (Reboot(times=0), JobEnds.SUCCEEDS),
    "twice": (Reboot(times=2), JobEnds.SUCCEEDS),
    "late": (Reboot(late_s=500.0), JobEnds.SUCCEEDS),
    "sick": (Reboot(returns=Returns.NOT_READY), JobEnds.SUCCEEDS),
    "silent": (Reboot(returns=Returns.SILENT), JobEnds.SUCCEEDS),
    "persists": (Reboot(fault_persists=True), JobEnds.SUCCEEDS),
    "same boot": (Reboot(new_boot_id=False), JobEnds.SUCCEEDS),
    "job fails": (Reboot(), JobEnds.FAILS),
    "job hangs": (Reboot(), JobEnds.HANGS),
}


class Incidents:
    """What can happen to machines, nodes and the parts of a cluster; leaders are somebody else's.

    Args:
        cluster: in which it happens.
        opt_out: the label by which people keep the controller off a node.
    """

    def __init__(self, cluster: Cluster, *, opt_out: str) -> None:
        self._cluster = cluster
        self._label = opt_out
        self._machines = cluster.machines
        self._gpu_nodes = [spec.name for spec in cluster.specs if spec.gpus]
        self._on: Mapping[str, Callable[[Event], bool]] = {
            "Xid": self._xid,
            "RemapPending": self._remap,
            "Condition": self._condition,
            "Clear": self._clear,
            "Silent": self._silent,
            "PagesLie": self._lie,
            "PageTrouble": self._trouble,
            "Heal": self._heal,
            "Uncordon": lambda event: self._patch(event.node, {"unschedulable": None}),
            "Cordon": lambda event: self._patch(event.node, {"unschedulable": True}),
            "Untaint": self._untaint,
            "PodsStay": self._pods_stay,
            "DeleteNode": self._delete,
            "PeerMark": self._mark,
            "OptOut": self._opt_out,
            "RecreateNode": self._recreate,
            "PartDown": self._part_down,
            "RebootGoes": self._reboot_goes,
        }

    def happen(self, event: Event) -> bool:
        """Let it happen. False where it could not: the node is not there any more."""
        return self._on[event.kind](event)

    def _xid(self, event: Event) -> bool:
        self._machines.exporters.inject_xid(event.node, 0, int(event.value))
        return True

    def _remap(self, event: Event) -> bool:
        self._machines.exporters.set_gauge(event.node, 0, "DCGM_FI_DEV_ROW_REMAP_PENDING", 1)
        return True

    def _condition(self, event: Event) -> bool:
        type_, _, status = event.detail.partition("=")
        if self._there(event.node):
            self._machines.set_condition(event.node, type_, status, "Chaos", "set by chaos")
        return self._there(event.node)

    def _clear(self, event: Event) -> bool:
        return self._there(event.node) and self._machines.clear_conditions(event.node, "Resolved")

    def _silent(self, event: Event) -> bool:
        if not self._there(event.node):
            return False
        self._machines.go_silent(event.node)
        if event.value:
            asyncio.get_running_loop().call_later(event.value, self._machines.come_back, event.node)
        return True

    def _lie(self, event: Event) -> bool:
        for node in self._gpu_nodes[: round(event.value * len(self._gpu_nodes))]:
            self._machines.exporters.inject_xid(node, 1, 79)
        return True

    def _trouble(self, event: Event) -> bool:
        getattr(self._machines.exporters, event.detail)(event.node)
        return True

    def _heal(self, event: Event) -> bool:
        self._machines.exporters.heal(event.node)
        return True

    def _patch(self, node: str, spec: dict[str, object]) -> bool:
        code, _ = self._cluster.admin.send("PATCH", f"{NODES}/{node}", {"spec": spec})
        return code == 200

    def _untaint(self, event: Event) -> bool:
        node = self._cluster.get(f"{NODES}/{event.node}")
        if node is None:
            return False
        taints = node["spec"].get("taints") or ()
        return self._patch(
            event.node, {"taints": [each for each in taints if each["key"].startswith(FOREIGN)]}
        )

    def _mark(self, event: Event) -> bool:
        node = self._cluster.get(f"{NODES}/{event.node}")
        if node is None:
            return False
        taints = [*(node["spec"].get("taints") or ()), {"key": PEER, "effect": "NoSchedule"}]
        return self._patch(event.node, {"taints": taints})

    def _opt_out(self, event: Event) -> bool:
        change = {"metadata": {"labels": {self._label: "true"}}}
        code, _ = self._cluster.admin.send("PATCH", f"{NODES}/{event.node}", change)
        return bool(self._label) and code == 200

    def _pods_stay(self, event: Event) -> bool:
        """Each of its pods gets a finalizer, as from a controller that is slow, or gone for good."""
        _, found = self._cluster.admin.send("GET", PODS, fieldSelector=f"spec.nodeName={event.node}")
        held = [_path(pod) for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]
        for path in held:
            self._finalize(path, [*STAYS])
        if event.value:
            for path in held:
                asyncio.get_running_loop().call_later(event.value, self._finalize, path, None)
        return bool(held)

    def _finalize(self, path: str, finalizers: list[str] | None) -> None:
        self._cluster.admin.send("PATCH", path, {"metadata": {"finalizers": finalizers}})

    def _delete(self, event: Event) -> bool:
        there = self._there(event.node)
        self._machines.delete_node(event.node)
        return there

    def _recreate(self, event: Event) -> bool:
        self._machines.recreate_node(event.node)
        return True

    def _part_down(self, event: Event) -> bool:
        parts = self._parts(event.detail)
        for part in parts:
            part.pause()
            asyncio.get_running_loop().call_later(event.value, part.resume)
        return True

    def _parts(self, name: str) -> tuple[Part, ...]:
        cluster = self._cluster
        known = {
            "scheduler": (cluster.scheduler,),
            "lifecycle": (cluster.lifecycle,),
            "kubelets": (cluster.kubelets,),
        }
        rest = tuple(each for each in cluster.parts if all(each not in found for found in known.values()))
        return known.get(name, tuple(each for each in rest if each is not cluster.machines))

    def _reboot_goes(self, event: Event) -> bool:
        reboot, job = REBOOTS[event.detail]
        self._machines.plan(event.node, reboot, job=job)
        return True

    def _there(self, node: str) -> bool:
        return self._cluster.get(f"{NODES}/{node}") is not None


def _path(pod: Json) -> str:
    meta = pod["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
