"""The API server: finds what a request is about, has it done, and writes the audit record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final

import msgspec

from remediator.ports import Clock
from remediator.sim.audit import Audit, Sink
from remediator.sim.discovery import answer_about_itself
from remediator.sim.eviction import Evictions
from remediator.sim.kinds import BUILT_IN, Kind, custom_kinds
from remediator.sim.reads import Reads
from remediator.sim.refusal import Json, Refused, conflict, not_found, unknown_path
from remediator.sim.request import Request, Route, find_route
from remediator.sim.store import Entry, Key, Shelf, Store
from remediator.sim.watch import Watch
from remediator.sim.writes import Admission, Reply, Writes

NODE_LEASES: Final = "kube-node-lease"  # kubelets renew them by the thousand: made when they are read
DEFINITIONS: Final = "customresourcedefinitions"
ONE_POD: Final = "the server does not allow this method on the requested resource"

_encode = msgspec.json.encode
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP reply."""

    code: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def nowhere(line: bytes) -> None:
    """The sink of an audit log that nobody keeps."""
    del line


class Server:
    """An API server in memory. Each request is one step: nobody sees it half done.

    Args:
        clock: of the whole simulation.
        seed: of uids, generated names and the lives of watches.
        audit: is given each record, one line of JSON.
        admissions: rules that may refuse a write, asked in order.
    """

    def __init__(
        self, clock: Clock, *, seed: int, audit: Sink = nowhere, admissions: Iterable[Admission] = ()
    ) -> None:
        rng = Random(f"server {seed}")
        self.store = Store(clock)
        self.admissions = list(admissions)
        self.node_lease: Callable[[str], Json | None] = lambda _: None
        self._clock = clock
        self._kinds = {(kind.group, kind.version, kind.plural): kind for kind in BUILT_IN}
        self._writes = Writes(self.store, clock=clock, rng=rng, admissions=self.admissions)
        self._reads = Reads(self.store, clock=clock, rng=rng)
        budgets = self._kinds["policy", "v1", "poddisruptionbudgets"]
        self._evictions = Evictions(self._writes, budgets, clock)
        self._audit = Audit(audit, Random(f"audit {seed}"))
        self._made: dict[str, Callable[[Request, Route], Reply]] = {
            "": self._create, "eviction": self._evict, "binding": self._bind,
        }  # fmt: skip

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Everything that is served."""
        return tuple(self._kinds.values())

    def kind(self, group: str, version: str, plural: str) -> Kind | None:
        return self._kinds.get((group, version, plural))

    def shelf(self, kind: Kind) -> Shelf:
        """The objects of a kind, for those parts of the cluster that look without asking."""
        return self._writes.shelf(kind)

    # -- one request

    def handle(self, request: Request, refuse: Refused | None = None) -> Answer:
        """Answer any request but a watch; ``refuse`` is the answer to one that is turned away unread."""
        began, route, refusal = self._clock.now(), None, None
        try:
            if refuse is not None:
                with suppress(Refused):  # of a path that nobody serves the log has no route
                    route = find_route(request, self.kind)
                raise refuse
            known = answer_about_itself(request, self.kinds)
            if known is not None:
                return Answer(*known)
            route = find_route(request, self.kind)
            answer = self._answer(request, route)
        except Refused as refused:
            refusal = refused.status()
            answer = _refusal(refused)
        self._audit.record(
            request, route,
            began=began, ended=self._clock.now(), code=answer.code, answered=answer.body, refusal=refusal,
        )  # fmt: skip
        return answer

    def watch(self, request: Request) -> Watch:
        """Open a watch. Close what is returned.

        Raises:
            Refused: as ``handle`` would have answered it.
        """
        route = find_route(request, self.kind)
        return self._reads.watch(request, route, self.shelf(route.kind))

    def _answer(self, request: Request, route: Route) -> Answer:
        shelf = self.shelf(route.kind)
        match route.verb:
            case "get" if route.namespace == NODE_LEASES and route.kind.plural == "leases":
                return self._node_lease(route)
            case "get":
                return Answer(200, self._reads.get(route, shelf).encoded)
            case "list":
                return Answer(200, self._reads.list(request, route, shelf))
            case "create":
                reply = self._made[route.subresource](request, route)
            case "update":
                reply = self._update(request, route)
            case "patch":
                reply = self._writes.patch(request, route)
            case "delete":
                reply = self._delete(request, route)
            case _:
                raise Refused(405, "MethodNotAllowed", ONE_POD)
        return Answer(reply.code, reply.body if reply.body is not None else _encode(reply.obj))

    def _node_lease(self, route: Route) -> Answer:
        found = self.node_lease(route.name)
        if found is None:
            raise not_found(route.kind.resource, route.name, route.kind.group)
        return Answer(200, _encode(found))

    # -- writes

    def _create(self, request: Request, route: Route) -> Reply:
        obj = request.json()
        if route.kind.namespaced and not route.namespace:
            raise unknown_path()
        reply = self._writes.create(request, route, obj, self._priorities())
        if route.kind.plural == DEFINITIONS and not request.dry_run:
            self._serve(reply.obj)
        return reply

    def _update(self, request: Request, route: Route) -> Reply:
        reply = self._writes.update(request, route, request.json())
        if route.kind.plural == DEFINITIONS and not request.dry_run:
            self._serve(reply.obj)
        return reply

    def _delete(self, request: Request, route: Route) -> Reply:
        options = request.json() if request.body else {}
        for name in ("propagationPolicy", "gracePeriodSeconds"):
            if name in request.query:
                options[name] = request.query[name]
        definition = self.shelf(route.kind).get(route.key) if route.kind.plural == DEFINITIONS else None
        reply = self._writes.delete(request, route, options)
        if definition is not None and not request.dry_run:
            self._drop(definition)
        return reply

    def _evict(self, request: Request, route: Route) -> Reply:
        return self._evictions.evict(request, route, request.json())

    def _bind(self, request: Request, route: Route) -> Reply:
        """What a scheduler writes: the pod's node, once."""
        entry, body = self._writes.entry(route), request.json()
        node = (body.get("target") or {}).get("name", "")
        if entry.obj["spec"].get("nodeName"):
            why = f'pod {route.name} is already assigned to node "{entry.obj["spec"]["nodeName"]}"'
            raise conflict("pods/binding", route.name, why)
        when = {"type": "PodScheduled", "status": "True"}
        status = entry.obj["status"]
        bound = entry.obj | {
            "spec": entry.obj["spec"] | {"nodeName": node},
            "status": status | {"conditions": [*(status.get("conditions") or ()), when]},
        }
        if not request.dry_run:
            self.store.put(self.shelf(route.kind), route.key, bound)
        return Reply(
            201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        )

    def _priorities(self) -> dict[str, int]:
        kind = self._kinds["scheduling.k8s.io", "v1", "priorityclasses"]
        shelf = self.shelf(kind)
        found = ((key, shelf.get(key)) for key in shelf.ordered())
        named = {key[1]: int(entry.obj["value"]) for key, entry in found if entry is not None}
        return {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000} | named

    # -- kinds that come and go

    def _serve(self, definition: Json) -> None:
        for kind in custom_kinds(definition):
            self._kinds[kind.group, kind.version, kind.plural] = kind

    def _drop(self, definition: Entry) -> None:
        for kind in custom_kinds(definition.obj):
            shelf = self.shelf(kind)
            for key in list(shelf.ordered()):
                self._forget(shelf, key)
            self._kinds.pop((kind.group, kind.version, kind.plural), None)

    def _forget(self, shelf: Shelf, key: Key) -> None:
        entry = shelf.get(key)
        if entry is not None:
            self.store.remove(shelf, key, entry.obj)

    # -- trouble of its own

    def freeze(self, kind: Kind) -> None:
        """Let the watch cache of a kind hang."""
        self.shelf(kind).freeze(self.store.version)

    def expire(self, kind: Kind) -> None:
        """Forget the history of a kind and every continue token, and end all watches of it."""
        self.shelf(kind).compact(self.store.version)
        self._reads.forget_tokens()


def _refusal(refused: Refused) -> Answer:
    headers = {"retry-after": str(refused.retry_after_s)} if refused.retry_after_s is not None else {}
    return Answer(refused.code, _encode(refused.status()), headers)
