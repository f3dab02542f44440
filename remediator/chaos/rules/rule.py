"""What every rule is: a number, a sentence, what it needs, and a look at one request after the other."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any, ClassVar, Final, TypeVar

import msgspec
from msgspec import Struct

from remediator.adapters.audit import AuditRecord
from remediator.chaos.profile import Own, Profile
from remediator.chaos.world import NodeState, Object, World, shown_by

REMEMBERED_MAX: Final = 100_000
_KEYS: Final = re.compile(r"\[[^]]+\]|[^.\[\]]+")


K = TypeVar("K")
V = TypeVar("V")


class Recent(OrderedDict[K, V]):
    """Remembers what was set last, and a bounded number of it."""

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > REMEMBERED_MAX:
            self.popitem(last=False)


class Rule(ABC):
    """One rule over one log.

    ``judged`` counts requests that the rule applied to and could tell; ``unjudged`` those that it
    applied to and could not, since the log keeps no body of them or never showed the object before.

    Args:
        profile: of the controller that is judged.
        world: as it was before the request at hand.
    """

    id: ClassVar[str]
    sentence: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()  # fields of the profile

    def __init__(self, profile: Profile, world: World) -> None:
        self.profile = profile
        self.world = world
        self.judged = 0
        self.unjudged = 0
        self._names_work = re.compile(profile.plan.user_agent) if profile.plan is not None else None

    @abstractmethod
    def see(self, record: AuditRecord) -> str | None:
        """What is wrong with one completed request of the controller; None: nothing."""

    def overhear(self, record: AuditRecord) -> None:  # noqa: B027 - few rules are about others
        """Take in one completed request of somebody else, where the rule is about what others did."""

    def end(self) -> str | None:
        """What is wrong at the end of a log that ends in calm; None: nothing, or no rule about that."""
        return None

    def work(self, record: AuditRecord) -> str:
        """The piece of work that a request says it belongs to; empty where it says none."""
        named = self._names_work.search(record.user_agent) if self._names_work is not None else None
        return named[1] if named is not None else ""

    def tell(self, wrong: str | None) -> str | None:
        """Count one judged case."""
        self.judged += 1
        return wrong

    def can_not_tell(self, record: AuditRecord) -> None:
        """Count a case without a body. What was refused has done nothing, and often was not even read."""
        self.unjudged += record.committed


class Preconditions(Struct, frozen=True):
    uid: str = ""


class DeleteOptions(Struct, frozen=True):
    preconditions: Preconditions = Preconditions()


class RequestMeta(Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class RequestTaint(Struct, frozen=True):
    key: str = ""


class RequestSpec(Struct, frozen=True):
    taints: tuple[RequestTaint, ...] | None = None
    unschedulable: bool | None = None


class Request(Struct, frozen=True, rename="camel"):
    """The part of any request's body that a rule looks at."""

    metadata: RequestMeta = RequestMeta()
    spec: RequestSpec | None = None
    preconditions: Preconditions = Preconditions()
    delete_options: DeleteOptions = DeleteOptions()


_requests = msgspec.json.Decoder(Request)


def body_of(record: AuditRecord) -> Request | None:
    """What was sent; None where the log does not say, or it is no object (a JSON patch)."""
    body = bytes(record.request_object)
    if not body:
        return None
    try:
        return _requests.decode(body)
    except msgspec.MsgspecError:
        return None


def is_eviction(record: AuditRecord) -> bool:
    return record.object_ref.resource == "pods" and record.object_ref.subresource == "eviction"


def fences_in(record: AuditRecord, own: Own | None) -> frozenset[str]:
    """Taints of the controller's own that this write of a Node asks for."""
    body = body_of(record) if own is not None and is_node_write(record) else None
    if own is None or body is None or body.spec is None:
        return frozenset()
    return frozenset(taint.key for taint in body.spec.taints or ()).intersection(own.fence)


def at(obj: Any, path: str) -> str:
    """The text at a path of keys; empty where there is none.

    Dots stand between keys, and a key that has dots itself stands in brackets:
    ``metadata.labels[example.com/node]``.
    """
    for part in _KEYS.findall(path):
        obj = obj.get(part.strip("[]")) if isinstance(obj, dict) else None
    return str(obj) if obj is not None else ""


def list_at(found: Any, path: str) -> list[dict[str, Any]]:
    """The objects in the list at a path of keys; none where there is no list."""
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def is_fenced(node: Object | None, own: Own | None) -> bool:
    """Does it carry a taint of the controller's own?"""
    return node is not None and own is not None and any(taint.key in own.fence for taint in node.spec.taints)


def is_node_write(record: AuditRecord) -> bool:
    about = record.object_ref
    return about.resource == "nodes" and not about.subresource and record.verb in ("update", "patch")


class NodeWrites(Rule):
    """Looks at every write of a Node that was taken, with the Node before and after it."""

    def see(self, record: AuditRecord) -> str | None:
        if not is_node_write(record) or not record.committed:
            return None
        before, after = self.world.nodes.get(record.object_ref.name), shown_by(record)
        if before is None or after is None:
            self.can_not_tell(record)
            return None
        return self.written(record, before, after)

    @abstractmethod
    def written(self, record: AuditRecord, before: NodeState, after: Object) -> str | None:
        """What is wrong with this write."""
