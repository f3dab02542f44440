"""Create, update, patch and delete: each is one step, refused whole or done whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Final, Protocol

from remediator.ports import Clock
from remediator.sim.kinds import Kind
from remediator.sim.objects import born, changed, generated_name, same, wire_time
from remediator.sim.patches import apply_patch
from remediator.sim.refusal import (
    Json,
    Refused,
    bad_request,
    conflict,
    exists,
    invalid,
    modified,
    not_found,
)
from remediator.sim.request import Request, Route
from remediator.sim.store import Entry, Key, Shelf, Store

NAME_TRIES: Final = 8  # as the real server tries a generated name
NAME_CHARS_MAX: Final = 253
NAME_RULE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character"
)
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")
_DONE: Final = frozenset(("Succeeded", "Failed"))


class Admission(Protocol):
    """A rule that may refuse a write, as a ValidatingAdmissionPolicy does."""

    def __call__(self, request: Request, route: Route, old: Json | None, new: Json | None) -> None:
        """Raises: Refused."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a write answers: the status and the object, with its bytes where they are there."""

    code: int
    obj: Json
    body: bytes | None = None


class Writes:
    """The half of the server that changes objects."""

    def __init__(self, store: Store, *, clock: Clock, rng: Random, admissions: list[Admission]) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._admissions = admissions

    def shelf(self, kind: Kind) -> Shelf:
        """Where the objects of a kind are."""
        indexed = {name: kind.selectable[name] for name in kind.indexed}
        return self._store.shelf(f"{kind.group}/{kind.plural}", indexed)

    def entry(self, route: Route) -> Entry:
        """The stored object.

        Raises:
            Refused: 404.
        """
        found = self.shelf(route.kind).get(route.key)
        if found is None:
            raise not_found(route.kind.resource, route.name, route.kind.group)
        return found

    # -- create

    def create(self, request: Request, route: Route, obj: Json, priorities: dict[str, int]) -> Reply:
        """POST to a collection."""
        kind, shelf = route.kind, self.shelf(route.kind)
        _expect_kind(obj, kind)
        meta = obj.setdefault("metadata", {})
        if meta.get("resourceVersion"):
            raise Refused(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        if meta.get("namespace", route.namespace) != route.namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        key = (route.namespace, self._name(meta, route, shelf))
        if len(key[1]) > NAME_CHARS_MAX or not _NAME.match(key[1]):
            raise invalid(kind.kind, key[1], [("metadata.name", f'Invalid value: "{key[1]}": {NAME_RULE}')])
        if shelf.get(key) is not None:
            raise exists(kind.resource, key[1], kind.group)
        made = born(
            obj, kind, key,
            now=self._clock.now(), rng=self._rng, priorities=priorities, strict=_strict(request),
        )  # fmt: skip
        self.admit(request, route, None, made)
        return self._stored(shelf, key, made, request, code=201)

    def _name(self, meta: Json, route: Route, shelf: Shelf) -> str:
        if name := meta.get("name"):
            return str(name)
        prefix = str(meta.get("generateName") or "")
        if not prefix:
            what = "Required value: name or generateName is required"
            raise invalid(route.kind.kind, "", [("metadata.name", what)])
        for _ in range(NAME_TRIES):
            made = generated_name(prefix, self._rng)
            if shelf.get((route.namespace, made)) is None:
                return made
        raise exists(route.kind.resource, made, route.kind.group)

    # -- update and patch

    def update(self, request: Request, route: Route, obj: Json) -> Reply:
        """PUT of an object or its status."""
        entry, kind = self.entry(route), route.kind
        _expect_kind(obj, kind)
        meta = obj.get("metadata") or {}
        if meta.get("name", route.name) != route.name:
            raise bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({route.name})"
            )
        version = meta.get("resourceVersion")
        if not version and not kind.blind_updates:
            what = "Invalid value: 0: must be specified for an update"
            raise invalid(f"{kind.kind}.{kind.group}", route.name, [("metadata.resourceVersion", what)])
        if version and version != str(entry.version):
            raise modified(kind.resource, route.name)
        uid = meta.get("uid")
        if uid and uid != entry.obj["metadata"]["uid"]:
            raise _other_uid(kind, route.name, uid, entry)
        return self._changed(request, route, entry, obj)

    def patch(self, request: Request, route: Route) -> Reply:
        """PATCH of an object or its status."""
        entry, kind = self.entry(route), route.kind
        patched = apply_patch(
            entry.obj,
            request.body,
            request.headers.get("content-type", ""),
            custom=kind.custom,
            what=f"{kind.kind}/{route.name}",
        )
        meta = patched.get("metadata") or {}
        if meta.get("resourceVersion", str(entry.version)) != str(entry.version):
            raise modified(kind.resource, route.name)
        if meta.get("name") != route.name:
            raise bad_request("the name of an object can't be patched")
        return self._changed(request, route, entry, patched)

    def replace_status(self, route: Route, status: Json) -> Entry:
        """Change a status in passing of another request, as an eviction counts down a budget."""
        entry = self.entry(route)
        return self._store.put(self.shelf(route.kind), route.key, entry.obj | {"status": status})

    def _changed(self, request: Request, route: Route, entry: Entry, obj: Json) -> Reply:
        kind, shelf, old = route.kind, self.shelf(route.kind), entry.obj
        new = changed(old, obj, kind, route.subresource, strict=_strict(request))
        self.admit(request, route, old, new)
        if same(old, new):
            return Reply(200, old, entry.encoded)
        meta = new["metadata"]
        over = (
            "deletionTimestamp" in meta and not meta.get("finalizers") and old["metadata"].get("finalizers")
        )
        if over and not meta.get("deletionGracePeriodSeconds"):
            if not request.dry_run:
                self._store.remove(shelf, route.key, new)
            return Reply(200, new)
        return self._stored(shelf, route.key, new, request, code=200)

    def _stored(self, shelf: Shelf, key: Key, made: Json, request: Request, *, code: int) -> Reply:
        if request.dry_run:
            return Reply(code, made)
        entry = self._store.put(shelf, key, made)
        return Reply(code, entry.obj, entry.encoded)

    # -- delete

    def delete(self, request: Request, route: Route, options: Json) -> Reply:
        """DELETE of one object, with preconditions, finalizers and a pod's grace."""
        entry, kind = self.entry(route), route.kind
        self.require(kind, route.name, entry, options.get("preconditions") or {})
        self.admit(request, route, entry.obj, None)
        return self.take_away(request, route, entry, options)

    def require(self, kind: Kind, name: str, entry: Entry, preconditions: Json) -> None:
        """
        Raises:
            Refused: 409, a precondition does not hold.
        """
        uid, version = preconditions.get("uid"), preconditions.get("resourceVersion")
        if uid and uid != entry.obj["metadata"]["uid"]:
            raise _other_uid(kind, name, uid, entry)
        if version and version != str(entry.version):
            why = (
                f"the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in "
                f"record ({entry.version}). The object might have been modified"
            )
            raise conflict(kind.resource, name, why)

    def take_away(self, request: Request, route: Route, entry: Entry, options: Json) -> Reply:
        """Delete what nothing speaks against any more."""
        kind, shelf, meta = route.kind, self.shelf(route.kind), entry.obj["metadata"]
        finalizers = list(meta.get("finalizers") or ())
        match options.get("propagationPolicy"):
            case "Foreground" if "foregroundDeletion" not in finalizers:
                finalizers.append("foregroundDeletion")
            case "Orphan" if "orphan" not in finalizers:
                finalizers.append("orphan")
        grace_s = self._grace_s(kind, entry.obj, options)
        if not finalizers and grace_s == 0:
            if not request.dry_run:
                self._store.remove(shelf, route.key, entry.obj)
            return Reply(200, _deleted(kind, route.name, meta["uid"]))
        marked = dict(meta)
        if finalizers:
            marked["finalizers"] = finalizers
        if "deletionTimestamp" not in meta or grace_s < meta.get("deletionGracePeriodSeconds", 0):
            marked["deletionTimestamp"] = wire_time(self._clock.now() + timedelta(seconds=grace_s))
            marked["deletionGracePeriodSeconds"] = grace_s
        if marked == meta:
            return Reply(200, entry.obj, entry.encoded)
        return self._stored(shelf, route.key, entry.obj | {"metadata": marked}, request, code=200)

    def _grace_s(self, kind: Kind, obj: Json, options: Json) -> int:
        """How long a pod may take to end; everything else, and a pod without a kubelet, has no time."""
        spec = obj.get("spec") or {}
        if kind.plural != "pods" or not spec.get("nodeName") or obj["status"].get("phase") in _DONE:
            return 0
        asked = options.get("gracePeriodSeconds")
        return int(asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30))

    def admit(self, request: Request, route: Route, old: Json | None, new: Json | None) -> None:
        """Ask every rule.

        Raises:
            Refused: one says no.
        """
        for rule in self._admissions:
            rule(request, route, old, new)


def _strict(request: Request) -> bool:
    return request.query.get("fieldValidation") == "Strict"


def _expect_kind(obj: Json, kind: Kind) -> None:
    found = (obj.get("apiVersion", kind.api_version), obj.get("kind", kind.kind))
    if found != (kind.api_version, kind.kind):
        raise bad_request(
            f"the object provided is unrecognized: {found[0]}, {found[1]} where {kind.api_version}, "
            f"{kind.kind} was expected"
        )


def _other_uid(kind: Kind, name: str, uid: str, entry: Entry) -> Refused:
    why = (
        f"Precondition failed: UID in precondition: {uid}, UID in object meta: {entry.obj['metadata']['uid']}"
    )
    return conflict(kind.resource, name, why)


def _deleted(kind: Kind, name: str, uid: str) -> Json:
    details = {"name": name, "kind": kind.plural, "uid": uid}
    if kind.group:
        details["group"] = kind.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
