"""What must have come to an end once nothing has gone wrong for a while. Judged at the end of a log."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from remediator.adapters.audit import AuditRecord
from remediator.chaos.profile import Profile
from remediator.chaos.rules.rule import Rule
from remediator.chaos.rules.stream import resource_of
from remediator.chaos.world import World

NAMED_MAX = 5


class _Books(Rule):
    """Folds the controller's own records of its work: where each piece stands, and which node it is about."""

    needs: ClassVar[tuple[str, ...]] = ("runs",)

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._stands: dict[str, tuple[str, str]] = {}  # name: state, node

    def see(self, record: AuditRecord) -> str | None:
        runs = self.profile.runs
        if runs is None or not record.committed or resource_of(record).partition("/")[0] != runs.resource:
            return None
        if record.verb == "delete":
            self._stands.pop(record.object_ref.name, None)
            return None
        body = bytes(record.response_object)
        if not body:
            self.can_not_tell(record)
            return None
        found = msgspec.json.decode(body)
        self._stands[found["metadata"]["name"]] = (at(found, runs.state), at(found, runs.node))
        self.judged += 1
        return None


class RunsEnd(_Books):
    """Work that nobody finishes holds its budget for ever."""

    id: ClassVar = "L1"
    sentence: ClassVar = "In calm each piece of work has ended, or stands where a person must decide."

    def end(self) -> str | None:
        runs = self.profile.runs
        settled = runs.settled if runs is not None else ()
        left = [
            f"{name} is {state or 'nowhere'}"
            for name, (state, _) in self._stands.items()
            if state not in settled
        ]
        return _several(left)


class NoOrphans(_Books):
    """A node that is fenced and belongs to no work is lost capacity that nobody looks at."""

    id: ClassVar = "L4"
    sentence: ClassVar = "In calm every fenced node belongs to work that keeps it out."
    needs: ClassVar = ("own", "runs")

    def end(self) -> str | None:
        runs, own = self.profile.runs, self.profile.own
        if runs is None or own is None:
            return None
        kept = {node for state, node in self._stands.values() if state in runs.keeps}
        fenced = [
            name
            for name, node in self.world.nodes.items()
            if any(taint.key in own.fence for taint in node.object.spec.taints)
        ]
        return _several(
            [f"{name} is fenced, and no work keeps it out" for name in fenced if name not in kept]
        )


def at(obj: Any, path: str) -> str:
    """The text at a dotted path; empty where there is none."""
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return str(obj) if obj is not None else ""


def _several(found: list[str]) -> str | None:
    if not found:
        return None
    more = f", and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    return f"{'; '.join(sorted(found)[:NAMED_MAX])}{more}"
