"""Reads all objects of a kind as of one moment, in pages: for the reflector and for one-shot questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from remediator.adapters.kube.errors import check_read
from remediator.adapters.kube.wire import Change, ObjectDecoder, query_with
from remediator.errors import PermanentError, TransientError
from remediator.ports import Clock, Lane, Transport

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReflectorSettings:
    """Bounds; all ``_s`` are seconds.

    ``idle_s`` lies above the server's bookmark period (60) and below its watch cache's window
    (75): silence means a dead connection. ``watch_s_min`` and ``_max`` bound one watch, so that
    it is opened again with a fresh token. A watch that ends cleanly after less than ``brief_s`` counts
    as a failure.
    """

    page_items: int = 500
    pages_max: int = 2_000
    slice_items: int = 100
    burst_events: int = 64
    burst_s: float = 0.005
    list_timeout_s: float = 30.0
    connect_timeout_s: float = 10.0
    idle_s: float = 70.0
    watch_s_min: int = 300
    watch_s_max: int = 600
    backoff_first_s: float = 0.8
    backoff_max_s: float = 30.0
    healthy_after_s: float = 60.0
    brief_s: float = 10.0
    refused_first_s: float = 1.0
    refused_max_s: float = 30.0


@dataclass(slots=True)
class Listing(Generic[T]):
    """One complete, consistent state of a kind: views and resourceVersions by key.

    ``undecodable`` objects exist, but have a problem instead of a view. ``version`` is the one
    to watch from.
    """

    views: dict[str, T] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    undecodable: dict[str, str] = field(default_factory=dict)
    version: int = 0

    def take(self, change: Change[T]) -> None:
        """Apply one change, newest last."""
        self.views.pop(change.key, None)
        self.undecodable.pop(change.key, None)
        self.versions.pop(change.key, None)
        if change.type == "DELETED":
            return
        self.versions[change.key] = change.version
        if change.view is None:
            self.undecodable[change.key] = change.problem
        else:
            self.views[change.key] = change.view


async def consistent_list(
    transport: Transport,
    path: str,
    decoder: ObjectDecoder[T],
    *,
    clock: Clock,
    query: Mapping[str, str] | None = None,
    settings: ReflectorSettings | None = None,
    lane: Lane = Lane.NORMAL,
) -> Listing[T]:
    """Read all objects of ``path`` as of one moment not before the call, page by page.

    Raises:
        TransientError: a page failed, expired (410 between two pages) or was garbled.
        PermanentError: 403, no such kind, or more than ``settings.pages_max`` pages.
    """
    bounds = settings or ReflectorSettings()
    listing: Listing[T] = Listing()
    token = ""
    for _ in range(bounds.pages_max):
        asked = query_with(query, limit=str(bounds.page_items))
        if token:
            asked["continue"] = token
        response = await transport.request(
            "GET", path, query=asked, timeout_s=bounds.list_timeout_s, lane=lane
        )
        if token and response.status == 410:
            raise TransientError(f"LIST {path}: the list expired between two pages")
        page = decoder.page(check_read(response, f"LIST {path}"))
        for start in range(0, len(page.items), bounds.slice_items):
            for raw in page.items[start : start + bounds.slice_items]:
                listing.take(decoder.listed(raw))
            await clock.sleep(0)
        listing.version = page.version
        token = page.continue_token
        if not token:
            return listing
    raise PermanentError(f"LIST {path}: more than {bounds.pages_max * bounds.page_items} objects")
