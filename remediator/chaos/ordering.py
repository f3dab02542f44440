"""Puts records about Nodes into the order of versions: a log is in the order in which requests were answered.

Two writes of one Node that overlap may stand there the wrong way round, a few milliseconds apart. Whoever
compares a Node before a write with what the write left behind would blame one for what the other did.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

from remediator.adapters.audit import Numbered
from remediator.chaos.world import shown_by

APART: Final = timedelta(seconds=2)  # farther apart no two answers to overlapping writes stand
HELD_MAX: Final = 20_000

_Key = tuple[str, int]  # name of the Node, version after the write


def in_version_order(records: Iterable[Numbered]) -> Iterator[Numbered]:
    """Yield all records; of those about one Node, within two seconds, the older version first."""
    held: deque[tuple[Numbered, _Key | None]] = deque()
    for numbered in records:
        oldest = numbered.record.staged_at - APART
        while held and (held[0][0].record.staged_at < oldest or len(held) >= HELD_MAX):
            yield held.popleft()[0]
        key = _written(numbered)
        held.insert(len(held) if key is None else _place(held, key), (numbered, key))
    yield from (numbered for numbered, _ in held)


def _place(held: deque[tuple[Numbered, _Key | None]], key: _Key) -> int:
    """Before the first of those that have written the same Node later."""
    place = len(held)
    for back, (_, other) in enumerate(reversed(held), start=1):
        if other is not None and other[0] == key[0]:
            if other[1] <= key[1]:
                break
            place = len(held) - back
    return place


def _written(numbered: Numbered) -> _Key | None:
    """Which Node a record has written, and its version then; None where it wrote none."""
    record = numbered.record
    about = record.object_ref
    if about.resource != "nodes" or about.subresource not in ("", "status") or not record.committed:
        return None
    if record.verb not in ("create", "update", "patch"):
        return None
    shown = shown_by(record)
    version = shown.metadata.resource_version if shown is not None else ""
    return (about.name, int(version)) if version.isdigit() else None
