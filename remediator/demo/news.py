"""Makes news of audit records: steps of runs, breakers, and the controller's own warnings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from remediator.adapters.audit import AuditRecord
from remediator.app.telling import granted_words, step_words

_QUIET = frozenset(("Granted", "Returned", "NotGranted", "Quarantined", "HandedOver", "Draining", "Detached"))
_BUSY = frozenset(("Repairing", "Verifying"))


class Item(NamedTuple):
    who: str
    text: str


class News:
    """Reads records in their order, and says each thing once."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()
        self._breakers: dict[str, str] = {}

    def of(self, record: AuditRecord) -> Iterator[Item]:
        """What is new in one record."""
        about = record.object_ref
        body = bytes(record.response_object)
        if not record.committed or not body or record.verb not in ("create", "update", "patch"):
            return
        if about.resource == "remediations":
            yield from self._of_run(msgspec.json.decode(body))
        elif (about.resource, about.subresource) == ("remediationpolicies", "status"):
            yield from self._of_policy(msgspec.json.decode(body).get("status") or {})
        elif about.resource == "events" and record.verb == "create":
            yield from self._of_event(msgspec.json.decode(body))

    def _of_run(self, run: dict[str, Any]) -> Iterator[Item]:
        name, node = run["metadata"]["name"], run["spec"]["node"]["name"]
        status = run.get("status") or {}
        steps = [step for step in status.get("steps") or () if step["state"] != "Intent"]
        if steps and self._first(name, "granted"):
            yield Item(node, granted_words(run))
        for step in steps:
            if self._first(name, step["id"]):
                yield Item(node, step_words(step))
        state = status.get("state", "")
        if state and state not in _QUIET and state not in _BUSY and self._first(name, state):
            yield Item(node, f"{state}: {status.get('message', '')}")

    def _of_policy(self, status: dict[str, Any]) -> Iterator[Item]:
        now = {each["scope"]: each["state"] for each in status.get("breakers") or ()}
        changed: dict[str, list[str]] = {}
        for scope in sorted(now.keys() | self._breakers.keys(), key=_widest_first):
            state = now.get(scope, "Closed")
            if state != self._breakers.get(scope, "Closed"):
                changed.setdefault(state, []).append(scope.rpartition("/")[2])
        self._breakers = now
        for state, scopes in changed.items():
            yield Item("breaker", f"{state} for {', '.join(scopes)}: {_MEANS.get(state, '')}")

    def _of_event(self, event: dict[str, Any]) -> Iterator[Item]:
        reason, about = event.get("reason", ""), (event.get("regarding") or {}).get("name", "")
        if event.get("type") == "Warning" and self._first(about, reason):
            yield Item(about, f"{reason}: {event.get('note', '')}")

    def _first(self, who: str, what: str) -> bool:
        known = (who, what) in self._told
        self._told.add((who, what))
        return not known


def _widest_first(scope: str) -> tuple[int, str]:
    return scope.count("/"), scope


_MEANS = {
    "Open": "so much at once has one cause, and no fence mends that; nothing new begins",
    "HalfOpen": "one trial may begin",
    "Closed": "work goes on",
}
