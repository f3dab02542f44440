"""One node for another: who may stand in, when the other may leave, and what stays in reserve."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from remediator.adapters.audit import AuditRecord
from remediator.chaos.profile import Budget, Pools, Profile
from remediator.chaos.rules.endings import Books
from remediator.chaos.rules.plans import Promises
from remediator.chaos.rules.rule import NodeWrites, Recent, is_fenced
from remediator.chaos.world import NodeState, Object, World


class _Moves(NodeWrites):
    """Looks at every write of the controller's that takes a Node from one pool to another."""

    def written(self, record: AuditRecord, before: NodeState, after: Object) -> str | None:
        old, new = self.pool(before.object), self.pool(after)
        return self.moved(self.work(record), before.object, new) if old != new else None

    @abstractmethod
    def moved(self, work: str, node: Object, new: str) -> str | None:
        """What is wrong with this node going to the pool ``new`` for a piece of work; both may be empty."""

    def pool(self, node: Object) -> str:
        pools = self.profile.pools
        return node.metadata.labels.get(pools.label, "") if pools is not None else ""

    def spare(self, pool: str) -> bool:
        """Do the nodes of this pool wait for work?"""
        return self.profile.pools is not None and pool in self.profile.pools.spare


class CountedUntilReplaced(_Moves):
    """A label that is taken away gives nobody a machine back."""

    id: ClassVar = "S2"
    sentence: ClassVar = "A fenced node that was taken out of its pool counts there until another has come."
    needs: ClassVar = ("own", "budgets", "plan", "pools")

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._left: Recent[tuple[str, str], str] = Recent()  # work and pool: the node that has left it
        self._came: Recent[tuple[str, str], None] = Recent()  # work and pool: another one has come

    def written(self, record: AuditRecord, before: NodeState, after: Object) -> str | None:
        wrong, node = None, before.object
        if is_fenced(after, self.profile.own) and not is_fenced(node, self.profile.own):
            over = (self._over(each, node) for each in self.profile.budgets if self._counts(each, node))
            wrong = self.tell(next(filter(None, over), None))
        super().written(record, before, after)
        return wrong

    def moved(self, work: str, node: Object, new: str) -> str | None:
        self._left[work, self.pool(node)] = node.metadata.name
        self._came[work, new] = None
        return None

    def _counts(self, budget: Budget, node: Object) -> bool:
        pools = self.profile.pools
        return pools is not None and (budget.label, budget.value) == (pools.label, self.pool(node))

    def _over(self, budget: Budget, node: Object) -> str | None:
        fenced = {
            name
            for name, state in self.world.nodes.items()
            if is_fenced(state.object, self.profile.own) and self.pool(state.object) == budget.value
        }
        gone = {name for (work, pool), name in self._left.items() if self._misses(budget, work, pool, name)}
        members = fenced | {node.metadata.name}
        names = members | gone
        if len(names) <= budget.most or len(members) > budget.most:  # where members are too many, S1 says so
            return None
        return f"{len(names)} nodes of {budget.value} are fenced or taken out, {budget.most} may be"

    def _misses(self, budget: Budget, work: str, pool: str, name: str) -> bool:
        """Has the budget's pool lost this node to the work, which still has it, and got none for it?"""
        now = self.world.nodes.get(name)
        if pool != budget.value or now is None or not is_fenced(now.object, self.profile.own):
            return False
        return self.pool(now.object) != pool and (work, pool) not in self._came


class LeavesLast(_Moves):
    """A place that is given up before somebody stands in it is empty."""

    id: ClassVar = "S16"
    sentence: ClassVar = "No node leaves its pool while the spare that it was promised still waits."
    needs: ClassVar = ("own", "plan", "claims", "pools")

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._promises = Promises(profile, world)
        self._sick: Recent[tuple[str, str], None] = Recent()  # promises whose spare was fenced itself

    def see(self, record: AuditRecord) -> str | None:
        self._promises.see(record)
        return super().see(record)

    def written(self, record: AuditRecord, before: NodeState, after: Object) -> str | None:
        if is_fenced(after, self.profile.own):
            for promise in self._promises.held:
                if promise[0] == before.object.metadata.name:
                    self._sick[promise] = None
        return super().written(record, before, after)

    def moved(self, work: str, node: Object, new: str) -> str | None:  # noqa: ARG002 - it leaves, wherever to
        if not is_fenced(node, self.profile.own) or self.spare(self.pool(node)):
            return None
        promised = [each for each in self._promises.held if each[1] == work]
        waiting = [spare for spare, holder in promised if self._waits(spare, holder)]
        return self.tell(f"{waiting[0]} was promised, and still waits" if waiting else None)

    def _waits(self, spare: str, holder: str) -> bool:
        """A spare that has gone, or was fenced since it was promised, stands in for nobody from then on."""
        state = self.world.nodes.get(spare)
        return state is not None and (spare, holder) not in self._sick and self.spare(self.pool(state.object))


class LikeForLike(_Moves):
    """A job that ran on eight of one kind does not go on with eight of another."""

    id: ClassVar = "S17"
    sentence: ClassVar = "A spare is like the node that it stands in for."
    needs: ClassVar = ("plan", "runs", "pools")

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._books = Books(profile, world)

    def see(self, record: AuditRecord) -> str | None:
        self._books.see(record)
        return super().see(record)

    def moved(self, work: str, node: Object, new: str) -> str | None:
        piece, pools = self._books.stands.get(work), self.profile.pools
        leaver = self.world.nodes.get(piece.node) if piece is not None else None
        joins = self.spare(self.pool(node)) and new and not self.spare(new)
        if pools is None or leaver is None or not joins:
            return None
        ours, theirs = node.metadata.labels, leaver.object.metadata.labels
        unlike = [key for key in pools.alike if ours.get(key) != theirs.get(key)]
        told = [f"{key} is {ours.get(key)} and not {theirs.get(key)}" for key in unlike]
        return self.tell("; ".join(told) or None)


class Reserve(Promises):
    """Who gives the last spare away has none for the night."""

    id: ClassVar = "S15"
    sentence: ClassVar = "A promise leaves as many spares unpromised as the profile says."
    needs: ClassVar = ("own", "claims", "pools", "floor")

    def promised(self) -> str | None:
        pools, floor = self.profile.pools, self.profile.floor
        if pools is None or not self.fresh:
            return None
        free = {name for name, state in self.world.nodes.items() if self._free(state.object, pools)}
        left = len(free.difference(spare for spare, _ in self.held))
        return self.tell(f"{left} spares are left, {floor} have to be" if left < floor else None)

    def _free(self, node: Object, pools: Pools) -> bool:
        return node.metadata.labels.get(pools.label) in pools.spare and not is_fenced(node, self.profile.own)
