"""The cache of one kind: what the server last showed us, and how fresh that is.

Changed by its reflector only. It decides what counts as a change; it never talks to a server.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Generic, TypeAlias, TypeVar

from msgspec import Struct

from remediator.adapters.kube.wire import RawObject
from remediator.model.meta import ObjectMeta
from remediator.model.views import NodeView
from remediator.ports import Clock

T = TypeVar("T")
StructT = TypeVar("StructT", bound=Struct)

Listener: TypeAlias = Callable[[str, T | None, T | None], None]  # key, before, after
Difference: TypeAlias = tuple[str, T | None, T | None]


class Store(Generic[T]):
    """Views by key.

    ``synced``: the content is, or was a moment ago, the complete state of the server; False
    before the first list and while the server refuses to tell (no permission, no such kind):
    then every question to the store has the answer *unknown*, and nothing counts as deleted.
    ``version`` is the highest resourceVersion up to which everything was seen.
    ``last_proof_monotonic`` is when the server last proved the content fresh, seconds of
    ``Clock.monotonic``, or None. ``undecodable`` has the problem of each object that does not
    decode; its last good view, if there was one, stays.
    """

    def __init__(self, *, clock: Clock, changed: Callable[[T, T], bool] = operator.ne) -> None:
        """Make an empty store.

        Args:
            clock: for the freshness proof and for time-outs.
            changed: whether listeners want to hear of new after old; see ``node_changed``.
        """
        self._clock = clock
        self._changed = changed
        self._views: dict[str, T] = {}
        self._versions: dict[str, int] = {}
        self._listeners: list[Listener[T]] = []
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.undecodable: dict[str, str] = {}
        self.synced = False
        self.version = 0
        self.last_proof_monotonic: float | None = None

    def __len__(self) -> int:
        return len(self._views)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __contains__(self, key: object) -> bool:
        return key in self._views

    def get(self, key: str) -> T | None:
        return self._views.get(key)

    def views(self) -> Mapping[str, T]:
        """Return a copy, one frozen state of all: later changes do not show in it."""
        return dict(self._views)

    def version_of(self, key: str) -> int:
        """Return the resourceVersion of the stored view, or of a newer undecodable one; 0: absent."""
        return self._versions.get(key, 0)

    def subscribe(self, listener: Listener[T]) -> None:
        """Call ``listener(key, before, after)`` at each change, in order, after it is in the store.

        It runs inside the reader: it must be quick and must not raise. No call for an object that
        was only written again with the same content (a heartbeat).
        """
        self._listeners.append(listener)

    def age_s(self) -> float | None:
        """Return the seconds since the last freshness proof, or None: there was none yet."""
        proof = self.last_proof_monotonic
        return None if proof is None else self._clock.monotonic() - proof

    def put(self, key: str, version: int, view: T) -> None:
        before = self._views.get(key)
        self._views[key] = view
        self._versions[key] = version
        self.undecodable.pop(key, None)
        self.prove(version)
        if before is None or self._changed(before, view):
            self.tell(((key, before, view),))

    def mark_undecodable(self, key: str, version: int, problem: str) -> None:
        """Keep the last good view, if any, and say that it is behind."""
        self._versions[key] = version
        self.undecodable[key] = problem
        self.prove(version)

    def remove(self, key: str, version: int) -> None:
        before = self._views.pop(key, None)
        self._versions.pop(key, None)
        self.undecodable.pop(key, None)
        self.prove(version)
        if before is not None:
            self.tell(((key, before, None),))

    def replace(
        self,
        views: Mapping[str, T],
        versions: Mapping[str, int],
        undecodable: Mapping[str, str],
        version: int,
    ) -> list[Difference[T]]:
        """Take over a complete, consistent list and return the differences, sorted by key.

        Objects in ``undecodable`` are present: their last good view stays. The caller passes the
        differences to ``tell``, in slices where there are many.
        """
        old = self._views
        kept = {key: old[key] for key in undecodable if key in old and key not in views}
        self._views = {**kept, **views}
        self._versions = dict(versions)
        self.undecodable = dict(undecodable)
        self.synced = True
        self.version = version  # may be lower than before: the server's data was restored
        self.prove(version)
        gone = [(key, before, None) for key, before in old.items() if key not in self._views]
        news: list[Difference[T]] = [
            (key, before, view)
            for key, view in views.items()
            if (before := old.get(key)) is None or self._changed(before, view)
        ]
        return sorted([*gone, *news], key=lambda each: each[0])

    def tell(self, differences: Iterable[Difference[T]]) -> None:
        for difference in differences:
            for listener in self._listeners:
                listener(*difference)

    def prove(self, version: int) -> None:
        """Note that everything up to ``version`` was seen just now."""
        self.last_proof_monotonic = self._clock.monotonic()
        self.version = max(self.version, version)
        if self._waiting:
            self._wake()

    def observed(self, resource_version: str) -> bool:
        """Say whether the store already shows a write that returned ``resource_version``.

        Source: KEP-5647; resourceVersions of one kind are integers that only grow.
        """
        return self.synced and self.version >= int(resource_version)

    async def wait_for(self, resource_version: str, timeout_s: float) -> bool:
        """Wait until ``observed(resource_version)``; False when ``timeout_s`` is over first."""
        if self.observed(resource_version):
            return True
        seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (int(resource_version), seen)
        self._waiting.append(entry)
        timer = asyncio.ensure_future(self._clock.sleep(timeout_s))
        try:
            await asyncio.wait((seen, timer), return_when=asyncio.FIRST_COMPLETED)
            return seen.done()
        finally:
            timer.cancel()
            seen.cancel()
            if entry in self._waiting:
                self._waiting.remove(entry)

    def _wake(self) -> None:
        if not self.synced:
            return
        for version, seen in self._waiting:
            if version <= self.version and not seen.done():
                seen.set_result(None)
        self._waiting = [entry for entry in self._waiting if not entry[1].done()]


_NODE_FIELDS: Final = operator.attrgetter(
    *(name for name in NodeView.__struct_fields__ if name != "resource_version")
)
_META_FIELDS: Final = operator.attrgetter(
    *(name for name in ObjectMeta.__struct_fields__ if name != "resource_version")
)


def node_changed(old: NodeView, new: NodeView) -> bool:
    """Say whether anything but the resourceVersion differs: False for a kubelet's heartbeat."""
    return bool(_NODE_FIELDS(old) != _NODE_FIELDS(new))


def object_changed(old: Struct, new: Struct) -> bool:
    """The same for one of our own objects, which carry ``metadata: ObjectMeta``."""
    for name in old.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if name == "metadata":
            before, after = _META_FIELDS(before), _META_FIELDS(after)
        if before != after:
            return True
    return False


def raw_object_changed(old: RawObject[StructT], new: RawObject[StructT]) -> bool:
    """The same for an object kept with its bytes, which change with every version."""
    return object_changed(old.object, new.object)
