"""A whole cluster: the server, its controllers, and a fleet of machines with their exporters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from remediator.fleet.exporter_state import ExporterStates
from remediator.fleet.node_objects import NodeSpec, Object
from remediator.ports import Clock
from remediator.sim.audit import Sink
from remediator.sim.patches import MERGE
from remediator.sim.refusal import Json
from remediator.sim.server import Server, nowhere
from remediator.sim.world.budgets import Budgets
from remediator.sim.world.exporters import SimPages
from remediator.sim.world.garbage import GarbageCollector
from remediator.sim.world.kubelets import Kubelets
from remediator.sim.world.lifecycle import NodeLifecycle, PodGc, TaintEviction
from remediator.sim.world.machines import Machines
from remediator.sim.world.part import Actor, Part
from remediator.sim.world.scheduler import Scheduler
from remediator.sim.world.workloads import DaemonSets, Deployments, Jobs, ReplicaSets, StatefulSets

ADMIN: Final = "kubernetes-admin"


class Cluster:
    """Everything but the controllers under test; built on a running ``VirtualLoop``.

    Args:
        clock: of the simulation.
        seed: decides everything that is drawn.
        specs: the fleet.
        repair_label: on the pods of repair Jobs.
        gangs: label that makes pods a gang for the scheduler; empty: there are none.
        audit: is given every audit record.
    """

    def __init__(
        self, clock: Clock, *, seed: int, specs: Iterable[NodeSpec], repair_label: str, gangs: str = "",
        audit: Sink = nowhere,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.specs = tuple(specs)
        self.server = Server(clock, seed=seed, audit=audit)
        self.admin = Actor(self.server, ADMIN)
        states = ExporterStates([spec.machine for spec in self.specs if spec.gpus], clock=clock.monotonic)
        self.pages = SimPages(states, clock=clock, seed=seed)
        self.kubelets = Kubelets(self.server, clock)
        self.lifecycle = NodeLifecycle(self.server, clock, self.kubelets)
        self.machines = Machines(
            self.server, clock, self.kubelets, self.lifecycle, states, self.specs, repair_label=repair_label
        )
        self.scheduler = Scheduler(self.server, clock, gangs=gangs)
        self.parts: tuple[Part, ...] = (
            self.kubelets,
            self.lifecycle,
            self.machines,
            self.scheduler,
            TaintEviction(self.server, clock),
            PodGc(self.server, clock),
            GarbageCollector(self.server, clock),
            Budgets(self.server, clock),
            ReplicaSets(self.server, clock),
            Deployments(self.server, clock),
            StatefulSets(self.server, clock),
            DaemonSets(self.server, clock),
            Jobs(self.server, clock),
        )

    def apply(self, objects: Sequence[Object]) -> None:
        """Create each object, in this order, or patch the one that is there.

        Raises:
            ValueError: the server refuses one.
        """
        for item in objects:
            path = self.path_of(item)
            code, said = self.admin.send("POST", path, item)
            if code == 409:
                code, said = self.admin.send(
                    "PATCH", f"{path}/{item['metadata']['name']}", item, content_type=MERGE
                )
            if code >= 300:
                raise ValueError(
                    f"{item['kind']} {item['metadata'].get('name')}: {code} {said.get('message')}"
                )

    def path_of(self, item: Object) -> str:
        """The collection that an object belongs into.

        Raises:
            ValueError: its kind is not served.
        """
        for kind in self.server.kinds:
            if (kind.api_version, kind.kind) == (item["apiVersion"], item["kind"]):
                root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
                namespace = item["metadata"].get("namespace", "default")
                return (
                    f"{root}/namespaces/{namespace}/{kind.plural}"
                    if kind.namespaced
                    else f"{root}/{kind.plural}"
                )
        raise ValueError(f"{item['kind']} of {item['apiVersion']} is not served")

    def get(self, path: str) -> Json | None:
        """One object, or a list, as an administrator reads it; None where there is none."""
        code, found = self.admin.send("GET", path)
        return found if code == 200 else None

    def close(self) -> None:
        """End all that would go on by itself."""
        for part in self.parts:
            part.close()
