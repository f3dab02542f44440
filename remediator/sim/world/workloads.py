"""The controllers of Deployments, ReplicaSets, StatefulSets, DaemonSets and Jobs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Final

from remediator.ports import Clock
from remediator.sim.objects import read_wire_time, wire_time
from remediator.sim.refusal import Json
from remediator.sim.server import Server
from remediator.sim.store import Change, Entry
from remediator.sim.world.part import Part, itself, key_of, matches_node, owned_by, owner, tolerates

DELAY_S: Final = 0.01
_OVER: Final = frozenset(("Succeeded", "Failed"))
# Source: k8s.io/kubernetes/pkg/controller/daemon/util: what every daemon pod tolerates.
_DAEMON_TOLERATES: Final = tuple(
    {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": effect}
    for what, effect in (
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    )
)


class PodKeeper(Part):
    """One kind whose objects own pods."""

    def __init__(
        self, server: Server, clock: Clock, *, group: str, plural: str, kind: str, user: str
    ) -> None:
        super().__init__(server, clock, user=f"system:serviceaccount:kube-system:{user}", delay_s=DELAY_S)
        self._kind = kind
        self._api_version = f"{group}/v1"
        self._group = group
        self._plural = plural
        self._owned: dict[str, dict[str, None]] = {}  # uid of the owner: keys of its pods
        self._lost: dict[str, int] = {}  # uid of the owner: pods that went before they had ended
        self._mine = self.listen(group, plural, itself)
        self._pods = self.listen("", "pods", self._owners)

    def lost(self, obj: Json) -> int:
        """How many of its pods have gone, or are about to, before they had ended."""
        going = ("deletionTimestamp" in pod["metadata"] for pod in self.pods_of(obj))
        return self._lost.get(obj["metadata"]["uid"], 0) + sum(going)

    def _owners(self, change: Change) -> Iterable[str]:
        pod = change.entry.obj
        found = owner(pod)
        if found is None or found["kind"] != self._kind:
            return ()
        pods = self._owned.setdefault(found["uid"], {})
        if change.type == "DELETED":
            pods.pop(key_of(pod), None)
            if pod["status"].get("phase") not in _OVER:
                self._lost[found["uid"]] = self._lost.get(found["uid"], 0) + 1
        else:
            pods[key_of(pod)] = None
        return (f"{pod['metadata']['namespace']}/{found['name']}",)

    def pods_of(self, obj: Json) -> list[Json]:
        """Its pods, by name."""
        keys = sorted(self._owned.get(obj["metadata"]["uid"], ()))
        found = (self._pods.get((key.split("/")[0], key.split("/")[1])) for key in keys)
        return [entry.obj for entry in found if entry is not None]

    def work(self, key: str) -> None:
        """Make what is missing, and say in the status what there is."""
        namespace, name = key.split("/")
        entry = self._mine.get((namespace, name))
        if entry is None or "deletionTimestamp" in entry.obj["metadata"]:
            return
        self.keep(entry.obj)

    @abstractmethod
    def keep(self, obj: Json) -> None:
        """Bring the pods of one owner in line."""

    def make_pod(self, obj: Json, *, name: str = "", spec: Json | None = None, **meta: object) -> None:
        """Create a pod by its template; without a name one is drawn."""
        template = obj["spec"]["template"]
        metadata = {
            **(template.get("metadata") or {}),
            **({"name": name} if name else {"generateName": f"{obj['metadata']['name']}-"}),
            "ownerReferences": owned_by(obj, self._api_version, self._kind),
            **meta,
        }
        pod = {"metadata": metadata, "spec": template["spec"] | (spec or {})}
        self.actor.send("POST", f"/api/v1/namespaces/{obj['metadata']['namespace']}/pods", pod)

    def drop_pod(self, pod: Json) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        self.actor.send("DELETE", path, {"preconditions": {"uid": meta["uid"]}})

    def say(self, obj: Json, status: Json) -> None:
        """Write the status where it changes."""
        before = obj.get("status") or {}
        if all(before.get(name) == value for name, value in status.items()):
            return
        meta = obj["metadata"]
        path = (
            f"/apis/{self._api_version}/namespaces/{meta['namespace']}/{self._plural}/{meta['name']}/status"
        )
        self.actor.send("PATCH", path, {"status": status})


def alive(pods: Iterable[Json]) -> list[Json]:
    """Those that are neither over nor on their way out."""
    return [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") not in _OVER
    ]


def running(pods: Iterable[Json]) -> int:
    return sum(pod["status"].get("phase") == "Running" for pod in pods)


def counted(pods: Collection[Json]) -> Json:
    """How many there are, and run, as every keeper of pods says it."""
    run = running(pods)
    return {"replicas": len(pods), "readyReplicas": run, "availableReplicas": run}


class ReplicaSets(PodKeeper):
    def __init__(self, server: Server, clock: Clock) -> None:
        super().__init__(
            server, clock, group="apps", plural="replicasets", kind="ReplicaSet", user="replicaset-controller"
        )

    def keep(self, obj: Json) -> None:
        pods, wanted = alive(self.pods_of(obj)), obj["spec"].get("replicas", 1)
        for _ in range(wanted - len(pods)):
            self.make_pod(obj)
        for pod in sorted(pods, key=_dispensable)[: max(0, len(pods) - wanted)]:
            self.drop_pod(pod)
        self.say(obj, counted(pods))


def _dispensable(pod: Json) -> tuple[bool, bool, str]:
    """What a ReplicaSet takes away first: what is not bound, then what does not run."""
    return bool(pod["spec"].get("nodeName")), pod["status"].get("phase") == "Running", pod["metadata"]["name"]


class Deployments(Part):
    """Each has one ReplicaSet; a rollout is not modelled."""

    def __init__(self, server: Server, clock: Clock) -> None:
        user = "system:serviceaccount:kube-system:deployment-controller"
        super().__init__(server, clock, user=user, delay_s=DELAY_S)
        self._mine = self.listen("apps", "deployments", itself)
        self._sets = self.listen("apps", "replicasets", self._owner)

    def _owner(self, change: Change) -> Iterable[str]:
        found = owner(change.entry.obj)
        return (f"{change.entry.obj['metadata']['namespace']}/{found['name']}",) if found else ()

    def work(self, key: str) -> None:
        namespace, name = key.split("/")
        entry = self._mine.get((namespace, name))
        if entry is None or "deletionTimestamp" in entry.obj["metadata"]:
            return
        obj, replicas = entry.obj, entry.obj["spec"].get("replicas", 1)
        made = self._sets.get((namespace, f"{name}-1"))
        path = f"/apis/apps/v1/namespaces/{namespace}"
        if made is None:
            meta = {"name": f"{name}-1", "ownerReferences": owned_by(obj, "apps/v1", "Deployment")}
            spec = {name: obj["spec"][name] for name in ("selector", "template")} | {"replicas": replicas}
            self.actor.send("POST", f"{path}/replicasets", {"metadata": meta, "spec": spec})
        elif made.obj["spec"].get("replicas") != replicas:
            self.actor.send("PATCH", f"{path}/replicasets/{name}-1", {"spec": {"replicas": replicas}})
        else:
            status = made.obj.get("status") or {}
            said = {name: status.get(name, 0) for name in counted(())}
            said["updatedReplicas"] = said["replicas"]
            if said != {name: (obj.get("status") or {}).get(name) for name in said}:
                self.actor.send("PATCH", f"{path}/deployments/{name}/status", {"status": said})


class StatefulSets(PodKeeper):
    """All pods at once (podManagementPolicy Parallel); a name comes back once the pod before is gone."""

    def __init__(self, server: Server, clock: Clock) -> None:
        super().__init__(
            server,
            clock,
            group="apps",
            plural="statefulsets",
            kind="StatefulSet",
            user="statefulset-controller",
        )

    def keep(self, obj: Json) -> None:
        pods = {pod["metadata"]["name"]: pod for pod in self.pods_of(obj)}
        for number in range(obj["spec"].get("replicas", 1)):
            name = f"{obj['metadata']['name']}-{number}"
            if name not in pods:
                self.make_pod(obj, name=name)
        living = alive(pods.values())
        self.say(obj, counted(living) | {"updatedReplicas": len(living)})


class DaemonSets(PodKeeper):
    """One pod on every node that its pods tolerate; a cordon keeps none away."""

    def __init__(self, server: Server, clock: Clock) -> None:
        super().__init__(
            server, clock, group="apps", plural="daemonsets", kind="DaemonSet", user="daemon-set-controller"
        )
        self._nodes = self.listen("", "nodes", self._all_of_a_node)

    def _all_of_a_node(self, change: Change) -> Iterable[str]:
        before, after = change.before, change.entry.obj
        same = (
            change.type == "MODIFIED"
            and before is not None
            and before.obj["spec"].get("taints") == after["spec"].get("taints")
            and before.obj["metadata"].get("labels") == after["metadata"].get("labels")
        )
        return () if same else [f"{namespace}/{name}" for namespace, name in self._mine.ordered()]

    def keep(self, obj: Json) -> None:
        on: dict[str, Json] = {}
        for pod in self.pods_of(obj):
            on[pod["spec"].get("nodeName", "")] = pod
        spec = obj["spec"]["template"]["spec"]
        tolerations = [*(spec.get("tolerations") or ()), *_DAEMON_TOLERATES]
        nodes = [node for node in map(self._nodes.get, self._nodes.ordered()) if node is not None]
        wanted = sum([self._keep_on(obj, node, on.get(_name(node)), tolerations) for node in nodes])
        run = running(on.values())
        self.say(
            obj,
            {
                "desiredNumberScheduled": wanted,
                "currentNumberScheduled": len(on),
                "updatedNumberScheduled": len(on),
                "numberReady": run,
                "numberAvailable": run,
            },
        )

    def _keep_on(self, obj: Json, node: Entry, pod: Json | None, tolerations: list[Json]) -> bool:
        """Make or end the pod of one node. True where there is to be one."""
        taints = node.obj["spec"].get("taints") or ()
        stays = all(each["effect"] != "NoExecute" or tolerates(tolerations, each) for each in taints)
        starts = stays and all(
            each["effect"] == "PreferNoSchedule" or tolerates(tolerations, each) for each in taints
        )
        fits = matches_node({"spec": obj["spec"]["template"]["spec"]}, node.obj)
        if pod is None and starts and fits:
            self.make_pod(obj, spec={"nodeName": _name(node), "tolerations": tolerations})
        elif pod is not None and "deletionTimestamp" not in pod["metadata"]:
            over = pod["status"].get("phase") in _OVER
            if over or not stays:
                self.drop_pod(pod)
        return starts and fits


def _name(entry: Entry) -> str:
    return str(entry.obj["metadata"]["name"])


class Jobs(PodKeeper):
    """Indexed and plain Jobs: a pod that fails or is lost comes again, within the backoff limit."""

    def __init__(self, server: Server, clock: Clock) -> None:
        super().__init__(server, clock, group="batch", plural="jobs", kind="Job", user="job-controller")

    def keep(self, obj: Json) -> None:
        conditions = (obj.get("status") or {}).get("conditions") or ()
        if any(each["type"] in ("Complete", "Failed") for each in conditions):
            self._sweep(obj)
            return
        pods, spec = self.pods_of(obj), obj["spec"]
        done = sum(pod["status"].get("phase") == "Succeeded" for pod in pods)
        # Kubernetes counts a pod that is evicted or deleted as one that has failed.
        failed = sum(pod["status"].get("phase") == "Failed" for pod in pods) + self.lost(obj)
        living = alive(pods)
        wanted = spec.get("completions", 1)
        if done >= wanted:
            self._end(obj, "Complete", "CompletionsReached", done, failed)
        elif (why := self._failed(obj, failed)) is not None:
            for pod in living:
                self.drop_pod(pod)
            self._end(obj, "Failed", why, done, failed)
        else:
            for _ in range(min(spec.get("parallelism", 1), wanted - done) - len(living)):
                self.make_pod(obj)
            self.say(obj, {"active": len(living), "succeeded": done, "failed": failed})

    def _failed(self, obj: Json, failed: int) -> str | None:
        """Why the Job has failed; None: it has not."""
        if failed > obj["spec"].get("backoffLimit", 6):
            return "BackoffLimitExceeded"
        return "DeadlineExceeded" if self._late(obj) else None

    def _late(self, obj: Json) -> bool:
        limit = obj["spec"].get("activeDeadlineSeconds")
        if limit is None:
            return False
        began = obj["metadata"]["creationTimestamp"]
        late = wire_time(self.clock.now()) >= _after(began, limit)
        if not late:
            self.wake(key_of(obj), limit + 1.0)
        return late

    def _end(self, obj: Json, how: str, why: str, done: int, failed: int) -> None:
        at = wire_time(self.clock.now())
        condition = {"type": how, "status": "True", "reason": why, "lastTransitionTime": at}
        self.say(obj, {"active": 0, "succeeded": done, "failed": failed, "conditions": [condition]})

    def _sweep(self, obj: Json) -> None:
        """After its time to live a finished Job goes; its pods are the garbage collector's."""
        ttl = obj["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return
        ended = obj["status"]["conditions"][0]["lastTransitionTime"]
        if wire_time(self.clock.now()) < _after(ended, ttl):
            self.wake(key_of(obj), ttl + 1.0)
            return
        meta = obj["metadata"]
        self.actor.send("DELETE", f"/apis/batch/v1/namespaces/{meta['namespace']}/jobs/{meta['name']}")


def _after(at: str, seconds: float) -> str:
    return wire_time(read_wire_time(at) + timedelta(seconds=seconds))
