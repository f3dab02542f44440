"""The common form of every part: keys wait in a queue, and are worked off one after another."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from remediator.ports import Clock
from remediator.sim.kinds import Kind
from remediator.sim.patches import MERGE
from remediator.sim.refusal import Json
from remediator.sim.request import Request, User
from remediator.sim.server import Server
from remediator.sim.store import Change, Shelf

_encode = msgspec.json.encode
_decode = msgspec.json.decode


class Actor:
    """A client that stands beside the server: its requests are answered at once, and audited like all."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._user = User(name)

    def send(
        self, method: str, path: str, body: Any = None, *, content_type: str = MERGE, **query: str
    ) -> tuple[int, Json]:
        """Send one request; status and body of the reply."""
        headers = {"user-agent": self._user.name}
        if method == "PATCH":
            headers["content-type"] = content_type
        sent = b"" if body is None else _encode(body)
        request = Request(user=self._user, method=method, path=path, query=query, headers=headers, body=sent)
        answer = self._server.handle(request)
        return answer.code, _decode(answer.body)


class Part(ABC):
    """A part of the cluster.

    Args:
        server: whose objects it looks at and writes.
        clock: of the simulation.
        user: as whom it writes.
        delay_s: from a change to its work.
    """

    def __init__(self, server: Server, clock: Clock, *, user: str, delay_s: float) -> None:
        self.server = server
        self.clock = clock
        self.actor = Actor(server, user)
        self.paused = False
        self._delay_s = delay_s
        self._due: dict[str, tuple[float, asyncio.TimerHandle]] = {}
        self._missed: dict[str, None] = {}

    def kind(self, group: str, plural: str) -> Kind:
        """A built-in kind."""
        found = self.server.kind(group, "v1", plural)
        assert found is not None, f"no kind {plural}.{group}"
        return found

    def shelf(self, group: str, plural: str) -> Shelf:
        return self.server.shelf(self.kind(group, plural))

    def listen(self, group: str, plural: str, keys: Callable[[Change], Iterable[str]]) -> Shelf:
        """Wake each key that a change of this kind concerns."""
        shelf = self.shelf(group, plural)

        def heard(change: Change) -> None:
            for key in keys(change):
                self.wake(key)

        shelf.listeners.append(heard)
        return shelf

    def wake(self, key: str, after_s: float | None = None) -> None:
        """Work on ``key`` after the usual delay, or ``after_s``; what is due earlier stays so."""
        if self.paused:
            self._missed[key] = None
            return
        delay_s = self._delay_s if after_s is None else after_s
        due = self.clock.monotonic() + delay_s
        known = self._due.get(key)
        if known is not None:
            if known[0] <= due:
                return
            known[1].cancel()
        timer = asyncio.get_running_loop().call_later(delay_s, self._work_off, key)
        self._due[key] = (due, timer)

    def _work_off(self, key: str) -> None:
        del self._due[key]
        if self.paused:
            self._missed[key] = None
            return
        self.work(key)

    @abstractmethod
    def work(self, key: str) -> None:
        """Do what there is to do about one key; it may be called for nothing."""

    def pause(self) -> None:
        """Do nothing until ``resume``, as a component does that is down."""
        self.paused = True

    def resume(self) -> None:
        """Go on, with everything that was missed."""
        self.paused = False
        missed, self._missed = self._missed, {}
        for key in missed:
            self.wake(key)

    def close(self) -> None:
        """Forget all timers."""
        for _, timer in self._due.values():
            timer.cancel()
        self._due.clear()


def key_of(obj: Json) -> str:
    """``namespace/name``, or the name alone."""
    meta = obj["metadata"]
    namespace = meta.get("namespace")
    return f"{namespace}/{meta['name']}" if namespace else str(meta["name"])


def itself(change: Change) -> Iterable[str]:
    """The object that has changed."""
    return (key_of(change.entry.obj),)


def owner(obj: Json) -> Json | None:
    """The owner that controls it."""
    return next(
        (each for each in obj["metadata"].get("ownerReferences") or () if each.get("controller")), None
    )


def owned_by(obj: Json, api_version: str, kind: str) -> list[Json]:
    """What stands in a child of ``obj``."""
    reference = {"apiVersion": api_version, "kind": kind, "name": obj["metadata"]["name"]}
    return [reference | {"uid": obj["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True}]


def condition_of(obj: Json, type_: str) -> Json | None:
    """One condition of its status."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == type_), None)


def tolerates(tolerations: Iterable[Json], taint: Json) -> bool:
    """Does any of them match this taint?"""
    for each in tolerations:
        if each.get("effect") not in (None, "", taint["effect"]):
            continue
        if each.get("operator") == "Exists":
            if each.get("key") in (None, "", taint["key"]):
                return True
        elif each.get("key") == taint["key"] and each.get("value", "") == taint.get("value", ""):
            return True
    return False


def matches_node(pod: Json, node: Json) -> bool:
    """Does the pod's nodeSelector, or its daemon's affinity, name this node?"""
    labels = node["metadata"].get("labels") or {}
    wanted = pod["spec"].get("nodeSelector") or {}
    return all(labels.get(key) == value for key, value in wanted.items())
