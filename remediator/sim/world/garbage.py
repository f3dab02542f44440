"""The garbage collector: what an object owned goes after it, or before it, or is let go."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final, NamedTuple

from remediator.ports import Clock
from remediator.sim.refusal import Json
from remediator.sim.server import Server
from remediator.sim.store import Change, Shelf
from remediator.sim.world.part import Part

DELAY_S: Final = 0.2
FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"
#: Kinds that own something, or are owned, in a cluster like this one.
KINDS: Final = (
    ("", "pods"),
    ("", "configmaps"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("apps", "daemonsets"),
    ("batch", "jobs"),
)


class _Place(NamedTuple):
    """Where an object is."""

    shelf: int
    namespace: str
    name: str


class GarbageCollector(Part):
    """Works off uids of owners: those that have gone, and those that are on their way."""

    def __init__(self, server: Server, clock: Clock) -> None:
        user = "system:serviceaccount:kube-system:generic-garbage-collector"
        super().__init__(server, clock, user=user, delay_s=DELAY_S)
        self._places: dict[str, _Place] = {}  # uid of everything that is there
        self._owned: dict[str, dict[str, None]] = {}  # uid of an owner: uids of what it owns
        self._shelves: list[Shelf] = []
        for number, (group, plural) in enumerate(KINDS):
            self._shelves.append(self.listen(group, plural, partial(self._note, number)))

    def _note(self, number: int, change: Change) -> Iterable[str]:
        meta = change.entry.obj["metadata"]
        uid, owners = meta["uid"], _owners(change.entry.obj)
        if change.type == "DELETED":
            self._places.pop(uid, None)
            for owner in owners:
                self._owned.get(owner, {}).pop(uid, None)
            return (uid, *owners)
        self._places[uid] = _Place(number, meta.get("namespace", ""), meta["name"])
        for owner in owners:
            self._owned.setdefault(owner, {})[uid] = None
        # What comes to life without its owner is garbage from the first moment on.
        lost = [owner for owner in owners if owner not in self._places]
        return (uid, *lost) if "deletionTimestamp" in meta else lost

    def work(self, key: str) -> None:
        owner = self._object(key)
        owned = self._owned_by(key)
        if owner is None:
            for obj in owned:
                self._drop(obj)
            if not owned:
                self._owned.pop(key, None)
            return
        finalizers = owner["metadata"].get("finalizers") or ()
        if ORPHAN in finalizers:
            for obj in owned:
                self._let_go(obj, key)
            self._lift(owner, ORPHAN)
        elif FOREGROUND in finalizers and owned:
            for obj in owned:
                self._drop(obj)
        elif FOREGROUND in finalizers:
            self._lift(owner, FOREGROUND)

    def _owned_by(self, owner: str) -> list[Json]:
        found = [obj for obj in map(self._object, list(self._owned.get(owner, ()))) if obj is not None]
        return [obj for obj in found if owner in _owners(obj)]

    def _object(self, uid: str) -> Json | None:
        place = self._places.get(uid)
        entry = self._shelves[place.shelf].get((place.namespace, place.name)) if place is not None else None
        return entry.obj if entry is not None and entry.obj["metadata"]["uid"] == uid else None

    def _drop(self, obj: Json) -> None:
        meta = obj["metadata"]
        if "deletionTimestamp" not in meta and not any(map(self._stays, _owners(obj))):
            self.actor.send("DELETE", self._path(obj), {"preconditions": {"uid": meta["uid"]}})

    def _stays(self, uid: str) -> bool:
        owner = self._object(uid)
        return owner is not None and "deletionTimestamp" not in owner["metadata"]

    def _let_go(self, obj: Json, owner: str) -> None:
        references = [each for each in obj["metadata"]["ownerReferences"] if each["uid"] != owner]
        self.actor.send("PATCH", self._path(obj), {"metadata": {"ownerReferences": references}})

    def _lift(self, obj: Json, finalizer: str) -> None:
        left = [each for each in obj["metadata"]["finalizers"] if each != finalizer]
        self.actor.send("PATCH", self._path(obj), {"metadata": {"finalizers": left}})

    def _path(self, obj: Json) -> str:
        meta = obj["metadata"]
        group, plural = KINDS[self._places[meta["uid"]].shelf]
        root = f"/apis/{group}/v1" if group else "/api/v1"
        return f"{root}/namespaces/{meta['namespace']}/{plural}/{meta['name']}"


def _owners(obj: Json) -> list[str]:
    return [each["uid"] for each in obj["metadata"].get("ownerReferences") or ()]
