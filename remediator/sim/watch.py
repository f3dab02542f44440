"""A watch: changes that match, bookmarks, and the ways in which the server ends it."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from random import Random
from typing import Final

import msgspec

from remediator.ports import Clock
from remediator.sim.kinds import Kind
from remediator.sim.refusal import Json, Refused, bad_request, invalid_version, too_new
from remediator.sim.selectors import Matches
from remediator.sim.store import Change, ChangeType, Entry, Shelf, Store, renumbered

BOOKMARK_S: Final = 60.0
LAST_BOOKMARK_S: Final = 2.0  # before the time-out
TIMEOUT_S: Final = (1_800.0, 3_600.0)  # --min-request-timeout and twice that
BACKLOG_MAX: Final = 10_000  # lines that a slow watcher may be behind before it is cut off
INITIAL_END: Final = "k8s.io/initial-events-end"

_encode = msgspec.json.encode
_numbers = itertools.count()


def event_line(type_: str, encoded: bytes) -> bytes:
    """One line of the stream, without its newline."""
    return b'{"type":"' + type_.encode() + b'","object":' + encoded + b"}"


def error_line(refused: Refused) -> bytes:
    """An ERROR event: the refusal of a stream that has begun."""
    return event_line("ERROR", _encode(refused.status()))


def seen_as(change: Change, matches: Matches) -> tuple[ChangeType, Entry] | None:
    """What a watcher with this selector sees of a change: leaving the selection is a deletion."""
    now = change.type != "DELETED" and matches(change.entry.obj)
    was = change.before is not None and matches(change.before.obj)
    if now:
        return ("MODIFIED" if was else "ADDED"), change.entry
    if was and change.before is not None:  # as it was, at the version at which it left
        return "DELETED", renumbered(change.before.obj, change.entry.version)
    return None


class Watch:
    """One open watch. It is told of changes at once, and hands out lines as they are asked for."""

    def __init__(
        self, store: Store, shelf: Shelf, kind: Kind, query: Mapping[str, str],
        *, matches: Matches, clock: Clock, rng: Random,
    ) -> None:  # fmt: skip
        self._store = store
        self._shelf = shelf
        self._kind = kind
        self._matches = matches
        self._clock = clock
        self._backlog: deque[bytes] = deque()
        self._shown = 0
        self._wake = asyncio.Event()
        self._ended = False
        self._number = next(_numbers)
        self._bookmarks = query.get("allowWatchBookmarks") in ("1", "true")
        asked_s = float(query.get("timeoutSeconds") or 0)
        self._until = clock.monotonic() + (asked_s or rng.uniform(*TIMEOUT_S))
        self._begin(query)

    def _begin(self, query: Mapping[str, str]) -> None:
        initial = query.get("sendInitialEvents") in ("1", "true")
        asked = query.get("resourceVersion") or ""
        if initial and query.get("resourceVersionMatch") != "NotOlderThan":
            raise bad_request("sendInitialEvents requires resourceVersionMatch=NotOlderThan")
        if initial and not asked and self._shelf.frozen:
            raise too_new(self._store.version)
        if initial or asked in ("", "0"):
            found = self._shelf.cached()
            shown = [found[key] for key in sorted(found) if self._matches(found[key].obj)]
            self._backlog.extend(event_line("ADDED", entry.encoded) for entry in shown)
            self._shown = self._shelf.shown(self._store.version)
            if initial and self._bookmarks:
                self._backlog.append(self._bookmark(initial_end=True))
        else:
            self._shown = _version(asked)
            for change in self._shelf.since(self._shown):
                self.tell(change)
        self._shelf.watchers[self._number] = self

    def tell(self, change: Change) -> None:
        """The cache shows a change."""
        if self._ended or change.entry.version <= self._shown:
            return
        self._shown = change.entry.version
        seen = seen_as(change, self._matches)
        if seen is None:
            return
        if len(self._backlog) >= BACKLOG_MAX:
            self.end()
            return
        self._backlog.append(event_line(seen[0], seen[1].encoded))
        self._wake.set()

    def end(self) -> None:
        """The server closes it: what was not fetched is lost."""
        self._ended = True
        self._backlog.clear()
        self._wake.set()

    async def batches(self) -> AsyncGenerator[tuple[bytes, ...], None]:
        """Every line until the server ends the watch: those that wait, at once."""
        due = self._bookmark_times()
        while not self._ended:
            while self._backlog:
                waiting = tuple(self._backlog)
                self._backlog.clear()
                yield waiting
            now = self._clock.monotonic()
            if now >= self._until:
                return
            if due and now >= due[0]:
                while due and now >= due[0]:
                    due.popleft()
                yield (self._bookmark(),)
                continue
            await self._wait(min([self._until, *itertools.islice(due, 1)]) - now)

    def _bookmark_times(self) -> deque[float]:
        """Each minute, and once more shortly before the end."""
        if not self._bookmarks:
            return deque()
        began, last = self._clock.monotonic(), self._until - LAST_BOOKMARK_S
        minutes = int(max(0.0, last - began) // BOOKMARK_S)
        return deque([*(began + BOOKMARK_S * (n + 1) for n in range(minutes)), max(began, last)])

    def close(self) -> None:
        """Be told of nothing more. Idempotent."""
        self.end()
        self._shelf.watchers.pop(self._number, None)

    async def _wait(self, seconds: float) -> None:
        if self._backlog or self._ended:
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _bookmark(self, *, initial_end: bool = False) -> bytes:
        # While the cache hangs it proves nothing new.
        version = self._shelf.shown(self._store.version)
        meta: Json = {"resourceVersion": str(version), "creationTimestamp": None}
        if initial_end:
            meta["annotations"] = {INITIAL_END: "true"}
        obj = {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": meta}
        return event_line("BOOKMARK", _encode(obj))


def _version(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise invalid_version(text) from None
