"""A simulated cluster with the product in it, on loopback, for kubectl and everybody else.

Time passes as fast as it is told to; what lives in the cluster lives in this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from remediator.adapters.dice import draw_seed
from remediator.app.simulation import ACCOUNT, Simulation, enforcing, shipped_objects
from remediator.errors import PermanentError
from remediator.fleet.dcgm_fields import TELLING
from remediator.fleet.layout import build_fleet
from remediator.fleet.workloads import filling, workload_objects
from remediator.sim.audit import Sink
from remediator.sim.front.http import PAGES, Front
from remediator.sim.loop import VirtualClock
from remediator.sim.refusal import Json
from remediator.sim.request import User
from remediator.sim.world.cluster import ADMIN, Cluster

EVENTS: Final = "/sim/events"
POLICY: Final = "/apis/remediator.dev/v1alpha1/remediationpolicies/cluster"
RESTART_S: Final = 5.0
ADMINISTRATOR: Final = User(ADMIN, ("system:masters", "system:authenticated"))

Happen = Callable[[Cluster, bytes], Json]


class Wanted(Struct, frozen=True, kw_only=True):
    """What is to be served. ``replicas`` of the controller live in this process; 0: bring your own."""

    directory: Path
    racks: int = 8
    per_rack: int = 8
    replicas: int = 1
    enforce: bool = False
    workload: bool = True
    port: int = 0
    speed: float = 1.0
    seed: int = 1


async def serve(
    wanted: Wanted, *, clock: VirtualClock, happen: Happen, audit: Sink, tell: Callable[[str], None],
    stop: asyncio.Event,
) -> None:  # fmt: skip
    """Serve it until ``stop`` is set.

    Args:
        wanted: what to serve.
        clock: of the running loop.
        happen: does to the cluster what is posted to ``EVENTS``; raises ValueError for what can't be.
        audit: is given every audit record.
        tell: hears a line of each thing that people should know.
        stop: ends it.

    Raises:
        PermanentError: the port is taken, or the folder can't be written.
    """
    specs = build_fleet(wanted.racks, wanted.per_rack, infer=1, buffer=1)
    objects = enforcing(shipped_objects()) if wanted.enforce else shipped_objects()
    simulation = Simulation(clock, seed=wanted.seed, specs=specs, objects=objects, audit=audit)
    cluster = simulation.cluster
    keys = {name: f"{draw_seed():016x}" for name in ("admin", "controller")}
    users = {keys["admin"]: ADMINISTRATOR, keys["controller"]: ACCOUNT}

    def posted(body: bytes) -> Json:
        return happen(cluster, body)

    front = Front(
        cluster.server,
        clock=clock,
        users=users,
        pages=cluster.pages,
        posts={EVENTS: posted},
        speed=wanted.speed,
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(simulation.close)
        await stack.enter_async_context(front)
        await front.start(wanted.port)
        _point_at_pages(cluster, front.url)
        if wanted.workload:
            cluster.apply(workload_objects(filling(wanted.racks, wanted.per_rack)))
        path = _write_kubeconfig(wanted.directory, front.url, keys)
        tell(f"serving {len(specs)} nodes at {front.url}, {wanted.speed:g} times as fast as life")
        tell(f'export KUBECONFIG="{path}"')
        for _ in range(wanted.replicas):
            keeper = asyncio.create_task(_keep(simulation, tell))
            stack.push_async_callback(_end, keeper)
        await stop.wait()


def _point_at_pages(cluster: Cluster, url: str) -> None:
    """Let the policy name the pages where everybody can read them, not only who lives in this process."""
    cluster.pages.address = url + PAGES
    cluster.machines.exporters.show_only(TELLING)
    exporter = {"address": cluster.pages.address}
    code, said = cluster.admin.send("PATCH", POLICY, {"spec": {"exporter": exporter}})
    if code >= 300:
        raise PermanentError(f"the policy can't be pointed at the pages: {said.get('message')}")


async def _keep(simulation: Simulation, tell: Callable[[str], None]) -> None:
    """Start a replica, and start it again whenever it has ended, as a kubelet does."""
    while True:
        try:
            replica = await simulation.start()
            tell(f"{replica.name} of the controller runs")
            await replica.ended()
        except* Exception as errors:  # noqa: BLE001 - whatever ends it, the next one starts
            tell(f"the controller has ended: {errors.exceptions[0]}")
        await simulation.clock.sleep(RESTART_S)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _write_kubeconfig(directory: Path, url: str, keys: Mapping[str, str]) -> Path:
    """One context for each user; JSON, which is YAML as well.

    Raises:
        PermanentError: the folder can't be written.
    """
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": f"{url}/{key}"}} for name, key in keys.items()],
        "users": [{"name": name, "user": {}} for name in keys],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in keys],
        "current-context": "admin",
    }
    path = directory / "kubeconfig"
    try:
        path.touch(mode=0o600)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
    except OSError as error:
        raise PermanentError(f"{path}: {error.strerror}; choose another --directory") from error
    return path
