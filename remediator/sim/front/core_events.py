"""Events by the name that kubectl knows: core/v1 is another form of what events.k8s.io/v1 keeps. Pure.

Only for reading: whoever writes events writes them in the group that keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from remediator.sim.refusal import Json

#: As discovery shows it, beside the kind that is kept.
LISTED: Final[Mapping[str, object]] = {
    "name": "events", "singularName": "event", "namespaced": True, "kind": "Event",
    "verbs": ("get", "list", "watch"), "shortNames": ("ev",),
}  # fmt: skip
_FIELDS: Final = (("involvedObject.", "regarding."), ("reportingComponent", "reportingController"))
_RENAMED: Final[Mapping[str, str]] = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedCount": "count",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedSource": "source",
}

_path = re.compile(r"/api/v1(?P<namespace>/namespaces/[^/]+)?/events(?P<name>/[^/]+)?").fullmatch
_encode = msgspec.json.encode
_decode = msgspec.json.decode


def where_kept(path: str, query: Mapping[str, str]) -> tuple[str, dict[str, str]] | None:
    """Path and query of the same events where they are kept; None for everything else."""
    found = _path(path)
    if found is None:
        return None
    selector = query.get("fieldSelector", "")
    for core, kept in _FIELDS:
        selector = selector.replace(core, kept)
    moved = {**query, "fieldSelector": selector} if selector else dict(query)
    return f"/apis/events.k8s.io/v1{found['namespace'] or ''}/events{found['name'] or ''}", moved


def core_body(body: bytes) -> bytes:
    """An event, or a list of them, as core/v1 has it; a refusal as it is."""
    found = _decode(body)
    if found["kind"] == "EventList":
        return _encode({**found, "apiVersion": "v1", "items": [_core(each) for each in found["items"]]})
    return _encode(_core(found))


def core_line(line: bytes) -> bytes:
    """One event of a watch."""
    found = _decode(line)
    return _encode({**found, "object": _core(found["object"])})


def _core(event: Json) -> Json:
    if event["kind"] != "Event":
        return event
    moved = {_RENAMED.get(key, key): value for key, value in event.items()}
    series = event.get("series")
    seen = series["lastObservedTime"] if series else event.get("eventTime")
    # What kubectl sorts and dates by: the newer API has other fields for it.
    times = {"lastTimestamp": seen, "firstTimestamp": event.get("eventTime")} if seen else {}
    return {**moved, "apiVersion": "v1", **times}
