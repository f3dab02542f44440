"""Nodes and pods as the log shows them, folded record by record. Bounded by what lives in the cluster.

An object that no record has shown is not known, which is not the same as not being there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from remediator.adapters.audit import AuditRecord

OBJECTS_MAX: Final = 500_000
MIRROR: Final = "kubernetes.io/config.mirror"

K = TypeVar("K")


class Taint(Struct, frozen=True, gc=False):
    key: str = ""
    value: str = ""
    effect: str = ""


class Owner(Struct, frozen=True, gc=False):
    kind: str = ""
    controller: bool = False


class Meta(Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[Owner, ...] = ()


class Toleration(Struct, frozen=True, gc=False):
    key: str = ""
    operator: str = "Equal"


class Spec(Struct, frozen=True, rename="camel"):
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    provider_id: str = msgspec.field(default="", name="providerID")
    node_name: str = ""
    tolerations: tuple[Toleration, ...] = ()


class Condition(Struct, frozen=True, gc=False):
    type: str = ""
    status: str = ""


class Status(Struct, frozen=True):
    conditions: tuple[Condition, ...] = ()


class Object(Struct, frozen=True):
    """The part of any object that a rule looks at."""

    kind: str = ""
    metadata: Meta = Meta()
    spec: Spec = Spec()
    status: Status = Status()


class NodeState(Struct, frozen=True):
    """A Node after its last write that had a body; ``cordoned_by`` set it unschedulable last."""

    object: Object
    cordoned_by: str = ""


_objects: Final = msgspec.json.Decoder(Object)


class _Target(Struct, frozen=True):
    name: str = ""


class _Binding(Struct, frozen=True):
    target: _Target = _Target()


_bindings: Final = msgspec.json.Decoder(_Binding)


def shown_by(record: AuditRecord) -> Object | None:
    """The object that an accepted write left behind; None where the log has no body of it."""
    body = bytes(record.response_object)
    if not body:
        return None
    try:
        return _objects.decode(body)
    except msgspec.MsgspecError:
        return None  # another kind's shape: a Status, or a field that is null


class World:
    """What the log has shown so far. Rules look at it before a record is taken in.

    Beyond ``objects_max`` of a kind new ones stay unknown.
    """

    def __init__(self, objects_max: int = OBJECTS_MAX) -> None:
        self._objects_max = objects_max
        self.nodes: dict[str, NodeState] = {}
        self.pods: dict[tuple[str, str], Object] = {}
        self.homes: dict[tuple[str, str], str] = {}  # pod -> node
        self._content: tuple[AuditRecord | None, Any] = (None, None)

    def content(self, record: AuditRecord) -> Any:
        """The whole object that a write left behind; None where the log does not have it.

        Several rules ask for the same one, so the last is kept.
        """
        if self._content[0] is not record:
            body = bytes(record.response_object)
            try:
                self._content = (record, msgspec.json.decode(body) if body else None)
            except msgspec.MsgspecError:
                self._content = (record, None)
        return self._content[1]

    def take(self, record: AuditRecord) -> None:
        """Fold one accepted write in; anything else changes nothing."""
        about = record.object_ref
        if not record.committed or is_dry_run(record):
            return
        if about.resource == "nodes" and about.subresource in ("", "status"):
            self._take_node(record)
        elif about.resource == "pods":
            self._take_pod(record)

    def _take_node(self, record: AuditRecord) -> None:
        name = record.object_ref.name
        if record.verb == "delete":
            self.nodes.pop(name, None)
            return
        found = shown_by(record)
        if found is None or record.verb not in ("create", "update", "patch"):
            return
        before = self.nodes.get(found.metadata.name)
        by = before.cordoned_by if before is not None else ""
        if found.spec.unschedulable and (before is None or not before.object.spec.unschedulable):
            by = record.username
        if self._room(self.nodes, found.metadata.name):
            self.nodes[found.metadata.name] = NodeState(found, by if found.spec.unschedulable else "")

    def _take_pod(self, record: AuditRecord) -> None:
        about = record.object_ref
        key = (about.namespace, about.name)
        if record.verb == "delete" and not about.subresource:
            self.pods.pop(key, None)
            self.homes.pop(key, None)
        elif about.subresource == "binding":
            home = bound_to(record)
            if home and self._room(self.homes, key):
                self.homes[key] = home
        elif not about.subresource and record.verb in ("create", "update", "patch"):
            found = shown_by(record)
            if found is None or found.kind != "Pod":
                return
            key = (found.metadata.namespace, found.metadata.name)
            if self._room(self.pods, key):
                self.pods[key] = found
                if found.spec.node_name:
                    self.homes[key] = found.spec.node_name

    def _room(self, known: Mapping[K, object], key: K) -> bool:
        """May this object be taken in? One that is known already must not grow old."""
        return key in known or len(known) < self._objects_max


def bound_to(record: AuditRecord) -> str:
    """The node that a binding names; empty where the log has no body of it."""
    body = bytes(record.request_object)
    return _bindings.decode(body).target.name if body else ""


def tolerates(pod: Object, taint: str) -> bool:
    """Does the pod stand a taint of this key? One without a key stands all."""
    return any(
        each.key == taint or (not each.key and each.operator == "Exists") for each in pod.spec.tolerations
    )


def is_dry_run(record: AuditRecord) -> bool:
    return "dryRun=All" in record.request_uri
