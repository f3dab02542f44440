"""Get, list and watch: what a reader is shown, and as of when."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec

from remediator.ports import Clock
from remediator.sim.kinds import Kind
from remediator.sim.refusal import Json, bad_request, expired, not_found, too_new
from remediator.sim.request import Request, Route
from remediator.sim.selectors import Matches, field_selector, label_selector
from remediator.sim.store import Entry, Key, Shelf, Store
from remediator.sim.watch import Watch

TOKEN_S: Final = 300.0  # how long a continue token lives: etcd compacts every five minutes
TOKENS_MAX: Final = 1_000

_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class _Rest:
    """What a paged LIST still has to show, as of its first page."""

    entries: tuple[Entry, ...]
    version: int
    until: float


class Reads:
    """The half of the server that shows objects."""

    def __init__(self, store: Store, *, clock: Clock, rng: Random) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._rests: dict[str, _Rest] = {}
        self._tokens = 0

    def get(self, route: Route, shelf: Shelf) -> Entry:
        """
        Raises:
            Refused: 404.
        """
        found = shelf.get(route.key)
        if found is None:
            raise not_found(route.kind.resource, route.name, route.kind.group)
        return found

    def list(self, request: Request, route: Route, shelf: Shelf) -> bytes:
        """The body of a LIST, or of one page of it.

        Raises:
            Refused: 400, 410 of a token that is too old, 504 of a version from the future.
        """
        query = request.query
        limit = as_limit(query.get("limit") or "")
        if token := query.get("continue"):
            rest = self._rest(token)
            entries, version = rest.entries, rest.version
        else:
            entries, version = self._selected(route, shelf, query)
        shown, left = (entries[:limit], entries[limit:]) if limit else (entries, ())
        meta: Json = {"resourceVersion": str(version)}
        if left:
            meta |= {"continue": self._keep(left, version), "remainingItemCount": len(left)}
        return page(route.kind, meta, shown)

    def _selected(
        self, route: Route, shelf: Shelf, query: Mapping[str, str]
    ) -> tuple[tuple[Entry, ...], int]:
        asked = query.get("resourceVersion") or ""
        newest = self._store.version
        if asked.isdigit() and int(asked) > newest:
            raise too_new(int(asked))
        matches, equal = selection(route, query)
        if asked == "0":  # whatever the cache has, however old
            found = shelf.cached()
            entries = tuple(found[key] for key in sorted(found) if matches(found[key].obj))
            return entries, shelf.shown(newest)
        return tuple(_matching(shelf, shelf.select(equal), matches)), newest

    def _keep(self, entries: tuple[Entry, ...], version: int) -> str:
        self._tokens += 1
        token = base64.urlsafe_b64encode(f"{version}/{self._tokens}".encode()).decode()
        self._rests[token] = _Rest(entries, version, self._clock.monotonic() + TOKEN_S)
        while len(self._rests) > TOKENS_MAX:
            del self._rests[next(iter(self._rests))]
        return token

    def _rest(self, token: str) -> _Rest:
        found = self._rests.get(token)
        if found is None or found.until < self._clock.monotonic():
            raise expired(
                "The provided continue parameter is too old to display a consistent list result. You can "
                "start a new list without the continue parameter."
            )
        return found

    def forget_tokens(self) -> None:
        """Let every continue token be too old."""
        self._rests.clear()

    def watch(self, request: Request, route: Route, shelf: Shelf) -> Watch:
        """Open a watch.

        Raises:
            Refused: 400 of a selector; 410 and 504 as the real server has them.
        """
        matches, _ = selection(route, request.query)
        return Watch(
            self._store, shelf, route.kind, request.query, matches=matches, clock=self._clock, rng=self._rng
        )


def selection(route: Route, query: Mapping[str, str]) -> tuple[Matches, dict[str, str]]:
    """What a request selects: its path's namespace and both selectors; and what an index may use.

    Raises:
        Refused: 400.
    """
    by_label = label_selector(query.get("labelSelector") or "")
    by_field, equal = field_selector(query.get("fieldSelector") or "", route.kind.selectable)
    namespace = route.namespace

    def matches(obj: Json) -> bool:
        if namespace and obj["metadata"].get("namespace") != namespace:
            return False
        return by_label(obj) and by_field(obj)

    return matches, equal


def _matching(shelf: Shelf, keys: list[Key], matches: Matches) -> list[Entry]:
    found = (shelf.get(key) for key in keys)
    return [entry for entry in found if entry is not None and matches(entry.obj)]


def page(kind: Kind, meta: Json, entries: tuple[Entry, ...]) -> bytes:
    """The body of a list, out of the bytes that each object has already."""
    head = _encode({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta})
    return head[:-1] + b',"items":[' + b",".join(entry.encoded for entry in entries) + b"]}"


def as_limit(text: str) -> int:
    """
    Raises:
        Refused: 400.
    """
    if not text:
        return 0
    if not text.isdigit():
        raise bad_request(f"limit: Invalid value: {text!r}")
    return int(text)
