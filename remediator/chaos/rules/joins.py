"""New nodes: how many are let in, who is, and who runs there before."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from typing import ClassVar, Final

from remediator.adapters.audit import AuditRecord
from remediator.chaos.profile import Joins, Profile
from remediator.chaos.rules.rule import NodeWrites, Recent, Rule
from remediator.chaos.world import NodeState, Object, World, bound_to, tolerates

# Between a commit and the time that the log has of it.
SLACK_S: Final = 0.5


def shut(node: Object, joins: Joins) -> bool:
    """Does it carry the gate?"""
    return any(taint.key == joins.gate for taint in node.spec.taints)


def fit(node: Object, joins: Joins) -> bool:
    """Does it say of itself that it is fit to be let in?"""
    return any(each.type == joins.proof and each.status == "True" for each in node.status.conditions)


class _Opens(NodeWrites):
    """Looks at every write of the controller's that opens a gate."""

    needs: ClassVar = ("joins",)

    def written(self, record: AuditRecord, before: NodeState, after: Object) -> str | None:
        joins = self.profile.joins
        if joins is None or not shut(before.object, joins) or shut(after, joins):
            return None
        return self.tell(self.opened(record.staged_at, before.object, joins))

    @abstractmethod
    def opened(self, at: datetime, node: Object, joins: Joins) -> str | None:
        """What is wrong with this node being let in."""


class JoinLimit(_Opens):
    """A bucket that is filled by the log's own clock is the same as a look at every window."""

    id: ClassVar = "S18"
    sentence: ClassVar = "In no window are more nodes let in than burst and rate allow."

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._at: datetime | None = None
        self._tokens = 0.0

    def opened(self, at: datetime, node: Object, joins: Joins) -> str | None:
        per_s = joins.count / joins.seconds
        if self._at is None:
            self._tokens = float(joins.burst)
        else:
            passed_s = max(0.0, (at - self._at).total_seconds())
            self._tokens = min(float(joins.burst), self._tokens + passed_s * per_s)
        self._at = at
        self._tokens -= 1.0
        if self._tokens >= -per_s * SLACK_S:
            return None
        over, self._tokens = -self._tokens, 0.0
        allowed = f"{joins.count} in {joins.seconds:g} s with a burst of {joins.burst}"
        return f"{node.metadata.name} is let in {over / per_s:.1f} s too early for {allowed}"


class ProvedFirst(_Opens):
    id: ClassVar = "S19b"
    sentence: ClassVar = "A node is let in only once it says that it is fit."

    def opened(self, at: datetime, node: Object, joins: Joins) -> str | None:  # noqa: ARG002 - at any time
        if not joins.proof or fit(node, joins):
            return None
        return f"{node.metadata.name} does not have {joins.proof}=True"


class NobodyBefore(_Opens):
    """Judged when the gate opens; what was bound before it was shut is nobody's fault."""

    id: ClassVar = "S19"
    sentence: ClassVar = "No pod that does not tolerate the gate is bound to a node whose gate is shut."

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._early: Recent[str, str] = Recent()  # uid of a Node: the first pod that came too early

    def overhear(self, record: AuditRecord) -> None:
        joins, about = self.profile.joins, record.object_ref
        if (
            joins is None
            or about.resource != "pods"
            or about.subresource != "binding"
            or not record.committed
        ):
            return
        pod = self.world.pods.get((about.namespace, about.name))
        state = self.world.nodes.get(bound_to(record))
        if pod is None or state is None or not shut(state.object, joins) or tolerates(pod, joins.gate):
            return
        uid = state.object.metadata.uid
        if uid not in self._early:
            self._early[uid] = f"{about.namespace}/{about.name}"

    def opened(self, at: datetime, node: Object, joins: Joins) -> str | None:  # noqa: ARG002 - at any time
        early = self._early.get(node.metadata.uid)
        return f"{early} was bound to {node.metadata.name} while {joins.gate} stood" if early else None


class NobodyForgotten(Rule):
    """Judged where a log ends in calm: the rate has had its time."""

    id: ClassVar = "L9"
    sentence: ClassVar = "Nobody who is fit waits for ever to be let in, whoever waits beside them."
    needs: ClassVar = ("joins",)

    def see(self, record: AuditRecord) -> str | None:
        del record
        return None

    def end(self) -> str | None:
        joins = self.profile.joins
        if joins is None:
            return None
        found = [state.object for state in self.world.nodes.values() if fit(state.object, joins)]
        self.judged = len(found)
        waiting = sorted(node.metadata.name for node in found if shut(node, joins))
        return f"{waiting[0]} is fit and waits, with {len(waiting) - 1} others" if waiting else None
