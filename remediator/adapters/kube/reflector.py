"""Keeps a ``Store`` equal to what the API server has: list, watch, and every way these can fail.

One reader per kind. It decides nothing about objects; a listener hears of each difference once.
"""

from __future__ import annotations

import enum
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Generic, TypeVar

from remediator.adapters.kube.errors import RETRY_AFTER_S_MAX
from remediator.adapters.kube.listing import Listing, ReflectorSettings, consistent_list
from remediator.adapters.kube.store import Store
from remediator.adapters.kube.wire import (
    Bookmark,
    Change,
    GarbledError,
    ObjectDecoder,
    ServerError,
    close_lines,
    query_with,
)
from remediator.core.pauses import doubled
from remediator.errors import PermanentError, TransientError
from remediator.ports import Clock, FeedState, Lane, Transport

T = TypeVar("T")


class Ending(enum.Enum):
    """Why one cycle of list and watch ended; each has its own way to go on."""

    CLEAN = "clean end"  # the server closed the watch: go on where it stopped
    RESET = "reset"  # connection lost or 5xx: likewise
    SILENT = "silent"  # nothing for idle_s: trust nothing, list again
    EXPIRED = "expired"  # 410 in any form: list again
    GARBLED = "garbled"  # bytes that are no answer: an event may be lost, list again
    BACKWARDS = "backwards"  # an object went back in time: list again
    NO_WATCH_LIST = "no watch-list"  # the initial state did not come: list in pages
    REFUSED = "refused"  # 403, no such kind: unknown until a person changes something


_RESUMES = frozenset((Ending.CLEAN, Ending.RESET))


