"""Node lifecycle, taint eviction and the pods' garbage collector: what Kubernetes does about sick nodes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from remediator.ports import Clock
from remediator.sim.objects import wire_time
from remediator.sim.patches import STRATEGIC
from remediator.sim.refusal import Json
from remediator.sim.server import Server
from remediator.sim.store import Change
from remediator.sim.world.kubelets import Kubelets
from remediator.sim.world.part import Part, condition_of, itself, key_of, tolerates

GRACE_S: Final = 50.0  # --node-monitor-grace-period
MONITOR_S: Final = 5.0  # --node-monitor-period
PODGC_S: Final = 20.0
LOOK_S: Final = 0.01
ZONE: Final = "topology.kubernetes.io/zone"
SICK_SHARE: Final = 0.55  # --unhealthy-zone-threshold
SICK_LEAST: Final = 3
NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
_OWN: Final = frozenset((NOT_READY, UNREACHABLE, UNSCHEDULABLE))


class NodeLifecycle(Part):
    """Turns silence into Unknown, and conditions and cordons into taints."""

    def __init__(self, server: Server, clock: Clock, kubelets: Kubelets) -> None:
        user = "system:serviceaccount:kube-system:node-controller"
        super().__init__(server, clock, user=user, delay_s=LOOK_S)
        self._kubelets = kubelets
        self._nodes = self.listen("", "nodes", itself)

    def watch_silence(self, node: str) -> None:
        """A kubelet fell silent: it is missed at the first look after the grace period."""
        self.wake(node, GRACE_S + MONITOR_S)

    def work(self, key: str) -> None:
        entry = self._nodes.get(("", key))
        if entry is None:
            return
        if self._missed_too_long(key) and (condition_of(entry.obj, "Ready") or {}).get("status") != "Unknown":
            self._call_unknown(key, entry.obj)
            return  # that change brings us back here
        taints = list(entry.obj["spec"].get("taints") or ())
        wanted = [each for each in taints if each["key"] not in _OWN] + self._own(entry.obj)
        if {(each["key"], each["effect"]) for each in taints} != {
            (each["key"], each["effect"]) for each in wanted
        }:
            meta = {"resourceVersion": str(entry.version)}
            self.actor.send("PATCH", f"/api/v1/nodes/{key}", {"metadata": meta, "spec": {"taints": wanted}})

    def _missed_too_long(self, node: str) -> bool:
        since = self._kubelets.silent.get(node)
        return since is not None and self.clock.monotonic() - since >= GRACE_S

    def _call_unknown(self, name: str, node: Json) -> None:
        at = wire_time(self.clock.now())
        told = {
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastTransitionTime": at,
        }
        kubelets = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
        conditions = [{"type": each} | told for each in kubelets if condition_of(node, each) is not None]
        status = {"status": {"conditions": conditions}}
        self.actor.send("PATCH", f"/api/v1/nodes/{name}/status", status, content_type=STRATEGIC)

    def _own(self, node: Json) -> list[Json]:
        own: list[Json] = []
        if node["spec"].get("unschedulable"):
            own.append({"key": UNSCHEDULABLE, "effect": "NoSchedule"})
        ready = condition_of(node, "Ready")
        status = ready["status"] if ready is not None else "Unknown"
        if status == "True":
            return own
        key = NOT_READY if status == "False" else UNREACHABLE
        own.append({"key": key, "effect": "NoSchedule"})
        # A zone most of whose nodes are sick is a network's trouble: nobody is evicted there.
        if not self._zone_is_sick(node):
            known = [each for each in node["spec"].get("taints") or () if each["key"] == key]
            added = next((each for each in known if each["effect"] == "NoExecute"), None)
            own.append(added or {"key": key, "effect": "NoExecute", "timeAdded": wire_time(self.clock.now())})
        return own

    def _zone_is_sick(self, node: Json) -> bool:
        zone = (node["metadata"].get("labels") or {}).get(ZONE)
        total = sick = 0
        for key in self._nodes.ordered():
            other = self._nodes.get(key)
            if other is not None and (other.obj["metadata"].get("labels") or {}).get(ZONE) == zone:
                total += 1
                sick += (condition_of(other.obj, "Ready") or {}).get("status") != "True"
        return sick >= SICK_LEAST and sick / total >= SICK_SHARE


class TaintEviction(Part):
    """Deletes pods that do not tolerate a NoExecute taint, or not for so long."""

    def __init__(self, server: Server, clock: Clock) -> None:
        user = "system:serviceaccount:kube-system:taint-eviction-controller"
        super().__init__(server, clock, user=user, delay_s=LOOK_S)
        self._nodes = self.listen("", "nodes", self._tainted)
        self._pods = self.shelf("", "pods")
        self._since: dict[tuple[str, str], float] = {}  # of a node's taints

    def _tainted(self, change: Change) -> Iterable[str]:
        name = change.entry.obj["metadata"]["name"]
        keys = {each["key"] for each in _no_execute(change.entry.obj)} if change.type != "DELETED" else set()
        for known in [each for each in self._since if each[0] == name and each[1] not in keys]:
            del self._since[known]
        for key in sorted(keys):
            self._since.setdefault((name, key), self.clock.monotonic())
        return (name,) if keys else ()

    def work(self, key: str) -> None:
        node = self._nodes.get(("", key))
        if node is None:
            return
        now, next_s = self.clock.monotonic(), None
        taints = _no_execute(node.obj)
        for pod_key in self._pods.select({"spec.nodeName": key}):
            pod = self._pods.get(pod_key)
            if pod is None or "deletionTimestamp" in pod.obj["metadata"]:
                continue
            left_s = self._left_s(key, pod.obj, taints, now)
            if left_s is not None and left_s <= 0:
                path = f"/api/v1/namespaces/{pod_key[0]}/pods/{pod_key[1]}"
                self.actor.send("DELETE", path, {"preconditions": {"uid": pod.obj["metadata"]["uid"]}})
            elif left_s is not None:
                next_s = left_s if next_s is None else min(next_s, left_s)
        if next_s is not None:
            self.wake(key, next_s)

    def _left_s(self, node: str, pod: Json, taints: Iterable[Json], now: float) -> float | None:
        """How long the pod may stay yet; None: for ever."""
        left: list[float] = []
        for taint in taints:
            matching = [each for each in pod["spec"].get("tolerations") or () if tolerates((each,), taint)]
            if not matching:
                return 0.0
            limited = [
                each["tolerationSeconds"] for each in matching if each.get("tolerationSeconds") is not None
            ]
            if len(limited) == len(matching):
                left.append(self._since[node, taint["key"]] + min(limited) - now)
        return min(left) if left else None


def _names(taints: Iterable[Json]) -> set[tuple[str, str]]:
    return {(each["key"], each["effect"]) for each in taints}


def _no_execute(node: Json) -> list[Json]:
    return [each for each in node["spec"].get("taints") or () if each["effect"] == "NoExecute"]


class PodGc(Part):
    """Removes pods whose node is gone, and by force those of a node that a person called out of service."""

    def __init__(self, server: Server, clock: Clock) -> None:
        user = "system:serviceaccount:kube-system:pod-garbage-collector"
        super().__init__(server, clock, user=user, delay_s=PODGC_S)
        self._nodes = self.listen("", "nodes", self._concerns)
        self._pods = self.listen("", "pods", lambda change: self._of_pod(change.entry.obj))

    def _concerns(self, change: Change) -> Iterable[str]:
        node = change.entry.obj
        out = any(each["key"] == OUT_OF_SERVICE for each in node["spec"].get("taints") or ())
        return (key_of(node),) if change.type == "DELETED" or out else ()

    def _of_pod(self, pod: Json) -> Iterable[str]:
        name = pod["spec"].get("nodeName")
        node = self._nodes.get(("", name)) if name else None
        if not name or (node is not None and not self._is_out(node.obj)):
            return ()
        return (name,)

    @staticmethod
    def _is_out(node: Json) -> bool:
        ready = (condition_of(node, "Ready") or {}).get("status")
        taints = node["spec"].get("taints") or ()
        return ready != "True" and any(each["key"] == OUT_OF_SERVICE for each in taints)

    def work(self, key: str) -> None:
        node = self._nodes.get(("", key))
        if node is not None and not self._is_out(node.obj):
            return
        for pod_key in self._pods.select({"spec.nodeName": key}):
            pod = self._pods.get(pod_key)
            if pod is None or (node is not None and "deletionTimestamp" not in pod.obj["metadata"]):
                continue
            path = f"/api/v1/namespaces/{pod_key[0]}/pods/{pod_key[1]}"
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.obj["metadata"]["uid"]}}
            self.actor.send("DELETE", path, options)
