"""What etcd and the watch cache hold: objects by kind, one growing version for all, and the last changes.

Objects are never changed: a write puts another one in their place. Everything that a reader is given
may be shared by many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, Protocol

import msgspec

from remediator.ports import Clock
from remediator.sim.refusal import Json, expired
from remediator.sim.selectors import text_at

Key = tuple[str, str]  # namespace, name
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]

# Source: k8s.io/apiserver/pkg/storage/cacher: defaultLowerBoundCapacity, defaultUpperBoundCapacity and
# eventFreshDuration.
HISTORY_MIN: Final = 100
HISTORY_MAX: Final = 102_400
HISTORY_S: Final = 75.0

_encode = msgspec.json.Encoder().encode


class Entry:
    """One object at one version, and its bytes once somebody has asked for them."""

    __slots__ = ("_encoded", "obj", "version")

    def __init__(self, obj: Json, version: int) -> None:
        self.obj = obj
        self.version = version
        self._encoded: bytes | None = None

    @property
    def encoded(self) -> bytes:
        if self._encoded is None:
            self._encoded = _encode(self.obj)
        return self._encoded


def renumbered(obj: Json, version: int) -> Entry:
    """The object at that version."""
    return Entry(obj | {"metadata": obj["metadata"] | {"resourceVersion": str(version)}}, version)


class Change:
    """What one write did to one object: ``before`` is None for a new one."""

    __slots__ = ("at", "before", "entry", "type")

    def __init__(self, type_: ChangeType, entry: Entry, before: Entry | None, at: float) -> None:
        self.type = type_
        self.entry = entry
        self.before = before
        self.at = at


class Watcher(Protocol):
    """Whoever is told of changes when the watch cache shows them."""

    def tell(self, change: Change) -> None: ...

    def end(self) -> None: ...


class Shelf:
    """All objects of one kind, by namespace and name.

    ``seen`` is the version up to which the watch cache shows changes; see ``freeze``. Listeners hear
    of each change when it is written, watchers when it is shown.
    """

    def __init__(self, *, indexed: Mapping[str, tuple[str, ...]], clock: Clock) -> None:
        self._entries: dict[Key, Entry] = {}
        self._order: list[Key] | None = []
        self._paths = dict(indexed)
        self._index: dict[str, dict[str, dict[Key, None]]] = {name: {} for name in indexed}
        self._clock = clock
        self._history: deque[Change] = deque()
        self._held: deque[Change] | None = None
        self._frozen_at = 0
        self._cached: dict[Key, Entry] | None = None  # what a frozen cache shows
        self.forgotten = 0  # the newest version that the history does not hold any more
        self.watchers: dict[int, Watcher] = {}
        self.listeners: list[Callable[[Change], None]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Entry | None:
        return self._entries.get(key)

    def ordered(self) -> list[Key]:
        """All keys in the order of a LIST."""
        if self._order is None:
            self._order = sorted(self._entries)
        return self._order

    def select(self, equal: Mapping[str, str]) -> list[Key]:
        """Keys in order, narrowed by the first index that helps; the caller tests each object."""
        for name, value in equal.items():
            if name in self._index:
                return sorted(self._index[name].get(value, ()))
        return self.ordered()

    def put(self, key: Key, entry: Entry) -> None:
        """Store a new version, and show it."""
        before = self._entries.get(key)
        self._entries[key] = entry
        if before is None:
            self._order = None
        self._reindex(key, before, entry)
        self._publish(
            Change("ADDED" if before is None else "MODIFIED", entry, before, self._clock.monotonic())
        )

    def remove(self, key: Key, last: Entry) -> None:
        """Take an object away; ``last`` is it at the version of its deletion."""
        before = self._entries.pop(key)
        self._order = None
        self._reindex(key, before, None)
        self._publish(Change("DELETED", last, before, self._clock.monotonic()))

    def _reindex(self, key: Key, before: Entry | None, after: Entry | None) -> None:
        for name, path in self._paths.items():
            old = text_at(before.obj, path) if before is not None else None
            new = text_at(after.obj, path) if after is not None else None
            if old == new:
                continue
            index = self._index[name]
            if old is not None:
                bucket = index[old]
                del bucket[key]
                if not bucket:
                    del index[old]
            if new is not None:
                index.setdefault(new, {})[key] = None

    # -- the watch cache

    def _publish(self, change: Change) -> None:
        for heard in self.listeners:
            heard(change)
        if self._held is not None:
            self._held.append(change)
            return
        self._show(change)

    def _show(self, change: Change) -> None:
        history = self._history
        history.append(change)
        oldest = change.at - HISTORY_S
        while len(history) > HISTORY_MAX or (len(history) > HISTORY_MIN and history[0].at < oldest):
            self.forgotten = history.popleft().entry.version
        for watcher in tuple(self.watchers.values()):
            watcher.tell(change)

    def since(self, version: int) -> Iterator[Change]:
        """The changes after ``version``, oldest first.

        Raises:
            Refused: 410, the history begins later.
        """
        if version < self.forgotten:
            raise expired(f"too old resource version: {version} ({self.forgotten})")
        return iter([change for change in self._history if change.entry.version > version])

    def cached(self) -> Mapping[Key, Entry]:
        """Everything as the watch cache shows it."""
        return self._entries if self._cached is None else self._cached

    @property
    def frozen(self) -> bool:
        """Does the watch cache hang?"""
        return self._held is not None

    def shown(self, newest: int) -> int:
        """The version up to which the watch cache shows everything; ``newest`` is the store's."""
        if self._held is None:
            return newest
        return self._frozen_at

    def freeze(self, at: int) -> None:
        """Show no change after this version to any watcher, as a watch cache does that hangs."""
        if self._held is None:
            self._held, self._cached, self._frozen_at = deque(), dict(self._entries), at

    def thaw(self) -> None:
        """Show what was held back, in its order."""
        held, self._held, self._cached = self._held, None, None
        for change in held or ():
            self._show(change)

    def compact(self, newest: int) -> None:
        """End every watch and forget all that was before, as a server does that starts anew.

        ``newest`` is the store's version: whoever goes on from an older one is told 410.
        """
        for watcher in tuple(self.watchers.values()):
            watcher.end()
        self.forgotten = newest
        self._history.clear()


class Store:
    """Every shelf, and the one version that counts all writes."""

    def __init__(self, clock: Clock) -> None:
        self.version = 1
        self._clock = clock
        self._shelves: dict[str, Shelf] = {}

    def shelf(self, resource: str, indexed: Mapping[str, tuple[str, ...]]) -> Shelf:
        """The shelf of this kind, made when it is asked for first."""
        found = self._shelves.get(resource)
        if found is None:
            found = self._shelves[resource] = Shelf(indexed=indexed, clock=self._clock)
        return found

    def put(self, shelf: Shelf, key: Key, obj: Json) -> Entry:
        """Store ``obj`` under the next version."""
        entry = self._numbered(obj)
        shelf.put(key, entry)
        return entry

    def remove(self, shelf: Shelf, key: Key, obj: Json) -> Entry:
        """Remove it; the entry is what a watcher sees of it last."""
        entry = self._numbered(obj)
        shelf.remove(key, entry)
        return entry

    def _numbered(self, obj: Json) -> Entry:
        self.version += 1
        return renumbered(obj, self.version)
