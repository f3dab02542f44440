"""How pods may be made to leave."""

from __future__ import annotations

from typing import ClassVar

from remediator.adapters.audit import AuditRecord
from remediator.chaos.rules.rule import Rule, body_of, is_eviction, is_fenced
from remediator.chaos.world import MIRROR


class BoundByUid(Rule):
    """A name comes back as somebody else."""

    id: ClassVar = "S4"
    sentence: ClassVar = "Every deletion and every eviction says which uid it means."

    def see(self, record: AuditRecord) -> str | None:
        if record.verb != "delete" and not (is_eviction(record) and record.verb == "create"):
            return None
        body = body_of(record)
        if body is None:
            if record.verb == "delete" and record.level == "RequestResponse":
                return self.tell("a deletion without a body: by name alone")
            self.can_not_tell(record)
            return None
        options = body.delete_options if is_eviction(record) else body
        return self.tell(None if options.preconditions.uid else "no uid in its preconditions")


class FenceFirst(Rule):
    """What is emptied without a fence fills up again, and belongs to nobody."""

    id: ClassVar = "S7"
    sentence: ClassVar = "No pod is evicted from a node that does not carry the controller's taint."
    needs: ClassVar = ("own",)

    def see(self, record: AuditRecord) -> str | None:
        if not is_eviction(record) or not record.committed:
            return None
        node = self.world.homes.get((record.object_ref.namespace, record.object_ref.name), "")
        state = self.world.nodes.get(node)
        if state is None or self.profile.own is None:
            self.can_not_tell(record)
            return None
        fenced = is_fenced(state.object, self.profile.own)
        return self.tell(None if fenced else f"evicted from {node}, which carries no taint of ours")


class EvictionApiOnly(Rule):
    """A deletion asks no PodDisruptionBudget."""

    id: ClassVar = "S8"
    sentence: ClassVar = "No pod is deleted; pods leave by the Eviction API."

    def see(self, record: AuditRecord) -> str | None:
        about = record.object_ref
        if is_eviction(record) and record.verb == "create":
            return self.tell(None)
        if about.resource != "pods" or about.subresource or not record.verb.startswith("delete"):
            return None
        return self.tell(f"{record.verb} of pods, past every budget")


class RightPod(Rule):
    """A DaemonSet's pod comes back at once, and a mirror pod never went."""

    id: ClassVar = "S9"
    sentence: ClassVar = "No pod of a DaemonSet and no mirror pod is evicted."

    def see(self, record: AuditRecord) -> str | None:
        if not is_eviction(record) or not record.committed:
            return None
        pod = self.world.pods.get((record.object_ref.namespace, record.object_ref.name))
        if pod is None:
            self.can_not_tell(record)
            return None
        owner = next((each.kind for each in pod.metadata.owner_references if each.controller), "")
        if owner == "DaemonSet":
            return self.tell("a DaemonSet's pod was evicted")
        return self.tell("a mirror pod was evicted" if MIRROR in pod.metadata.annotations else None)
