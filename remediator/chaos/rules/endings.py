"""What must have come to an end once nothing has gone wrong for a while. Judged at the end of a log."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, NamedTuple

from remediator.adapters.audit import AuditRecord
from remediator.chaos.profile import Profile
from remediator.chaos.rules.faults import is_faulty
from remediator.chaos.rules.rule import Recent, Rule, at, is_fenced
from remediator.chaos.rules.stream import resource_of
from remediator.chaos.world import Object, World

NAMED_MAX = 5


class Piece(NamedTuple):
    """One piece of work as the controller's own record of it stands."""

    state: str
    node: str
    uid: str


class Books(Rule):
    """Folds the controller's own records of its work: where each piece stands, and which node it is about."""

    needs: ClassVar[tuple[str, ...]] = ("runs",)

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self.stands: dict[str, Piece] = {}  # by name

    def see(self, record: AuditRecord) -> str | None:
        runs = self.profile.runs
        if runs is None or not record.committed or resource_of(record).partition("/")[0] != runs.resource:
            return None
        if record.verb == "delete":
            self.stands.pop(record.object_ref.name, None)
            return None
        if record.verb not in ("create", "update", "patch"):
            return None
        found = self.world.content(record)
        if found is None:
            self.can_not_tell(record)
            return None
        uid = at(found, runs.uid) if runs.uid else ""
        self.judged += 1
        piece = Piece(at(found, runs.state), at(found, runs.node), uid)
        wrong = self.stood(found["metadata"]["name"], piece, record.received_at)
        self.stands[found["metadata"]["name"]] = piece
        return wrong

    def stood(self, name: str, piece: Piece, when: datetime) -> str | None:
        """What is wrong with a piece of work that stands like this now; ``stands`` says how it stood."""


class RunsEnd(Books):
    """Work that nobody finishes holds its budget for ever."""

    id: ClassVar = "L1"
    sentence: ClassVar = "In calm each piece of work has ended, or stands where a person must decide."

    def end(self) -> str | None:
        runs = self.profile.runs
        settled = runs.settled if runs is not None else ()
        left = [
            f"{name} is {piece.state or 'nowhere'}"
            for name, piece in self.stands.items()
            if piece.state not in settled
        ]
        return _several(left)


class StepsEnd(Books):
    """A drain that a pod holds up for hours holds up everything behind it."""

    id: ClassVar = "L6"
    sentence: ClassVar = "No piece of work leaves a state later than the profile says."
    needs: ClassVar = ("runs", "longest")

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._since: Recent[str, datetime] = Recent()

    def stood(self, name: str, piece: Piece, when: datetime) -> str | None:
        before = self.stands.get(name)
        if before is not None and before.state == piece.state:
            return None
        since, self._since[name] = self._since.get(name, when), when
        if before is None:
            return None
        most, stood_s = self.profile.longest.get(before.state, float("inf")), (when - since).total_seconds()
        return f"{name} was {before.state} for {stood_s:.0f} s, {most:g} it may" if stood_s > most else None


class NoOrphans(Books):
    """A node that is fenced and belongs to no work is lost capacity that nobody looks at."""

    id: ClassVar = "L4"
    sentence: ClassVar = "In calm every fenced node belongs to work that keeps it out."
    needs: ClassVar = ("own", "runs")

    def end(self) -> str | None:
        runs, own = self.profile.runs, self.profile.own
        if runs is None or own is None:
            return None
        kept = {piece.node for piece in self.stands.values() if piece.state in runs.keeps}
        fenced = [name for name, node in self.world.nodes.items() if is_fenced(node.object, own)]
        return _several(
            [f"{name} is fenced, and no work keeps it out" for name in fenced if name not in kept]
        )


class FaultsAnswered(Books):
    """A fault that nobody knows of is worse than one that waits."""

    id: ClassVar = "L2"
    sentence: ClassVar = "In calm each faulty node has work that keeps it out, or says why it does not."
    needs: ClassVar = ("runs", "faults")

    def end(self) -> str | None:
        runs = self.profile.runs
        if runs is None:
            return None
        answers = (*runs.keeps, *runs.parked)
        known = {piece.uid or piece.node for piece in self.stands.values() if piece.state in answers}
        return _several([f"{name} is faulty, and nothing is said of it" for name in self._left(known)])

    def _left(self, known: set[str]) -> list[str]:
        by_uid = bool(self.profile.runs and self.profile.runs.uid)
        return [
            name
            for name, node in self.world.nodes.items()
            if is_faulty(node.object, self.profile)
            and not self._taken(node.object)
            and (node.object.metadata.uid if by_uid else name) not in known
        ]

    def _taken(self, node: Object) -> bool:
        """Has somebody else said that it is theirs?"""
        marks = {taint.key for taint in node.spec.taints} | set(node.metadata.labels)
        return not marks.isdisjoint((*self.profile.peers, self.profile.opt_out))


class SomebodyLeads(Rule):
    """Two replicas that wait for each other are none."""

    id: ClassVar = "L7"
    sentence: ClassVar = "In calm somebody leads: the Lease was renewed just before the log ends."
    needs: ClassVar = ("lease",)

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._renewed: datetime | None = None
        self._last: datetime | None = None

    def overhear(self, record: AuditRecord) -> None:
        self._last = record.received_at

    def see(self, record: AuditRecord) -> str | None:
        lease, about = self.profile.lease, record.object_ref
        self._last = record.received_at
        if lease is None or about.resource != "leases" or about.name != lease.name:
            return None
        if record.committed and record.verb in ("create", "update", "patch"):
            self._renewed = record.received_at
            self.judged += 1
        return None

    def end(self) -> str | None:
        lease = self.profile.lease
        if lease is None or self._last is None or self._renewed is None:
            return None
        gap_s = (self._last - self._renewed).total_seconds()
        return f"nobody has renewed {lease.name} for {gap_s:.0f} s" if gap_s > lease.seconds else None


def _several(found: list[str]) -> str | None:
    if not found:
        return None
    more = f", and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    return f"{'; '.join(sorted(found)[:NAMED_MAX])}{more}"
