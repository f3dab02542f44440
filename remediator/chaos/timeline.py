"""What a history looked like: when which node was faulty, fenced or gone, and what was done to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final, Literal, NamedTuple

from remediator.adapters.audit import AuditRecord
from remediator.chaos.profile import Profile
from remediator.chaos.rules.faults import is_faulty
from remediator.chaos.rules.rule import at, is_eviction, is_fenced
from remediator.chaos.rules.stream import resource_of
from remediator.chaos.world import World

SpanKind = Literal["faulty", "not ready", "fenced", "gone"]
KINDS: Final[tuple[SpanKind, ...]] = ("faulty", "not ready", "fenced", "gone")


class Span(NamedTuple):
    """Seconds since the first record, from and to."""

    node: str
    kind: SpanKind
    from_s: float
    to_s: float


class Mark(NamedTuple):
    """One thing that the controller did at one time, and to which node; empty: to none."""

    at_s: float
    node: str
    what: str


class Timeline:
    """Takes the records of a log in their order.

    Args:
        profile: of the controller that is looked at.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._world = World()
        self._began: datetime | None = None
        self._open: dict[tuple[str, SpanKind], float] = {}
        self._spans: list[Span] = []
        self.marks: list[Mark] = []
        self.ends_s = 0.0

    def see(self, record: AuditRecord) -> None:
        """Take the next record in."""
        self._began = self._began or record.staged_at
        self.ends_s = (record.staged_at - self._began).total_seconds()
        if not record.committed:
            return
        if record.username == self._profile.user:
            self._mark(record)
        self._world.take(record)
        if record.object_ref.resource == "nodes" and record.object_ref.name:
            self._look(record.object_ref.name)

    def spans(self) -> Iterator[Span]:
        """All of them, those that last until the end included."""
        yield from self._spans
        for (node, kind), from_s in self._open.items():
            yield Span(node, kind, from_s, self.ends_s)

    def _look(self, name: str) -> None:
        state = self._world.nodes.get(name)
        shown: set[SpanKind] = set()
        if state is None:
            shown.add("gone")
        else:
            node = state.object
            ready = next((each.status for each in node.status.conditions if each.type == "Ready"), "")
            shown |= {"fenced"} if is_fenced(node, self._profile.own) else set()
            shown |= {"faulty"} if is_faulty(node, self._profile) else set()
            shown |= {"not ready"} if ready not in ("", "True") else set()
        for kind in KINDS:
            key = (name, kind)
            if kind in shown:
                self._open.setdefault(key, self.ends_s)
            elif key in self._open:
                self._spans.append(Span(name, kind, self._open.pop(key), self.ends_s))

    def _mark(self, record: AuditRecord) -> None:
        about, reboots = record.object_ref, self._profile.reboots
        if is_eviction(record):
            home = self._world.homes.get((about.namespace, about.name), "")
            self.marks.append(Mark(self.ends_s, home, f"evicts {about.namespace}/{about.name}"))
        elif about.resource == "nodes" and record.verb in ("update", "patch"):
            self.marks.append(Mark(self.ends_s, about.name, "writes the Node"))
        elif reboots is not None and record.verb == "create" and resource_of(record) == reboots.resource:
            node = at(self._world.content(record), reboots.node)
            self.marks.append(Mark(self.ends_s, node, f"asks for a reboot: {about.name}"))
