"""Why a node may be fenced at all, how many in a while, and whose word ends it."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import deque
from datetime import datetime, timedelta
from typing import ClassVar

from remediator.adapters.audit import AuditRecord
from remediator.chaos.profile import Profile, Reasons
from remediator.chaos.rules.rule import Recent, Rule, at, fences_in, is_fenced, is_node_write, list_at
from remediator.chaos.rules.stream import resource_of
from remediator.chaos.world import Object, World, shown_by


def is_faulty(node: Object, profile: Profile) -> bool:
    """Does it show a condition that the controller answers?"""
    shown = {(each.type, each.status) for each in node.status.conditions}
    return any((fault.condition, fault.status) in shown for fault in profile.faults)


class _Fences(Rule):
    """What is judged at the moment a node is fenced."""

    def see(self, record: AuditRecord) -> str | None:
        if not record.committed or not fences_in(record, self.profile.own):
            return None
        before = self.world.nodes.get(record.object_ref.name)
        if before is None:
            self.can_not_tell(record)
            return None
        return None if is_fenced(before.object, self.profile.own) else self.judge(record, before.object)

    @abstractmethod
    def judge(self, record: AuditRecord, node: Object) -> str | None:
        """What is wrong with fencing this node now."""


class EvidenceFirst(_Fences):
    """Missing data is no fault, and what has passed is none any more."""

    id: ClassVar = "S3"
    sentence: ClassVar = "A node is fenced only while it shows a fault."
    needs: ClassVar = ("own", "faults")

    def judge(self, record: AuditRecord, node: Object) -> str | None:
        faulty = is_faulty(node, self.profile)
        shown = f"{node.metadata.name} shows no fault at {record.received_at:%H:%M:%S}"
        return self.tell(None if faulty else shown)


class ReasonStands(_Fences):
    """Work that was decided on yesterday's news is not begun today."""

    id: ClassVar = "S3b"
    sentence: ClassVar = "A node is fenced only while a condition that its work was begun for stands."
    needs: ClassVar = ("own", "plan", "runs")

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._begun_for: Recent[str, frozenset[tuple[str, str]]] = Recent()

    def see(self, record: AuditRecord) -> str | None:
        runs = self.profile.runs
        born = record.committed and record.verb == "create"
        if born and runs is not None and runs.reasons is not None and resource_of(record) == runs.resource:
            self._remember(runs.reasons, record)
        return super().see(record)

    def _remember(self, reasons: Reasons, record: AuditRecord) -> None:
        work, conditions = self.world.content(record), set()
        if any(at(work, path) == value for path, value in reasons.goes_on.items()):
            return  # fenced at first sight, for what was seen before it came anew
        for item in list_at(work, reasons.path):
            found = re.match(reasons.status, str(item.get(reasons.text) or ""))
            if item.get(reasons.source) != reasons.is_condition or found is None:
                return  # its reason stands on a page that the log does not have
            conditions.add((str(item.get(reasons.condition)), found[1]))
        if conditions:
            self._begun_for[record.object_ref.name] = frozenset(conditions)

    def judge(self, record: AuditRecord, node: Object) -> str | None:
        wanted = self._begun_for.get(self.work(record))
        if wanted is None:
            return None
        # What the server answered: many logs keep no bodies of what kubelets and detectors write.
        answered = shown_by(record)
        if answered is None:
            self.can_not_tell(record)
            return None
        shown = {(each.type, each.status) for each in answered.status.conditions}
        missing = " or ".join(sorted(f"{type_}={status}" for type_, status in wanted))
        return self.tell(None if wanted & shown else f"{node.metadata.name} does not show {missing} any more")


class OwnBranch(_Fences):
    """Who empties the node that it runs on is gone before it has finished."""

    id: ClassVar = "S31"
    sentence: ClassVar = "Whoever leads does not fence the node that it runs on."
    needs: ClassVar = ("own", "lease")

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._holder = ""

    def see(self, record: AuditRecord) -> str | None:
        lease, about = self.profile.lease, record.object_ref
        if lease is not None and (about.resource, about.name) == ("leases", lease.name) and record.committed:
            self._holder = at(self.world.content(record), "spec.holderIdentity") or self._holder
        return super().see(record)

    def judge(self, record: AuditRecord, node: Object) -> str | None:  # noqa: ARG002 - the node is enough
        homes = {name: home for (_, name), home in self.world.homes.items() if self._is_holder(name)}
        if not homes:
            return None  # it runs where the log does not see it
        name = node.metadata.name
        return self.tell(f"{self._holder} leads, and runs on {name}" if name in homes.values() else None)

    def _is_holder(self, pod: str) -> bool:
        """The usual identities: the name of the pod, alone or with something behind a ``_``."""
        return bool(self._holder) and self._holder.partition("_")[0] == pod


class StormGuard(_Fences):
    """Where everything breaks at once, what is broken is the cause, and no fence mends it."""

    id: ClassVar = "S30"
    sentence: ClassVar = "No more nodes are fenced within a while than the storm guard allows."
    needs: ClassVar = ("own", "storm")

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._fenced: deque[datetime] = deque()

    def judge(self, record: AuditRecord, node: Object) -> str | None:
        storm = self.profile.storm
        if storm is None:
            return None
        now, times = record.received_at, self._fenced
        while times and now - times[0] >= timedelta(seconds=storm.seconds):
            times.popleft()
        times.append(now)
        if len(times) <= storm.most:
            return self.tell(None)
        fenced = f"{len(times)} nodes fenced within {storm.seconds:g} s, {storm.most} may be"
        return self.tell(f"{fenced}; the last is {node.metadata.name}")


class PeopleWin(_Fences):
    """Who is overruled by a machine switches it off."""

    id: ClassVar = "S11"
    sentence: ClassVar = "A fence that somebody took away or uncordoned stays away for the agreed time."
    needs: ClassVar = ("own", "veto_seconds")

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._vetoes: Recent[str, datetime] = Recent()  # uid of the Node

    def overhear(self, record: AuditRecord) -> None:
        if not is_node_write(record) or not record.committed:
            return
        before, after = self.world.nodes.get(record.object_ref.name), shown_by(record)
        if before is None or after is None or not is_fenced(before.object, self.profile.own):
            return
        uncordoned = before.object.spec.unschedulable and not after.spec.unschedulable
        if uncordoned or not is_fenced(after, self.profile.own):
            self._vetoes[after.metadata.uid] = record.received_at

    def judge(self, record: AuditRecord, node: Object) -> str | None:
        vetoed = self._vetoes.get(node.metadata.uid)
        age_s = (record.received_at - vetoed).total_seconds() if vetoed is not None else float("inf")
        overruled = age_s < self.profile.veto_seconds
        return self.tell(f"somebody took the fence away {age_s:.0f} s before" if overruled else None)
