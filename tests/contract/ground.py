"""Two nodes with kubelets, and a namespace, on either cluster: what stories about its parts stand on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from remediator.fleet.machines import address_for, machine_for
from remediator.fleet.node_objects import NodeSpec
from remediator.sim.loop import run_virtual, virtual_clock
from remediator.sim.transport import SimTransport
from remediator.sim.world.cluster import Cluster
from remediator.testbed.api import Api
from remediator.testbed.fleet import apply_fleet, remove_fleet
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.node_edits import set_kubelet
from tests.contract.both import ADMIN, Client, Json
from tests.contract.live import CLOCK, NODES, connected, fresh_namespace

PATIENCE_S: Final = 100.0
LOOK_S: Final = 0.2
MAKERS: Final = (
    "apps/v1/deployments", "apps/v1/statefulsets", "apps/v1/daemonsets", "apps/v1/replicasets",
    "batch/v1/jobs",
)  # fmt: skip
HOST: Final = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class Ground:
    """``silence`` stops the kubelet of a node, ``wake`` starts it again."""

    client: Client
    namespace: str
    nodes: tuple[str, str]
    silence: Callable[[str], None]
    wake: Callable[[str], None]

    @property
    def pods(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def collection(self, plural: str, group: str = "apps") -> str:
        return f"/apis/{group}/v1/namespaces/{self.namespace}/{plural}"

    async def node(self, name: str) -> Json:
        return (await self.client.get(f"{NODES}/{name}")).body

    async def pod(self, name: str) -> Json | None:
        found = await self.client.get(f"{self.pods}/{name}")
        return found.body if found.code == 200 else None

    async def all_pods(self) -> list[Json]:
        return list((await self.client.get(self.pods)).body["items"])

    async def make(self, path: str, body: Json) -> Json:
        made = await self.client.post(path, body)
        assert made.code == 201, made.body
        return made.body

    async def until(self, true: Callable[[], Coroutine[Any, Any, object]], what: str) -> Any:
        """Wait for what the cluster is about to do; what it was is the result."""
        for _ in range(int(PATIENCE_S / LOOK_S)):
            found = await true()
            if found:
                return found
            await self.client.clock.sleep(LOOK_S)
        raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")

    async def running(self, name: str) -> Json:
        """The pod, once its kubelet has started it."""

        async def look() -> Json | None:
            pod = await self.pod(name)
            return pod if pod is not None and pod["status"].get("phase") == "Running" else None

        found: Json = await self.until(look, f"{name} runs")
        return found

    async def gone(self, name: str) -> None:
        async def look() -> bool:
            return await self.pod(name) is None

        await self.until(look, f"{name} is gone")

    async def stays(self, true: Callable[[], Coroutine[Any, Any, object]], seconds: float = 3.0) -> None:
        """It is so, and is still so after a while: nobody is about to change it."""
        await self.client.clock.sleep(seconds)
        assert await true()


Story = Callable[[Ground], Coroutine[Any, Any, None]]
Play = Callable[[Story], None]


def two_nodes(group: str) -> tuple[NodeSpec, NodeSpec]:
    """Without pool and taint, eight GPUs each; named after the story."""
    made = [
        NodeSpec(name, machine_for(name), address_for(number), "zone-1")
        for number, name in enumerate((f"{group}-a", f"{group}-b"))
    ]
    return made[0], made[1]


def play_simulated(story: Story, group: str) -> None:
    async def main() -> None:
        clock, specs = virtual_clock(), two_nodes(group)
        cluster = Cluster(clock, seed=7, specs=specs, repair_label="none")
        cluster.machines.register()
        cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": group}}])
        await clock.sleep(10.0)
        client = Client(SimTransport(cluster.server, ADMIN, clock=clock, seed=7), clock, group)
        machines = cluster.machines
        await story(Ground(client, group, _names(specs), machines.go_silent, machines.come_back))
        cluster.close()

    run_virtual(main())


def play_real(story: Story, group: str, plane: ControlPlane, api: Api) -> None:
    async def main() -> None:
        async with connected(plane.kubeconfig) as transport:
            client = Client(transport, CLOCK, group)
            await story(Ground(client, group, _names(specs), silence, wake))

    def silence(node: str) -> None:
        set_kubelet(api, node, alive=False)

    def wake(node: str) -> None:
        set_kubelet(api, node, alive=True)
        # A kubelet that comes back ends what was to end; the played one looks at changes only.
        for pod in api.list(pods):
            if pod["spec"].get("nodeName") == node and "deletionTimestamp" in pod["metadata"]:
                api.remove(f"{pods}/{pod['metadata']['name']}", grace_s=0)

    pods = f"/api/v1/namespaces/{group}/pods"
    specs = two_nodes(group)
    fresh_namespace(api, group)
    apply_fleet(api, specs)
    try:
        asyncio.run(main())
    finally:
        _clear(api, group, _names(specs))


def _clear(api: Api, group: str, names: Sequence[str]) -> None:
    """Whoever makes pods goes first."""
    for kind in MAKERS:
        version, _, plural = kind.rpartition("/")
        collection = f"/apis/{version}/namespaces/{group}/{plural}"
        for item in api.list(collection):
            api.remove(f"{collection}/{item['metadata']['name']}")
    remove_fleet(api, names)


def _names(specs: Sequence[NodeSpec]) -> tuple[str, str]:
    return specs[0].name, specs[1].name


@contextmanager
def playing(request: pytest.FixtureRequest) -> Iterator[Play]:
    """What the fixture ``play`` yields, for its parameter."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    group = words.replace("simulated", "").replace("real", "")[-40:].strip("-")
    if request.param == "simulated":
        yield lambda story: play_simulated(story, group)
        return
    plane: ControlPlane = request.getfixturevalue("quick_control_plane")
    api: Api = request.getfixturevalue("quick_api")
    yield lambda story: play_real(story, group, plane, api)
