"""What may be written on Nodes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from remediator.adapters.audit import AuditRecord
from remediator.chaos.rules.rule import NodeWrites, Rule, body_of, fences_in, is_eviction, is_node_write
from remediator.chaos.world import NodeState, Object


class VersionBound(Rule):
    """A list of taints that was read earlier wipes out what came since."""

    id: ClassVar = "S5"
    sentence: ClassVar = "Every write of a Node's taints or cordon carries the version it was decided on."

    def see(self, record: AuditRecord) -> str | None:
        if not is_node_write(record):
            return None
        body = body_of(record)
        if body is None:
            self.can_not_tell(record)
            return None
        spec = body.spec
        if spec is None or (spec.taints is None and spec.unschedulable is None):
            return None
        return self.tell(None if body.metadata.resource_version else "no resourceVersion in the request")


class OwnFieldsOnly(NodeWrites):
    """Others work on the same nodes."""

    id: ClassVar = "S12"
    sentence: ClassVar = "A write of a Node changes the controller's own keys, and lifts no foreign cordon."
    needs: ClassVar = ("own",)

    def written(self, record: AuditRecord, before: NodeState, after: Object) -> str | None:  # noqa: ARG002 - both Nodes say all
        foreign = [each for each in _changes(before.object, after) if not self._may(each)]
        if _lifts_foreign_cordon(before, after, self.profile.user):
            foreign.append(f"the cordon of {before.cordoned_by}")
        return self.tell(f"changed {', '.join(foreign)}" if foreign else None)

    def _may(self, change: str) -> bool:
        kind, _, key = change.partition(" ")
        return kind in ("label", "annotation", "taint") and self.profile.owns(key)


def _changes(before: Object, after: Object) -> Iterator[str]:
    """``label KEY``, ``taint KEY`` and so on, for everything but the cordon."""
    yield from _changed("label", before.metadata.labels, after.metadata.labels)
    yield from _changed("annotation", before.metadata.annotations, after.metadata.annotations)
    old, new = set(before.spec.taints), set(after.spec.taints)
    yield from (f"taint {key}" for key in sorted({taint.key for taint in old ^ new}))
    if before.metadata.finalizers != after.metadata.finalizers:
        yield "finalizers"
    if before.spec.provider_id != after.spec.provider_id:
        yield "providerID"


def _changed(kind: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    yield from (f"{kind} {key}" for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key))


def _lifts_foreign_cordon(before: NodeState, after: Object, user: str) -> bool:
    lifted = before.object.spec.unschedulable and not after.spec.unschedulable
    # Nobody is named where the cordon was there when the log began: then it was not ours in this log.
    return lifted and before.cordoned_by != user


class _Untouched(Rule):
    """Looks at what is done to nodes that somebody has marked."""

    def see(self, record: AuditRecord) -> str | None:
        node = self._node_of(record)
        if node is None:
            return None
        state = self.world.nodes.get(node)
        if state is None:
            self.can_not_tell(record)
            return None
        return self.tell(self.marked(state.object))

    @abstractmethod
    def marked(self, node: Object) -> str | None:
        """By what mark it should have been left alone."""

    def _node_of(self, record: AuditRecord) -> str | None:
        """The node that this request does something to; None: it does nothing of the kind."""
        if not record.committed or self.profile.own is None:
            return None
        if is_eviction(record):
            return self.world.homes.get((record.object_ref.namespace, record.object_ref.name), "")
        before = self.world.nodes.get(record.object_ref.name)
        had = {taint.key for taint in before.object.spec.taints} if before is not None else set()
        return record.object_ref.name if fences_in(record, self.profile.own) - had else None


class PeersRespected(_Untouched):
    """An autoscaler that deletes a node and a controller that empties it undo each other."""

    id: ClassVar = "S32"
    sentence: ClassVar = "Nothing is fenced or evicted where another controller has said that the node goes."
    needs: ClassVar = ("own", "peers")

    def marked(self, node: Object) -> str | None:
        taken = [taint.key for taint in node.spec.taints if taint.key in self.profile.peers]
        return f"{node.metadata.name} carries {taken[0]}" if taken else None


class OptedOut(_Untouched):
    """Who says hands off is not asked why."""

    id: ClassVar = "S10"
    sentence: ClassVar = "Nothing is fenced or evicted on a node that people have opted out."
    needs: ClassVar = ("own", "opt_out")

    def marked(self, node: Object) -> str | None:
        label = self.profile.opt_out
        return f"{node.metadata.name} carries {label}" if label in node.metadata.labels else None
