"""Counts what was done to the fleet, in audit records alone, and judges it by all rules."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from remediator.adapters.audit import AuditRecord, Numbered
from remediator.chaos.check import Judge, Verdict
from remediator.chaos.ours import shipped_profile
from remediator.chaos.rules.rule import is_eviction, is_fenced
from remediator.chaos.world import World


class Score(Struct, frozen=True):
    """``fenced`` nodes in all, ``at_once`` at most; ``evicted`` pods; ``verdicts`` of each rule."""

    fenced: tuple[str, ...]
    at_once: int
    evicted: int
    reboots: int
    writes: int
    verdicts: tuple[Verdict, ...]

    @property
    def held(self) -> int:
        return sum(each.answer == "held" for each in self.verdicts)

    @property
    def broken(self) -> tuple[str, ...]:
        return tuple(each.rule for each in self.verdicts if each.answer == "broken")


class Tally:
    """Takes audit lines as they are written."""

    def __init__(self) -> None:
        self._profile = shipped_profile()
        self._judge = Judge(self._profile)
        self._world = World()
        self._decoder = msgspec.json.Decoder(AuditRecord)
        self._lines = self._evicted = self._writes = self._at_once = self._jobs = 0
        self._ever: dict[str, None] = {}
        self._now: set[str] = set()

    def take(self, line: bytes) -> AuditRecord:
        """Count one record, and return it."""
        self._lines += 1
        record = self._decoder.decode(line)
        self._judge.see(Numbered(self._lines, record))
        self._world.take(record)
        if record.committed and record.username == self._profile.user:
            self._count(record)
        return record

    def _count(self, record: AuditRecord) -> None:
        about = record.object_ref
        if record.verb not in ("create", "update", "patch", "delete") or about.resource == "leases":
            return
        self._writes += 1
        self._evicted += is_eviction(record)
        self._jobs += about.resource == "jobs" and record.verb == "create"
        node = self._world.nodes.get(about.name) if about.resource == "nodes" else None
        if node is None:
            return
        if is_fenced(node.object, self._profile.own):
            self._ever[about.name] = None
            self._now.add(about.name)
        else:
            self._now.discard(about.name)
        self._at_once = max(self._at_once, len(self._now))

    def score(self) -> Score:
        """What there is to say at the end."""
        return Score(
            tuple(self._ever),
            self._at_once,
            self._evicted,
            self._jobs,
            self._writes,
            self._judge.report().verdicts,
        )
