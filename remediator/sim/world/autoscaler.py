"""An autoscaler: machines come for pods that have no room, and go when nothing has run on them for a while.

Like Kubernetes' own it asks whether a new node would help a pod before it adds one, and marks a node before
it deletes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from remediator.fleet.node_objects import NodeSpec, node_object
from remediator.ports import Clock
from remediator.sim.objects import wire_time
from remediator.sim.refusal import Json
from remediator.sim.server import Server
from remediator.sim.store import Change
from remediator.sim.world.machines import NODES, Machines
from remediator.sim.world.part import Part, owner
from remediator.sim.world.scheduler import gpus_of, lets_in

LOOK_S: Final = 10.0  # --scan-interval
MARKED_S: Final = 10.0  # between the mark and the end of the Node
MARK: Final = "ToBeDeletedByClusterAutoscaler"
_LOOK: Final = "look"
_OVER: Final = frozenset(("Succeeded", "Failed"))


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that an autoscaler makes.

    ``spec`` gives the node of a number, from 0 on. At most ``most`` of them are there at once; one needs
    ``boot_s`` until it registers, and goes after ``idle_s`` without pods.
    """

    spec: Callable[[int], NodeSpec]
    most: int
    boot_s: float = 120.0
    idle_s: float = 600.0


class Autoscaler(Part):
    """Keeps one group as large as the pods that wait for it need."""

    def __init__(self, server: Server, clock: Clock, machines: Machines, group: Group) -> None:
        super().__init__(server, clock, user="cluster-autoscaler", delay_s=LOOK_S)
        self._machines = machines
        self._group = group
        self._booting: dict[str, NodeSpec] = {}
        self._numbers = iter(range(1_000_000))
        self._idle_since: dict[str, float] = {}
        self._mine: set[str] = set()
        self._pods = self.listen("", "pods", self._concerns)
        self._nodes = self.listen("", "nodes", lambda _: ())

    def grow(self, count: int) -> int:
        """Order so many machines, as far as the group may grow; how many were ordered."""
        room = self._group.most - len(self._booting) - len(self._present())
        ordered = max(0, min(count, room))
        for _ in range(ordered):
            spec = self._group.spec(next(self._numbers))
            self._booting[spec.name] = spec
            asyncio.get_running_loop().call_later(self._group.boot_s, self._arrive, spec)
        return ordered

    def work(self, key: str) -> None:
        """Order what waiting pods need, and let go what nobody needs."""
        del key
        self.grow(self._wanted() - len(self._booting))
        self._let_go()
        if self._booting or self._present():
            self.wake(_LOOK)

    def _concerns(self, change: Change) -> Iterable[str]:
        waits = change.type != "DELETED" and not change.entry.obj["spec"].get("nodeName")
        return (_LOOK,) if waits else ()

    def _arrive(self, spec: NodeSpec) -> None:
        del self._booting[spec.name]
        self._mine.add(spec.name)
        self._machines.add(spec)
        self.wake(_LOOK)

    def _present(self) -> list[str]:
        return [name for name in sorted(self._mine) if self._nodes.get(("", name)) is not None]

    def _wanted(self) -> int:
        """How many new nodes would give every pod room that waits and that such a node would let in."""
        sample = self._group.spec(0)
        node = node_object(sample, at=wire_time(self.clock.now()))
        waiting = [gpus_of(pod) for pod in self._waiting() if lets_in(node, pod)]
        fitting = [gpus for gpus in waiting if gpus <= sample.gpus]
        return -(-sum(fitting) // max(1, sample.gpus))

    def _waiting(self) -> Iterable[Json]:
        for key in self._pods.ordered():
            entry = self._pods.get(key)
            if entry is None or "deletionTimestamp" in entry.obj["metadata"]:
                continue
            if not entry.obj["spec"].get("nodeName"):
                yield entry.obj

    def _let_go(self) -> None:
        now = self.clock.monotonic()
        for name in self._present():
            if self._busy(name):
                self._idle_since.pop(name, None)
            elif now - self._idle_since.setdefault(name, now) >= self._group.idle_s:
                self._mark(name)

    def _busy(self, node: str) -> bool:
        """Does anything run there that would not come along with any node?"""
        pods = (self._pods.get(key) for key in self._pods.select({"spec.nodeName": node}))
        return any(each is not None and _counts(each.obj) for each in pods)

    def _mark(self, name: str) -> None:
        entry = self._nodes.get(("", name))
        if entry is None or any(each["key"] == MARK for each in entry.obj["spec"].get("taints") or ()):
            return
        taints = [*(entry.obj["spec"].get("taints") or ()), {"key": MARK, "effect": "NoSchedule"}]
        meta = {"resourceVersion": str(entry.version)}
        self.actor.send("PATCH", f"{NODES}/{name}", {"metadata": meta, "spec": {"taints": taints}})
        asyncio.get_running_loop().call_later(MARKED_S, self._remove, name)

    def _remove(self, name: str) -> None:
        self._idle_since.pop(name, None)
        self._mine.discard(name)
        self._machines.delete_node(name)


def _counts(pod: Json) -> bool:
    made_by = owner(pod)
    of_a_daemon = made_by is not None and made_by["kind"] == "DaemonSet"
    return not of_a_daemon and pod["status"].get("phase") not in _OVER
