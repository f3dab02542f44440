"""All kubelets: pods start, end and are told gone; a kubelet that is silent does none of it.

A node's Lease is a function of time: it is made when somebody reads it, and costs nothing before.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from remediator.ports import Clock
from remediator.sim.audit import micro_time
from remediator.sim.objects import wire_time
from remediator.sim.patches import STRATEGIC
from remediator.sim.refusal import Json
from remediator.sim.server import NODE_LEASES, Server
from remediator.sim.store import Change
from remediator.sim.world.part import Part, key_of

LEASE_S: Final = 40
RENEW_S: Final = 10.0
START_S: Final = 0.5
END_S: Final = 1.0
_OVER: Final = frozenset(("Succeeded", "Failed"))


class Kubelets(Part):
    """``silent`` has the time since which each dead kubelet says nothing."""

    def __init__(self, server: Server, clock: Clock) -> None:
        super().__init__(server, clock, user="system:node", delay_s=START_S)
        self.silent: dict[str, float] = {}
        self.slow_s: dict[str, float] = {}  # how much longer a node's pods take to end
        self._pods = self.listen("", "pods", self._concerns)
        server.node_lease = self.lease

    def _concerns(self, change: Change) -> Iterable[str]:
        pod = change.entry.obj
        node = pod["spec"].get("nodeName")
        if change.type == "DELETED" or not node or node in self.silent:
            return ()
        key = key_of(pod)
        if "deletionTimestamp" in pod["metadata"]:
            self.wake(key, END_S + self.slow_s.get(node, 0.0))
            return ()
        return (key,) if pod["status"].get("phase") == "Pending" else ()

    def work(self, key: str) -> None:
        """Bring one pod one step on."""
        namespace, name = key.split("/")
        entry = self._pods.get((namespace, name))
        if entry is None or entry.obj["spec"].get("nodeName") in self.silent:
            return
        pod, path = entry.obj, f"/api/v1/namespaces/{namespace}/pods/{name}"
        if "deletionTimestamp" in pod["metadata"]:
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
            self.actor.send("DELETE", path, options)
        elif pod["status"].get("phase") == "Pending":
            at = wire_time(self.clock.now())
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": at}
            status = {"phase": "Running", "startTime": at, "conditions": [ready]}
            self.actor.send("PATCH", f"{path}/status", {"status": status}, content_type=STRATEGIC)

    def finish(self, key: str, phase: str) -> None:
        """Let a pod's containers end, well or not."""
        namespace, name = key.split("/")
        ready = {"type": "Ready", "status": "False", "reason": "PodCompleted"}
        status = {"status": {"phase": phase, "conditions": [ready]}}
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
        self.actor.send("PATCH", path, status, content_type=STRATEGIC)

    # -- life and silence

    def fall_silent(self, node: str) -> None:
        """Say nothing more, and end no pod."""
        self.silent.setdefault(node, self.clock.monotonic())

    def come_back(self, node: str) -> None:
        """Speak again, and catch up with what was asked meanwhile."""
        self.silent.pop(node, None)
        for namespace, name in self._pods.select({"spec.nodeName": node}):
            self.wake(f"{namespace}/{name}")

    def lease(self, node: str) -> Json | None:
        """The node's Lease as of now; None for a node that was never there."""
        found = self.shelf("", "nodes").get(("", node))
        if found is None:
            return None
        renewed = self.renewed_at(node)
        spec = {"holderIdentity": node, "leaseDurationSeconds": LEASE_S, "renewTime": micro_time(renewed)}
        meta = {"name": node, "namespace": NODE_LEASES, "resourceVersion": str(self.server.store.version)}
        return {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": meta, "spec": spec}

    def renewed_at(self, node: str) -> datetime:
        """When the kubelet renewed it last."""
        now = self.clock.monotonic()
        until = self.silent.get(node, now)
        last = until - until % RENEW_S
        return self.clock.now() - timedelta(seconds=now - last)
