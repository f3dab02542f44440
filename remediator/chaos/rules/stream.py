"""What is told by requests as they follow each other: terms, repetition, refusals."""

from __future__ import annotations

import re
from collections import deque
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import ClassVar, Final

from remediator.adapters.audit import WRITE_VERBS, AuditRecord
from remediator.chaos.profile import Profile
from remediator.chaos.rules.rule import NodeWrites, Recent, Rule
from remediator.chaos.world import NodeState, Object, World, shown_by

WINDOW: Final = timedelta(minutes=1)
DECISION: Final = "authorization.k8s.io/decision"  # the API server's own annotation of each record

FINALIZERS: Final = b'"finalizers"'

Key = tuple[str, str, str]  # resource, namespace, name


def resource_of(record: AuditRecord) -> str:
    about = record.object_ref
    return f"{about.resource}/{about.subresource}" if about.subresource else about.resource


class TermNeverFalls(Rule):
    """A lock gives no mutual exclusion; only a term that every write carries does."""

    id: ClassVar = "S13"
    sentence: ClassVar = "In the order of versions, no write of an older term follows one of a newer."
    needs: ClassVar = ("term",)

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._pattern = re.compile(profile.term.user_agent) if profile.term is not None else None
        self._began: dict[int, int] = {}  # term -> the first version written in it

    def see(self, record: AuditRecord) -> str | None:
        term, pattern = self.profile.term, self._pattern
        if term is None or pattern is None or not record.committed or record.verb not in WRITE_VERBS:
            return None
        if resource_of(record) not in term.resources:
            return None
        found, shown = pattern.search(record.user_agent), shown_by(record)
        if found is None or shown is None or not shown.metadata.resource_version.isdigit():
            self.can_not_tell(record)
            return None
        number, version = int(found[1]), int(shown.metadata.resource_version)
        newer = [each for each, first in self._began.items() if each > number and version > first]
        self._began[number] = min(version, self._began.get(number, version))
        return self.tell(f"term {number} wrote after term {max(newer)} had begun" if newer else None)


class NoEmptyWrite(NodeWrites):
    """A write that changes nothing still costs a revision's worth of work, and hides a loop."""

    id: ClassVar = "S22"
    sentence: ClassVar = "Every accepted write of a Node changes something."

    def written(self, record: AuditRecord, before: NodeState, after: Object) -> str | None:  # noqa: ARG002 - both Nodes say all
        same = before.object.metadata.resource_version == after.metadata.resource_version
        return self.tell("the version is as it was before" if same else None)


class NoHotLoop(Rule):
    """What is written over and over is fought over, or misunderstood."""

    id: ClassVar = "S23"
    sentence: ClassVar = "No object is written more often in a minute than the profile allows."

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._written: Recent[Key, deque[datetime]] = Recent()

    def see(self, record: AuditRecord) -> str | None:
        limits = self.profile.limits
        if record.verb not in WRITE_VERBS or not record.object_ref.name:
            return None
        if resource_of(record) in limits.heartbeats:
            return None
        key, most = _key(record), limits.writes_per_object_per_minute
        if record.verb == "create" and not record.object_ref.subresource:
            self._written.pop(key, None)  # another object of that name
        self._written[key] = times = self._written.get(key) or deque()
        while times and record.received_at - times[0] > WINDOW:
            times.popleft()
        times.append(record.received_at)
        if len(times) <= most:
            return self.tell(None)
        times.clear()  # one finding for each time that the limit is passed
        return self.tell(f"written {most + 1} times within a minute")


class OwnFinalizers(Rule):
    """Whose finalizer it is still has something to clean up."""

    id: ClassVar = "S26"
    sentence: ClassVar = "No finalizer of somebody else's is taken off an object."
    needs: ClassVar = ("own",)

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._held: Recent[Key, frozenset[str]] = Recent()

    def see(self, record: AuditRecord) -> str | None:
        before = self._held.get(_key(record))
        self.overhear(record)
        if not before or not record.committed or record.object_ref.subresource:
            return None
        if record.verb not in ("update", "patch"):
            return None
        if not bytes(record.response_object):
            self.can_not_tell(record)
            return None
        lost = sorted(each for each in before - self._now(record) if not self.profile.owns(each))
        return self.tell(f"took {', '.join(lost)} off" if lost else None)

    def overhear(self, record: AuditRecord) -> None:
        about = record.object_ref
        if not record.committed or about.subresource or record.verb not in WRITE_VERBS:
            return
        found, key = self._now(record), _key(record)
        if found:
            self._held[key] = found
        elif key in self._held and bytes(record.response_object):
            del self._held[key]

    def _now(self, record: AuditRecord) -> frozenset[str]:
        shown = shown_by(record) if FINALIZERS in bytes(record.response_object) else None
        return frozenset(shown.metadata.finalizers) if shown is not None else frozenset()


def _key(record: AuditRecord) -> Key:
    about = record.object_ref
    return about.resource, about.namespace, about.name


class LeastPrivilege(Rule):
    """What is refused was not meant to be asked, or is missing."""

    id: ClassVar = "S27"
    sentence: ClassVar = "No request is forbidden: what is asked for is granted beforehand."

    def see(self, record: AuditRecord) -> str | None:
        # What an admission policy refuses with the same code, a fence against old terms, was authorized.
        authorized = record.annotations.get(DECISION) == "allow"
        forbidden = record.response_status.code == HTTPStatus.FORBIDDEN and not authorized
        return self.tell(record.response_status.message[:200] or "forbidden" if forbidden else None)


class OnlyLooks(Rule):
    """Who tries a controller out must be able to trust that it only looks."""

    id: ClassVar = "S21"
    sentence: ClassVar = "An identity that only looks writes nothing."
    needs: ClassVar = ("read_only",)

    def see(self, record: AuditRecord) -> str | None:
        wrote = record.committed and record.verb in WRITE_VERBS
        return self.tell(f"{record.verb} of {resource_of(record)}" if wrote else None)
