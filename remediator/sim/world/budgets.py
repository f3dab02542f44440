"""The disruption controller: what each PodDisruptionBudget allows now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from remediator.ports import Clock
from remediator.sim.refusal import Json
from remediator.sim.selectors import structured
from remediator.sim.server import Server
from remediator.sim.store import Change
from remediator.sim.world.part import Part, condition_of, itself, owner

DELAY_S: Final = 0.01


class Budgets(Part):
    """Counts the healthy pods of each budget; of pods without a controller it knows what it sees."""

    def __init__(self, server: Server, clock: Clock) -> None:
        user = "system:serviceaccount:kube-system:disruption-controller"
        super().__init__(server, clock, user=user, delay_s=DELAY_S)
        self._mine = self.listen("policy", "poddisruptionbudgets", itself)
        self._pods = self.listen("", "pods", self._guarding)

    def _guarding(self, change: Change) -> Iterable[str]:
        namespace = change.entry.obj["metadata"]["namespace"]
        found = []
        for key in self._mine.ordered():
            budget = self._mine.get(key)
            if budget is not None and key[0] == namespace and _selects(budget.obj, change.entry.obj):
                found.append(f"{key[0]}/{key[1]}")
        return found

    def work(self, key: str) -> None:
        namespace, name = key.split("/")
        budget = self._mine.get((namespace, name))
        if budget is None:
            return
        pods = [
            pod.obj
            for each in self._pods.ordered()
            if each[0] == namespace
            and (pod := self._pods.get(each)) is not None
            and _selects(budget.obj, pod.obj)
        ]
        healthy = sum(_healthy(pod) for pod in pods)
        expected = self._expected(pods)
        desired = _desired(budget.obj["spec"], expected)
        status = {
            "observedGeneration": budget.obj["metadata"]["generation"],
            "expectedPods": expected,
            "desiredHealthy": desired,
            "currentHealthy": healthy,
            "disruptionsAllowed": max(0, healthy - desired) if expected else 0,
            "disruptedPods": _still_disrupted(budget.obj, pods),
        }
        if status != budget.obj.get("status"):
            path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/{name}/status"
            self.actor.send("PUT", path, budget.obj | {"status": status})

    def _expected(self, pods: list[Json]) -> int:
        """What the pods' controllers want, each counted once; what has none counts for itself."""
        total, seen = 0, set()
        for pod in pods:
            found = owner(pod)
            if found is None:
                total += 1
            elif found["uid"] not in seen:
                seen.add(found["uid"])
                total += self._replicas(pod["metadata"]["namespace"], found)
        return total

    def _replicas(self, namespace: str, reference: Json) -> int:
        plural = {"ReplicaSet": "replicasets", "StatefulSet": "statefulsets"}.get(reference["kind"])
        found = self.shelf("apps", plural).get((namespace, reference["name"])) if plural else None
        return int(found.obj["spec"].get("replicas", 1)) if found is not None else 1


def _still_disrupted(budget: Json, pods: list[Json]) -> Json:
    """Pods whose eviction was let through and whose deletion is not seen yet."""
    here = {each["metadata"]["name"] for each in pods if "deletionTimestamp" not in each["metadata"]}
    disrupted = (budget.get("status") or {}).get("disruptedPods") or {}
    return {pod: at for pod, at in disrupted.items() if pod in here}


def _selects(budget: Json, pod: Json) -> bool:
    return structured(budget["spec"].get("selector"))(pod)


def _healthy(pod: Json) -> bool:
    ready = condition_of(pod, "Ready")
    return "deletionTimestamp" not in pod["metadata"] and ready is not None and ready["status"] == "True"


def _desired(spec: Json, expected: int) -> int:
    if "maxUnavailable" in spec:
        return max(0, expected - _share(spec["maxUnavailable"], expected))
    return _share(spec.get("minAvailable", 1), expected)


def _share(value: int | str, whole: int) -> int:
    """A number, or a percentage rounded up."""
    if isinstance(value, int):
        return value
    return -(-whole * int(value.rstrip("%")) // 100)
