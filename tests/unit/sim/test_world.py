"""The cluster around the simulated server: each part does what its Kubernetes namesake does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from remediator.fleet.layout import build_fleet
from remediator.fleet.repairs import Reboot
from remediator.fleet.workloads import (
    NAMESPACE,
    Workload,
    daemon_set,
    deployment,
    disruption_budget,
    gang,
    stateful_set,
    workload_objects,
)
from remediator.sim.loop import run_virtual, virtual_clock
from remediator.sim.refusal import Json
from remediator.sim.world.cluster import Cluster

REPAIR = "test/repair"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
NODE = "gpu-a-01"


class Scene:
    """Two racks of four: two for training, one for inference, one spare each; and a namespace."""

    def __init__(self, *, gangs: str = "") -> None:
        self.clock = virtual_clock()
        specs = build_fleet(2, 4, infer=1, buffer=1, system=0)
        self.cluster = Cluster(self.clock, seed=1, specs=specs, repair_label=REPAIR, gangs=gangs)
        self.machines = self.cluster.machines
        self.cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
        self.machines.register()

    def pods(self, app: str = "") -> list[Json]:
        found = self.cluster.get("/api/v1/pods")
        assert found is not None
        named = [pod for pod in found["items"] if not app or pod["metadata"]["labels"].get("app") == app]
        return sorted(named, key=lambda pod: str(pod["spec"].get("nodeName", "")))

    def homes(self, app: str = "") -> list[str]:
        return [pod["spec"].get("nodeName", "") for pod in self.pods(app)]

    def phases(self, app: str = "") -> set[str]:
        return {pod["status"]["phase"] for pod in self.pods(app)}

    def node(self, name: str = NODE) -> Json:
        found = self.cluster.get(f"/api/v1/nodes/{name}")
        assert found is not None
        return found

    def taints(self, name: str = NODE) -> list[tuple[str, str]]:
        taints = self.node(name)["spec"].get("taints") or ()
        return [(each["key"], each["effect"]) for each in taints if each["key"].startswith("node.kubernetes")]

    def budget(self) -> Json:
        found = self.cluster.get(f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/web")
        assert found is not None
        status: Json = found["status"]
        return status

    def evict(self, pod: Json) -> int:
        name = pod["metadata"]["name"]
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        return self.cluster.admin.send("POST", f"{PODS}/{name}/eviction", body)[0]


def play(story: Callable[[Scene], Coroutine[Any, Any, None]], *, gangs: str = "") -> None:
    async def main() -> None:
        scene = Scene(gangs=gangs)
        await scene.clock.sleep(1)
        await story(scene)
        scene.cluster.close()

    run_virtual(main())


def test_nodes_that_register_become_ready_and_lose_their_first_taint() -> None:
    async def story(scene: Scene) -> None:
        assert scene.taints() == []
        assert all(scene.node(spec.name)["status"]["nodeInfo"]["bootID"] for spec in scene.cluster.specs)

    play(story)


def test_pods_fill_their_pool_to_the_last_gpu_and_the_rest_waits() -> None:
    async def story(scene: Scene) -> None:
        scene.cluster.apply([deployment("web", 5, pool="train", gpus=8)])
        await scene.clock.sleep(5)
        assert scene.homes("web") == ["", "gpu-a-01", "gpu-a-02", "gpu-b-01", "gpu-b-02"]
        assert scene.phases("web") == {"Pending", "Running"}

    play(story)


def test_cordon_and_taint_keep_pods_away() -> None:
    async def story(scene: Scene) -> None:
        scene.cluster.admin.send("PATCH", f"/api/v1/nodes/{NODE}", {"spec": {"unschedulable": True}})
        await scene.clock.sleep(1)
        assert scene.taints() == [("node.kubernetes.io/unschedulable", "NoSchedule")]
        scene.cluster.apply([deployment("web", 4, pool="train", gpus=8)])
        await scene.clock.sleep(5)
        assert scene.homes("web") == ["", "gpu-a-02", "gpu-b-01", "gpu-b-02"]
        scene.cluster.admin.send("PATCH", f"/api/v1/nodes/{NODE}", {"spec": {"unschedulable": None}})
        await scene.clock.sleep(5)
        assert "" not in scene.homes("web")
        assert scene.taints() == []

    play(story)


def test_gang_that_does_not_fit_as_a_whole_does_not_start() -> None:
    async def story(scene: Scene) -> None:
        scene.cluster.apply([deployment("web", 2, pool="train", gpus=8)])
        await scene.clock.sleep(5)
        scene.cluster.apply([gang("team", 3, pool="train", gpus=8)])
        await scene.clock.sleep(5)
        assert scene.homes("team") == ["", "", ""]
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/web"
        scene.cluster.admin.send("PATCH", path, {"spec": {"replicas": 1}})
        await scene.clock.sleep(40)
        assert "" not in scene.homes("team")

    play(story, gangs="app")


def test_pods_of_a_stateful_set_stand_on_different_nodes_and_keep_their_names() -> None:
    async def story(scene: Scene) -> None:
        scene.cluster.apply([stateful_set("web", 2, pool="infer")])
        await scene.clock.sleep(5)
        assert scene.homes("web") == ["gpu-a-03", "gpu-b-03"]
        first = scene.pods("web")[0]
        assert scene.evict(first) == 201
        await scene.clock.sleep(5)
        again = next(
            each for each in scene.pods("web") if each["metadata"]["name"] == first["metadata"]["name"]
        )
        assert again["metadata"]["uid"] != first["metadata"]["uid"]
        assert scene.phases("web") == {"Running"}

    play(story)


def test_budget_lets_one_go_at_a_time() -> None:
    async def story(scene: Scene) -> None:
        scene.cluster.apply(
            [disruption_budget("web", app="web", unavailable_max=1), stateful_set("web", 2, pool="infer")]
        )
        await scene.clock.sleep(5)
        assert (scene.budget()["disruptionsAllowed"], scene.budget()["expectedPods"]) == (1, 2)
        one, two = scene.pods("web")
        assert (scene.evict(one), scene.evict(two)) == (201, 429)
        await scene.clock.sleep(0.5)
        assert scene.budget()["disruptionsAllowed"] == 0
        await scene.clock.sleep(10)
        assert scene.budget()["disruptionsAllowed"] == 1
        assert scene.budget()["disruptedPods"] == {}

    play(story)


def test_daemon_stays_on_a_cordoned_node_and_leaves_one_that_it_does_not_tolerate() -> None:
    async def story(scene: Scene) -> None:
        pools = {"key": "example.com/pool", "operator": "Exists"}
        scene.cluster.apply([daemon_set("agent", [pools])])
        await scene.clock.sleep(5)
        assert len(scene.homes("agent")) == len(scene.cluster.specs)
        scene.cluster.admin.send("PATCH", f"/api/v1/nodes/{NODE}", {"spec": {"unschedulable": True}})
        await scene.clock.sleep(5)
        assert NODE in scene.homes("agent")
        bad = [*scene.node()["spec"]["taints"], {"key": "out", "effect": "NoExecute"}]
        scene.cluster.admin.send("PATCH", f"/api/v1/nodes/{NODE}", {"spec": {"taints": bad}})
        await scene.clock.sleep(5)
        assert NODE not in scene.homes("agent")

    play(story)


def test_silent_kubelet_is_missed_after_the_grace_period_and_its_pods_after_what_they_tolerate() -> None:
    async def story(scene: Scene) -> None:
        scene.cluster.apply([deployment("web", 1, pool="train", gpus=8)])
        await scene.clock.sleep(5)
        scene.machines.go_silent(NODE)
        await scene.clock.sleep(49)
        assert scene.taints() == []
        await scene.clock.sleep(10)
        assert scene.taints() == [
            ("node.kubernetes.io/unreachable", "NoSchedule"),
            ("node.kubernetes.io/unreachable", "NoExecute"),
        ]
        await scene.clock.sleep(290)
        assert scene.homes("web") == [NODE]
        await scene.clock.sleep(20)
        assert scene.homes("web") == [NODE, "gpu-a-02"], "the old pod hangs: nobody is there to end it"
        scene.machines.come_back(NODE)
        await scene.clock.sleep(5)
        assert scene.homes("web") == ["gpu-a-02"]
        assert scene.taints() == []

    play(story)


def test_zone_most_of_whose_nodes_are_silent_loses_no_pod() -> None:
    async def story(scene: Scene) -> None:
        scene.cluster.apply(workload_objects(Workload(trainers=2, gang=0, frontends=0, daemon_sets=False)))
        await scene.clock.sleep(5)
        for node in ("gpu-a-01", "gpu-a-02", "gpu-a-03"):
            scene.machines.go_silent(node)
        await scene.clock.sleep(600)
        assert scene.homes("trainers") == ["gpu-a-01", "gpu-a-02"]
        assert not [effect for _, effect in scene.taints() if effect == "NoExecute"]

    play(story)


def test_pods_of_a_node_that_is_gone_are_collected() -> None:
    async def story(scene: Scene) -> None:
        scene.cluster.apply([deployment("web", 1, pool="train", gpus=8)])
        await scene.clock.sleep(5)
        scene.machines.delete_node(NODE)
        await scene.clock.sleep(30)
        assert scene.homes("web") == ["gpu-a-02"]

    play(story)


def test_lease_of_a_kubelet_grows_old_only_while_it_is_silent() -> None:
    async def story(scene: Scene) -> None:
        kubelets = scene.cluster.kubelets
        await scene.clock.sleep(1_000)
        assert (scene.clock.now() - kubelets.renewed_at(NODE)).total_seconds() <= 10
        kubelets.fall_silent(NODE)
        await scene.clock.sleep(100)
        assert 100 <= (scene.clock.now() - kubelets.renewed_at(NODE)).total_seconds() <= 110

    play(story)


def test_reboot_takes_a_node_away_and_brings_it_back_in_another_boot() -> None:
    async def story(scene: Scene) -> None:
        before = scene.node()["status"]["nodeInfo"]["bootID"]
        scene.machines.lose_gpu(NODE, 3)
        assert scene.node()["status"]["allocatable"]["nvidia.com/gpu"] == "7"
        scene.machines.reboot(NODE, Reboot(off_s=20))
        await scene.clock.sleep(10)
        assert ("node.kubernetes.io/not-ready", "NoExecute") in scene.taints()
        await scene.clock.sleep(15)
        assert scene.node()["status"]["nodeInfo"]["bootID"] != before
        assert scene.node()["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        assert scene.taints() == []

    play(story)


def test_job_past_its_deadline_has_failed_and_goes_after_its_time_to_live() -> None:
    async def story(scene: Scene) -> None:
        job = gang("late", 1, pool="train", gpus=8)
        job["spec"] |= {"activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 100}
        scene.cluster.apply([job])
        path = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/late"
        await scene.clock.sleep(50)
        found = scene.cluster.get(path)
        assert found is not None
        assert found["status"]["active"] == 1
        await scene.clock.sleep(20)
        found = scene.cluster.get(path)
        assert found is not None
        assert found["status"]["conditions"][0]["type"] == "Failed"
        await scene.clock.sleep(200)
        assert scene.cluster.get(path) is None

    play(story)


def test_job_without_retries_has_failed_once_its_pod_is_taken_away() -> None:
    async def story(scene: Scene) -> None:
        job = gang("once", 1, pool="train", gpus=8)
        job["spec"] |= {"backoffLimit": 0}
        scene.cluster.apply([job])
        await scene.clock.sleep(5)
        (pod,) = scene.pods("once")
        scene.cluster.admin.send("DELETE", f"{PODS}/{pod['metadata']['name']}")
        await scene.clock.sleep(30)
        found = scene.cluster.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/once")
        assert found is not None
        assert (found["status"]["failed"], found["status"]["conditions"][0]["type"]) == (1, "Failed")
        assert scene.pods("once") == []

    play(story)


def test_part_that_is_down_catches_up_when_it_is_back() -> None:
    async def story(scene: Scene) -> None:
        scene.cluster.scheduler.pause()
        scene.cluster.apply([deployment("web", 2, pool="train", gpus=8)])
        await scene.clock.sleep(60)
        assert scene.homes("web") == ["", ""]
        scene.cluster.scheduler.resume()
        await scene.clock.sleep(5)
        assert scene.phases("web") == {"Running"}

    play(story)


DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/web"
SETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/replicasets"


def sets(scene: Scene) -> list[Json]:
    found = scene.cluster.get(SETS)
    assert found is not None
    return list(found["items"])


def delete(scene: Scene, policy: str) -> None:
    code, _ = scene.cluster.admin.send("DELETE", DEPLOYMENT, {"propagationPolicy": policy})
    assert code == 200


def test_what_an_object_owned_goes_after_it() -> None:
    async def story(scene: Scene) -> None:
        scene.cluster.apply([deployment("web", 2, pool="infer")])
        await scene.clock.sleep(5)
        assert (len(sets(scene)), len(scene.pods("web"))) == (1, 2)
        delete(scene, "Background")
        assert scene.cluster.get(DEPLOYMENT) is None
        await scene.clock.sleep(60)
        assert (sets(scene), scene.pods("web")) == ([], [])

    play(story)


def test_owner_that_waits_for_what_it_owned_goes_last() -> None:
    async def story(scene: Scene) -> None:
        scene.cluster.apply([deployment("web", 2, pool="infer")])
        await scene.clock.sleep(5)
        delete(scene, "Foreground")
        await scene.clock.sleep(0.1)
        assert scene.cluster.get(DEPLOYMENT) is not None
        await scene.clock.sleep(60)
        assert scene.cluster.get(DEPLOYMENT) is None
        assert (sets(scene), scene.pods("web")) == ([], [])

    play(story)


def test_what_is_orphaned_lives_on_without_its_owner() -> None:
    async def story(scene: Scene) -> None:
        scene.cluster.apply([deployment("web", 2, pool="infer")])
        await scene.clock.sleep(5)
        delete(scene, "Orphan")
        await scene.clock.sleep(60)
        assert scene.cluster.get(DEPLOYMENT) is None
        (left,) = sets(scene)
        assert not left["metadata"].get("ownerReferences")
        assert len(scene.pods("web")) == 2

    play(story)


def test_pod_that_comes_after_its_owner_is_gone_is_garbage() -> None:
    async def story(scene: Scene) -> None:
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "old", "uid": "gone"}
        pod = {
            "metadata": {"name": "late", "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
        assert scene.cluster.admin.send("POST", PODS, pod)[0] == 201
        await scene.clock.sleep(2)
        assert scene.cluster.get(f"{PODS}/late") is None

    play(story)
