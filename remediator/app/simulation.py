"""A simulated cluster with the product in it: kinds, pools, playbooks, and replicas of the controller.

Only what a replica stands on is simulated; it is built by the same code as the process in a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import cache
from random import Random
from typing import Any, Final

import structlog
from ruamel.yaml import YAML

from remediator.adapters.kube.server_clock import ServerClock
from remediator.app.controller import Outside, open_caller, prepare
from remediator.app.fence import TermFence
from remediator.app.lifeline import Life, Lifeline, Machine, Wrap, as_it_is
from remediator.app.manifests import deploy_directory
from remediator.app.settings import Settings, lease_times
from remediator.fleet.node_objects import NodeSpec, Object
from remediator.model.keys import LABEL_REPAIR
from remediator.runtime.controller import Controller
from remediator.sim.audit import Sink
from remediator.sim.loop import VirtualClock
from remediator.sim.request import User
from remediator.sim.server import nowhere
from remediator.sim.ticks import ClockTicks
from remediator.sim.transport import SimTransport
from remediator.sim.world.cluster import Cluster
from remediator.sim.world.exporters import ADDRESS

NAMESPACE: Final = "remediator"
ACCOUNT: Final = User(
    "system:serviceaccount:remediator:remediator",
    ("system:serviceaccounts", "system:serviceaccounts:remediator", "system:authenticated"),
)
PARK_S: Final = 60.0
PERIOD: Final = "15s"  # of the pages, as in production
_MANIFESTS: Final = (
    "deploy/crds/*.yaml",
    "deploy/overlays/testbed/policy.yaml",
    "deploy/overlays/repair-job/namespace.yaml",
    "deploy/overlays/repair-job/podtemplate.yaml",
    "deploy/examples/pools.yaml",
    "playbooks/*.yaml",
)

_log = structlog.get_logger(__name__)


@cache
def shipped_objects() -> tuple[Object, ...]:
    """What the project ships, in the order in which it is applied: kinds, policy, pools, playbooks.

    Raises:
        PermanentError: this is an installation without the manifests.
    """
    root = deploy_directory().parent
    yaml = YAML(typ="safe", pure=True)
    files = [file for pattern in _MANIFESTS for file in sorted(root.glob(pattern))]
    return tuple(item for file in files for item in yaml.load_all(file) if item)


def enforcing(objects: Iterable[Object]) -> list[Object]:
    """The same with every pool and playbook in Enforce, and the pages where the simulation has them."""
    raised = {
        "ResourcePool": {"maxMode": "Enforce"},
        "Playbook": {"mode": "Enforce"},
        "RemediationPolicy": {"maxMode": "Enforce", "repair": {"namespace": "remediator-repair"}},
    }
    result = []
    for item in objects:
        spec = item.get("spec", {}) | raised.get(item["kind"], {})
        if item["kind"] == "RemediationPolicy":
            spec["exporter"] = spec["exporter"] | {"address": ADDRESS, "period": PERIOD}
        result.append(item | {"spec": spec} if item["kind"] in raised else item)
    return result


class Replica(Life):
    """One process of the controller."""

    def __init__(self, name: str, controller: Controller, lifeline: Lifeline, machine: Machine) -> None:
        super().__init__(controller.run(), lifeline, machine)
        self.name = name
        self.controller = controller

    @property
    def leading(self) -> bool:
        return self.alive and self.controller.leading

    def terminate(self) -> None:
        """Ask it to end, as SIGTERM does."""
        self.controller.stop()

    async def stop(self) -> bool:
        """End it as SIGTERM does; True where it ended well."""
        self.terminate()
        async with asyncio.timeout(PARK_S):
            return await self._task


class Simulation:
    """A cluster in memory with the product's objects in it; must be built on a running ``VirtualLoop``.

    Args:
        clock: of the running loop.
        seed: decides everything that is drawn.
        specs: the fleet.
        objects: what is applied first, kinds before what needs them.
        audit: is given every audit record.
    """

    def __init__(
        self, clock: VirtualClock, *, seed: int, specs: Iterable[NodeSpec], objects: Iterable[Object],
        audit: Sink = nowhere,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.cluster = Cluster(clock, seed=seed, specs=specs, repair_label=LABEL_REPAIR, audit=audit)
        self._seed = seed
        self.replicas: list[Replica] = []
        self.cluster.server.admissions.append(TermFence(self.cluster.server, ACCOUNT.name))
        self.cluster.apply(list(objects))
        self.cluster.machines.register()

    async def start(self, *, lease_s: float = 15.0, wrap: Wrap = as_it_is) -> Replica:
        """Start one more replica, on a machine of its own.

        Args:
            lease_s: how long its successor will wait for it.
            wrap: stands between the replica and the server.

        Raises:
            PermanentError, TransientError: it can't start.
        """
        number = len(self.replicas)
        name = f"replica-{number}"
        seed = self._seed * 1_000 + number + 1
        settings = Settings(namespace=NAMESPACE, identity=name, seed=seed, **lease_times(lease_s))
        caller = open_caller(settings, seed)
        way = SimTransport(
            self.cluster.server, ACCOUNT, clock=self.clock, seed=seed, introduce=caller.headers
        )
        machine = Machine(self.clock)
        lifeline = Lifeline(wrap(way), machine)
        outside = Outside(
            clock=ServerClock(machine),
            rng=Random(seed),
            transport=lifeline,
            caller=caller,
            pages=self.cluster.pages,
            ticks=ClockTicks(self.clock, on_error=_tell),
        )
        controller, _ = await prepare(settings, outside)
        replica = Replica(name, controller, lifeline, machine)
        self.replicas.append(replica)
        return replica

    async def close(self) -> None:
        """End every replica, and all that would go on by itself."""
        for replica in self.replicas:
            if replica.alive:
                await replica.kill()
        self.cluster.close()

    # -- what there is to see

    def all(self, kind: str) -> list[dict[str, Any]]:
        """All objects of one of the product's kinds, by name. ``kind`` in the plural."""
        found = self.cluster.get(f"/apis/remediator.dev/v1alpha1/{kind}")
        return list(found["items"]) if found is not None else []

    async def wait_for(
        self, what: str, true: Callable[[], object], *, within_s: float, every_s: float = 0.5
    ) -> None:
        """Let time pass until ``true()`` holds.

        Raises:
            TimeoutError: not within ``within_s`` virtual seconds.
        """
        until = self.clock.monotonic() + within_s
        while not true():
            if self.clock.monotonic() >= until:
                raise TimeoutError(f"not within {within_s:g} s: {what}")
            await self.clock.sleep(every_s)


def _tell(job: str, error: Exception) -> None:
    _log.error("job failed", job=job, error=str(error))
