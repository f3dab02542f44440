"""What a controller has promised itself: budgets, spares, and a reason for everything it does."""

from __future__ import annotations

from typing import ClassVar

from remediator.adapters.audit import AuditRecord
from remediator.chaos.profile import Budget, Profile
from remediator.chaos.rules.rule import Rule, at, fences_in, is_eviction, is_fenced, is_node_write, list_at
from remediator.chaos.rules.stream import resource_of
from remediator.chaos.world import Object, World, shown_by


class LevelBudget(Rule):
    """One wrong sweep stops the cluster."""

    id: ClassVar = "S1"
    sentence: ClassVar = "No write fences more nodes of a pool at once than its budget."
    needs: ClassVar = ("own", "budgets")

    def see(self, record: AuditRecord) -> str | None:
        if not is_node_write(record) or not record.committed:
            return None
        after, before = shown_by(record), self.world.nodes.get(record.object_ref.name)
        if after is None:
            self.can_not_tell(record)
            return None
        if not self._fenced(after) or (before is not None and self._fenced(before.object)):
            return None
        return self.tell(next(filter(None, (self._over(each, after) for each in self.profile.budgets)), None))

    def _over(self, budget: Budget, after: Object) -> str | None:
        if after.metadata.labels.get(budget.label) != budget.value:
            return None
        names = {
            name
            for name, state in self.world.nodes.items()
            if self._fenced(state.object) and state.object.metadata.labels.get(budget.label) == budget.value
        } | {after.metadata.name}
        if len(names) <= budget.most:
            return None
        return f"{len(names)} nodes of {budget.label}={budget.value} are fenced, {budget.most} may be"

    def _fenced(self, node: Object) -> bool:
        return is_fenced(node, self.profile.own)


class Promises(Rule):
    """Folds which spare is promised to whom.

    ``held`` are spares with their holders as the list was written last; ``fresh`` are spares in it that
    nobody had before.
    """

    needs: ClassVar[tuple[str, ...]] = ("claims",)

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self.held: tuple[tuple[str, str], ...] = ()
        self.fresh: frozenset[str] = frozenset()

    def see(self, record: AuditRecord) -> str | None:
        claims = self.profile.claims
        if claims is None or not record.committed or resource_of(record) != claims.resource:
            return None
        if record.verb not in ("create", "update", "patch"):
            return None
        shown = self.world.content(record)
        if shown is None:
            self.can_not_tell(record)
            return None
        before = {spare for spare, _ in self.held}
        items = ((at(item, claims.spare), at(item, claims.holder)) for item in list_at(shown, claims.path))
        self.held = tuple((spare, holder) for spare, holder in items if spare)
        self.fresh = frozenset(spare for spare, _ in self.held) - before
        return self.promised()

    def promised(self) -> str | None:
        """What is wrong with the promises as they stand."""


class OneSpareOnePlan(Promises):
    """A spare that is promised twice leaves one of two places empty."""

    id: ClassVar = "S14"
    sentence: ClassVar = "No spare is promised to two at once."

    def promised(self) -> str | None:
        first: dict[str, str] = {}
        for spare, holder in self.held:
            if first.setdefault(spare, holder) != holder:
                return self.tell(f"{spare} is promised to {first[spare]} and to {holder}")
        return self.tell(None)


class Explained(Rule):
    """Who is woken at night asks why, and by what."""

    id: ClassVar = "S24"
    sentence: ClassVar = "Every fence and every eviction names the piece of work that it belongs to."
    needs: ClassVar = ("own", "plan")

    def see(self, record: AuditRecord) -> str | None:
        if not (is_eviction(record) or fences_in(record, self.profile.own)):
            return None
        named = self.work(record)
        return self.tell(None if named else f"its User-Agent names no work: {record.user_agent[:120]}")
