"""The simulated autoscaler: nodes come for pods that wait, and go when nobody needs them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remediator.fleet.layout import build_fleet
from remediator.fleet.machines import address_for, machine_for
from remediator.fleet.node_objects import NodeSpec
from remediator.fleet.workloads import NAMESPACE, deployment
from remediator.sim.loop import run_virtual, virtual_clock
from remediator.sim.refusal import Json
from remediator.sim.world.autoscaler import MARK, Autoscaler, Group
from remediator.sim.world.cluster import Cluster

DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"


def grown(number: int) -> NodeSpec:
    name = f"grown-{number}"
    return NodeSpec(name, machine_for(name), address_for(1_000 + number), "zone-1", pool="train")


class Scene:
    """One node for training that exists, and a group that may grow by three."""

    def __init__(self) -> None:
        self.clock = virtual_clock()
        specs = build_fleet(1, 1, infer=0, buffer=0, system=0)
        self.cluster = Cluster(self.clock, seed=1, specs=specs, repair_label="none")
        self.cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
        self.cluster.machines.register()
        self.scaler = Autoscaler(self.cluster.server, self.clock, self.cluster.machines, Group(grown, most=3))

    def work(self, replicas: int, *, pool: str = "train") -> None:
        self.cluster.apply([deployment("work", replicas, pool=pool, gpus=8)])

    def shrink(self, replicas: int) -> None:
        self.cluster.admin.send("PATCH", f"{DEPLOYMENTS}/work", {"spec": {"replicas": replicas}})

    def grown(self) -> list[Json]:
        nodes = self.cluster.get("/api/v1/nodes")
        assert nodes is not None
        return [each for each in nodes["items"] if each["metadata"]["name"].startswith("grown")]

    def pending(self) -> int:
        pods = self.cluster.get("/api/v1/pods")
        assert pods is not None
        return sum(each["status"]["phase"] == "Pending" for each in pods["items"])


def test_nodes_come_for_pods_that_have_no_room() -> None:
    async def story() -> None:
        scene = Scene()
        scene.work(3)
        await scene.clock.sleep(100.0)
        assert (len(scene.grown()), scene.pending()) == (0, 2), "a machine has to boot"
        await scene.clock.sleep(60.0)
        assert (len(scene.grown()), scene.pending()) == (2, 0)
        assert "grown-0" in scene.cluster.machines.exporters.nodes, "with a page"

    run_virtual(story())


def test_group_grows_no_further_than_it_may_and_not_for_pods_that_it_can_not_help() -> None:
    async def story() -> None:
        scene = Scene()
        scene.work(9)
        await scene.clock.sleep(1_000.0)
        assert (len(scene.grown()), scene.pending()) == (3, 5)
        other = Scene()
        other.work(3, pool="infer")
        await other.clock.sleep(1_000.0)
        assert (len(other.grown()), other.pending()) == (0, 3)

    run_virtual(story())


def test_idle_node_is_marked_and_then_deleted() -> None:
    async def story() -> None:
        scene = Scene()
        scene.work(2)
        await scene.clock.sleep(200.0)
        scene.shrink(0)
        seen = []
        for _ in range(700):
            await scene.clock.sleep(1.0)
            seen += [MARK in str(node["spec"]["taints"]) for node in scene.grown()]
        assert scene.grown() == []
        assert seen.count(False) >= 595, "not before it was idle for a while"
        assert seen == sorted(seen), "a mark stays"
        assert 5 <= seen.count(True) <= 15, "others are told before it goes"

    run_virtual(story())


def test_machine_of_a_name_that_is_there_is_refused() -> None:
    async def story() -> None:
        scene = Scene()
        scene.cluster.machines.add(grown(0))
        with pytest.raises(ValueError, match="grown-0 is there already"):
            scene.cluster.machines.add(replace(grown(0), zone="zone-2"))

    run_virtual(story())