class _Ended(Exception):
    """Leaves the cycle from wherever it is; never leaves this module."""

    def __init__(self, ending: Ending, message: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.ending = ending
        self.retry_after_s = retry_after_s


class Reflector(Generic[T]):
    """Feeds one store from ``path``, restricted by ``query`` (selectors).

    Plain counters: ``events`` (watch lines that changed or could change an object), ``relists``
    (complete states taken over), ``stale`` (duplicates dropped), ``alarms`` (an object or the
    whole kind went back in time), ``endings`` by reason. ``problem`` names what a person must
    change, or is None; ``last_ending`` says why the last watch ended; ``broken_since`` is set while
    none lives. ``refine`` adds to a view what only the difference and the line of a live watch can
    tell. ``decoder`` may be exchanged while ``run`` is not running: the next run reads
    everything again.
    """

    def __init__(
        self,
        transport: Transport,
        store: Store[T],
        decoder: ObjectDecoder[T],
        path: str,
        *,
        clock: Clock,
        rng: random.Random,
        query: Mapping[str, str] | None = None,
        settings: ReflectorSettings | None = None,
        watch_list: bool = True,
        lane: Lane = Lane.NORMAL,
        refine: Callable[[T, T, bytes], T] | None = None,
    ) -> None:
        self.store = store
        self.events = 0
        self.relists = 0
        self.stale = 0
        self.alarms = 0
        self.endings: dict[Ending, int] = dict.fromkeys(Ending, 0)
        self.problem: str | None = None
        self.last_ending = ""
        self.broken_since: datetime | None = None
        self.decoder = decoder
        self._transport = transport
        self._path = path
        self._query = dict(query or {})
        self._clock = clock
        self._rng = rng
        self._settings = settings or ReflectorSettings()
        self._lane = lane
        self._refine = refine
        self._watch_list = watch_list  # False for ever once the server refused it
        self._list_next = False  # the last watch-list broke off: pages this once
        self._failures: dict[Ending, int] = dict.fromkeys(Ending, 0)
        self._complete = False  # the store may be continued from its version
        self._healthy_since: float | None = None
        self._cycle_began: float | None = None  # None: between two of them
        self._last_line = 0.0
        self._burst = 0
        self._burst_began = 0.0

    @property
    def undecodable(self) -> Mapping[str, str]:
        return self.store.undecodable

    def state(self) -> FeedState:
        """What there is to say of this feed at this moment."""
        broken = self.broken_since is not None and not self._is_quiet()
        return FeedState(
            events=self.events,
            relists=self.relists,
            alarms=self.alarms,
            undecodable=dict(self.undecodable),
            broken_since=self.broken_since if broken else None,
            trouble=self.last_ending if broken else "",
        )

    def _is_quiet(self) -> bool:
        """Was the watch continued, and has had time to fail? A kind that rests is silent for a minute."""
        began = self._cycle_began if self._complete else None
        return began is not None and self._clock.monotonic() - began > self._settings.connect_timeout_s

    async def run(self) -> None:
        """List and watch until cancelled. Starts with a complete list; run it once at a time."""
        self._complete = False
        while True:
            self._healthy_since = None
            try:
                await self._cycle()
                ended = _Ended(Ending.CLEAN)
            except _Ended as error:
                ended = error
            except GarbledError as error:
                ended = _Ended(Ending.GARBLED, str(error))
            except PermanentError as error:
                ended = self._refused(error)
            except TransientError as error:
                # The connection's own timer starts a little before we get to read the last line.
                silent = self._clock.monotonic() - self._last_line >= 0.9 * self._settings.idle_s
                ended = _Ended(Ending.SILENT if silent else Ending.RESET, str(error), error.retry_after_s)
            self._cycle_began = None
            self._note_end(ended)
            await self._clock.sleep(self._pause_s(ended))

    def _note_end(self, ended: _Ended) -> None:
        self.last_ending = f"{ended.ending.value}: {ended}" if str(ended) else ended.ending.value
        if ended.ending not in _RESUMES:
            self._complete = False
        # A watch that lived is opened again at once: nothing is broken before that fails as well.
        lived = self._healthy_since is not None and ended.ending is not Ending.REFUSED
        if not lived and ended.ending is not Ending.NO_WATCH_LIST and self.broken_since is None:
            self.broken_since = self._clock.now()

    def _refused(self, error: PermanentError) -> _Ended:
        if error.status == 410:
            return _Ended(Ending.EXPIRED, str(error))
        self.problem = str(error)
        if error.status == 401:  # a token between two rotations; what we know stays known
            return _Ended(Ending.RESET, str(error))
        # IMPORTANT: unknown, not deleted. Were a missing kind an empty list, `kubectl delete crd`
        # would look like every record having been removed by hand.
        self.store.synced = False
        return _Ended(Ending.REFUSED, str(error))

    def _pause_s(self, ended: _Ended) -> float:
        """Full jitter, growing per reason; forgotten only after a minute of health."""
        settings, ending = self._settings, ended.ending
        self.endings[ending] += 1
        began = self._healthy_since
        lived_s = 0.0 if began is None else self._clock.monotonic() - began
        if lived_s >= settings.healthy_after_s:
            self._failures = dict.fromkeys(Ending, 0)
        if ending is Ending.CLEAN and lived_s >= settings.brief_s:
            # Proxies close watches every minute or so: a reason to reconnect, not to go blind.
            return (
                self._rng.uniform(0, settings.backoff_first_s) if lived_s < settings.healthy_after_s else 0.0
            )
        if ending is Ending.NO_WATCH_LIST:
            return 0.0  # the other way of listing is tried at once; it has its own reasons
        if ending is Ending.REFUSED:
            # A server that has just started refuses everybody until it knows its roles; a role that
            # is missing is missing for days.
            refused_s = doubled(settings.refused_first_s, self._failures[ending], settings.refused_max_s)
            self._failures[ending] += 1
            return self._rng.uniform(refused_s / 2, refused_s)
        ceiling_s = doubled(settings.backoff_first_s, self._failures[ending], settings.backoff_max_s)
        self._failures[ending] += 1
        return max(self._rng.uniform(0, ceiling_s), min(ended.retry_after_s or 0.0, RETRY_AFTER_S_MAX))

    async def _cycle(self) -> None:
        self._last_line = self._cycle_began = self._clock.monotonic()
        self._complete = self._complete and not self._unproved()
        if self._complete:
            async with self._open(self.store.version) as lines:
                await self._watch(lines)
        elif self._watch_list and not self._list_next:
            async with self._open(None) as lines:
                await self._collect(lines)
                await self._watch(lines)
        else:
            listing = await consistent_list(
                self._transport,
                self._path,
                self.decoder,
                clock=self._clock,
                query=self._query,
                settings=self._settings,
                lane=self._lane,
            )
            await self._take_over(listing)
            self._last_line = self._clock.monotonic()
            async with self._open(listing.version) as lines:
                await self._watch(lines)

    def _unproved(self) -> bool:
        """Did the last watches end before anything proved the content fresh?

        A proxy that cuts every watch right before its first bookmark would keep a quiet kind in
        doubt for ever; a list ends the doubt.
        """
        age_s = self.store.age_s()
        return age_s is None or age_s > self._settings.idle_s

    @asynccontextmanager
    async def _open(self, version: int | None) -> AsyncIterator[AsyncIterator[bytes]]:
        """Watch from ``version``, or from the beginning with the whole state first (None)."""
        settings = self._settings
        asked = query_with(
            self._query,
            watch="1",
            allowWatchBookmarks="true",
            timeoutSeconds=str(self._rng.randint(settings.watch_s_min, settings.watch_s_max)),
        )
        if version is None:
            # Without a resourceVersion, NotOlderThan means: as fresh as a quorum read.
            asked |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        else:
            asked["resourceVersion"] = str(version)
        lines = self._transport.stream(
            self._path,
            query=asked,
            connect_timeout_s=settings.connect_timeout_s,
            idle_timeout_s=settings.idle_s,
        )
        try:
            yield lines
        finally:
            await close_lines(lines)

    async def _collect(self, lines: AsyncIterator[bytes]) -> None:
        """Gather the initial state of a watch-list and take it over at its end."""
        listing: Listing[T] = Listing()
        self._list_next = True  # until the end mark came
        try:
            async for line in lines:
                match await self._read(line):
                    case Change() as change:
                        listing.take(change)
                    case Bookmark(version=version, initial_end=True):
                        listing.version = version
                        await self._take_over(listing)
                        self._note_life()
                        return
                    case Bookmark():
                        # A server that ignores sendInitialEvents: it will never send the end.
                        self._watch_list = False
                        raise _Ended(Ending.NO_WATCH_LIST, "bookmark before the end of the initial events")
        except PermanentError as error:
            self._list_next = False  # a refusal says nothing about watch-list
            if error.status in (400, 422):  # what servers without this feature answer
                self._watch_list = False
                raise _Ended(Ending.NO_WATCH_LIST, str(error)) from error
            raise
        raise _Ended(Ending.NO_WATCH_LIST, "ended before the initial events did")

    async def _take_over(self, listing: Listing[T]) -> None:
        store = self.store
        backwards = store.synced and listing.version < store.version
        backwards |= any(version < store.version_of(key) for key, version in listing.versions.items())
        self.alarms += backwards
        differences = store.replace(listing.views, listing.versions, listing.undecodable, listing.version)
        self.relists += 1
        self._list_next = False
        self._complete = True
        # Cache first, events second: a listener that looks at another object sees the same state.
        told = 0
        try:
            while told < len(differences):
                start, told = told, told + self._settings.page_items
                store.tell(differences[start:told])
                await self._clock.sleep(0)
        finally:
            # Cancelled in between: the store has changed already, and nobody would tell the rest.
            store.tell(differences[told:])

    async def _watch(self, lines: AsyncIterator[bytes]) -> None:
        async for line in lines:
            match await self._read(line):
                case Bookmark(version=version):
                    self.store.prove(version)
                case Change() as change:
                    self._apply(change, line)
            # Only now is the watch known to live: with a version from the future the server
            # answers 200 and stays silent.
            self._note_life()

    def _note_life(self) -> None:
        if self._healthy_since is None:
            self._healthy_since = self._last_line
            self.problem = None
            self.broken_since = None

    def _apply(self, change: Change[T], line: bytes) -> None:
        store = self.store
        if change.version <= store.version:
            known = store.version_of(change.key)
            if known and known != change.version:
                self.alarms += 1
                raise _Ended(
                    Ending.BACKWARDS,
                    f"{change.key} at {change.version} after {known}, all seen to {store.version}",
                )
            # A duplicate, or a replay of something that is gone: it must not come back to life.
            self.stale += 1
        elif change.type == "DELETED":
            store.remove(change.key, change.version)
        elif change.view is None:
            store.mark_undecodable(change.key, change.version, change.problem)
        else:
            store.put(change.key, change.version, self._refined(change.key, change.view, line))

    def _refined(self, key: str, view: T, line: bytes) -> T:
        if self._refine is None:
            return view
        before = self.store.get(key)
        return view if before is None else self._refine(before, view, line)

    async def _read(self, line: bytes) -> Change[T] | Bookmark:
        """Decode one line, letting others run every few lines: a full buffer never waits itself."""
        now = self._clock.monotonic()
        self._last_line = now
        self._burst += 1
        if self._burst >= self._settings.burst_events or now - self._burst_began >= self._settings.burst_s:
            await self._clock.sleep(0)
            self._burst, self._burst_began = 0, self._clock.monotonic()
        found = self.decoder.event(line)
        if not isinstance(found, ServerError):
            self.events += isinstance(found, Change)
            return found
        message = f"WATCH {self._path}: ERROR {found.code} {found.reason}: {found.message}"
        if found.expired:
            raise _Ended(Ending.EXPIRED, message)
        raise TransientError(message, retry_after_s=found.retry_after_s)
