"""The scheduler: nodeSelector, taints, cordons, GPUs, the number of pods, and one pod of a kind a host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from remediator.ports import Clock
from remediator.sim.refusal import Json
from remediator.sim.server import Server
from remediator.sim.store import Change, Entry, Key
from remediator.sim.world.part import Part, matches_node, tolerates

GPU: Final = "nvidia.com/gpu"
DELAY_S: Final = 0.01
_PASS: Final = "pass"
_OVER: Final = frozenset(("Succeeded", "Failed"))
_BLOCKING: Final = frozenset(("NoSchedule", "NoExecute"))


@dataclass(slots=True)
class _Room:
    """What is left on one node, while a pass goes on."""

    name: str
    node: Json
    gpus: int
    pods: int
    apps: set[tuple[str, str]] = field(default_factory=set)


class Scheduler(Part):
    """Binds waiting pods, highest priority and oldest first. A gang is bound as a whole, or not at all.

    Args:
        gangs: label that makes pods of one namespace a gang; empty: each pod for itself.
    """

    def __init__(self, server: Server, clock: Clock, *, gangs: str = "") -> None:
        super().__init__(server, clock, user="system:kube-scheduler", delay_s=DELAY_S)
        self._gangs = gangs
        self._pods = self.listen("", "pods", self._concerns)
        self._nodes = self.listen("", "nodes", lambda _: (_PASS,))
        self._waiting: dict[Key, None] = {}

    def _concerns(self, change: Change) -> Iterable[str]:
        meta, spec = change.entry.obj["metadata"], change.entry.obj["spec"]
        key = (meta["namespace"], meta["name"])
        waits = change.type != "DELETED" and not spec.get("nodeName") and "deletionTimestamp" not in meta
        if waits:
            self._waiting[key] = None
            return (_PASS,)
        self._waiting.pop(key, None)
        return (_PASS,) if self._waiting and change.type == "DELETED" else ()

    def work(self, key: str) -> None:
        """Try every pod that waits."""
        del key
        if not self._waiting:
            return
        rooms = self._rooms()
        shapes: dict[str, list[_Room]] = {}
        for group in self._groups():
            chosen: list[tuple[Entry, _Room]] = []
            for pod in group:
                room = self._place(pod.obj, rooms, shapes)
                if room is None:
                    break
                chosen.append((pod, room))
            if len(chosen) < len(group):
                for pod, room in chosen:
                    _give(room, pod.obj, back=True)
                continue
            for pod, room in chosen:
                self._bind(pod.obj, room.name)

    def _groups(self) -> list[list[Entry]]:
        found = [entry for key in self._waiting if (entry := self._pods.get(key)) is not None]
        found.sort(key=lambda each: (-each.obj["spec"].get("priority", 0), each.version))
        groups: dict[object, list[Entry]] = {}
        for entry in found:
            meta = entry.obj["metadata"]
            gang = (meta.get("labels") or {}).get(self._gangs) if self._gangs else None
            groups.setdefault((meta["namespace"], gang) if gang else meta["uid"], []).append(entry)
        return list(groups.values())

    def _rooms(self) -> list[_Room]:
        rooms = []
        for key in self._nodes.ordered():
            node = self._nodes.get(key)
            if node is None or node.obj["spec"].get("unschedulable"):
                continue
            allocatable = (node.obj.get("status") or {}).get("allocatable") or {}
            room = _Room(key[1], node.obj, int(allocatable.get(GPU, 0)), int(allocatable.get("pods", 110)))
            for bound in self._pods.select({"spec.nodeName": key[1]}):
                pod = self._pods.get(bound)
                if pod is not None and pod.obj["status"].get("phase") not in _OVER:
                    _give(room, pod.obj)
            rooms.append(room)
        return rooms

    def _place(self, pod: Json, rooms: list[_Room], shapes: dict[str, list[_Room]]) -> _Room | None:
        shape = _shape(pod)
        fitting = shapes.get(shape)
        if fitting is None:
            fitting = shapes[shape] = [room for room in rooms if lets_in(room.node, pod)]
        for room in fitting:
            if room.pods > 0 and room.gpus >= gpus_of(pod) and not (_apart(pod) and _app(pod) in room.apps):
                _give(room, pod)
                return room
        return None

    def _bind(self, pod: Json, node: str) -> None:
        meta = pod["metadata"]
        body = {"metadata": {"name": meta["name"]}, "target": {"kind": "Node", "name": node}}
        self.actor.send("POST", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding", body)


def gpus_of(pod: Json) -> int:
    """How many GPUs a pod holds."""
    total = 0
    for container in pod["spec"].get("containers") or ():
        resources = container.get("resources") or {}
        asked = (resources.get("limits") or {}).get(GPU) or (resources.get("requests") or {}).get(GPU) or 0
        total += int(asked)
    return total


def lets_in(node: Json, pod: Json) -> bool:
    """Does the pod name this node, or none, and tolerate its taints?"""
    tolerations = pod["spec"].get("tolerations") or ()
    taints = node["spec"].get("taints") or ()
    return matches_node(pod, node) and all(
        each["effect"] not in _BLOCKING or tolerates(tolerations, each) for each in taints
    )


def _shape(pod: Json) -> str:
    spec = pod["spec"]
    return f"{spec.get('nodeSelector')}|{spec.get('tolerations')}"


def _apart(pod: Json) -> bool:
    affinity = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    return bool(affinity.get("requiredDuringSchedulingIgnoredDuringExecution"))


def _app(pod: Json) -> tuple[str, str]:
    meta = pod["metadata"]
    return meta["namespace"], (meta.get("labels") or {}).get("app", "")


def _give(room: _Room, pod: Json, *, back: bool = False) -> None:
    sign = -1 if back else 1
    room.gpus -= sign * gpus_of(pod)
    room.pods -= sign
    if not back:
        room.apps.add(_app(pod))
