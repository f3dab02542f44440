"""Does this replica know enough, and does it get anywhere? For probes, for gates, and for the log.

It looks at what caches, feeds and election say of themselves; it asks no server and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from remediator.model.instant import write_instant
from remediator.ports import Clock, FeedState
from remediator.runtime.world import Caches

# Bookmarks come every minute: a watch that has been silent for longer proves nothing any more.
STALE_WATCH_S: Final = 90.0  # nodes: kubelets are heard of every few seconds
RULES_STALE_S: Final = 180.0  # all other kinds are quiet for days, see decision 0024
# Above the longest step of a fleet pass: twenty witnesses asked one after another, ten seconds each.
HANGS_S: Final = 300.0
NO_FEED: Final = FeedState()


class Candidacy(Protocol):
    """What the election says of itself."""

    @property
    def holder(self) -> str: ...

    @property
    def last_error(self) -> str: ...


class Health:
    """What stands in the way of this replica, in words.

    ``feeds`` has a state for each kind that is watched; a kind without one is not complained about.
    ``skew_s`` says how far our machine's clock is ahead of the server's.
    """

    def __init__(
        self,
        *,
        caches: Caches,
        feeds: Callable[[], Mapping[str, FeedState]],
        election: Candidacy,
        skew_s: Callable[[], float],
        clock: Clock,
    ) -> None:
        self._caches = caches
        self._election = election
        self._clock = clock
        self.feeds = feeds
        self.skew_s = skew_s

    def not_ready(self) -> tuple[str, ...]:
        """One line for each kind whose cache is not in step with the server; leadership is no part of it.

        A watch that broke a moment ago is opened again while the cache stays good: it is named once
        the server has proved nothing for so long that nobody would decide by it.
        """
        ages, feeds = self._caches.ages(), self.feeds()
        lines = []
        for kind, synced in self._caches.synced().items():
            state = feeds.get(kind, NO_FEED)
            age_s = ages[kind]
            stale = state.broken_since is not None and age_s is not None and age_s > STALE_WATCH_S
            if not synced or stale:
                lines.append(f"{kind}: {_ailing(state) or 'not read completely yet'}")
        return tuple(lines)

    def blind(self) -> str:
        """Why nothing may be decided now, or empty text."""
        missing = self._caches.missing()
        if missing:
            return f"not in sync: {', '.join(missing)}"
        # Complete as they were, they may lack a pause, a hold or another run by now.
        limits_s = dict.fromkeys(ages := self._caches.ages(), RULES_STALE_S) | {"nodes": STALE_WATCH_S}
        unheard = [
            f"{kind} for {age_s or 0:.0f} s"
            for kind, age_s in ages.items()
            if age_s is None or age_s > limits_s[kind]
        ]
        return f"nothing was heard about {', '.join(unheard)}" if unheard else ""

    def broken(self) -> Mapping[str, str]:
        """Kinds whose watch does not live, each with since when and why."""
        found = {kind: _ailing(state) for kind, state in self.feeds().items()}
        return {kind: text for kind, text in sorted(found.items()) if text}

    def broken_s(self, state: FeedState) -> float:
        """For how long the watch of this feed has not lived, in seconds; zero while it does."""
        if state.broken_since is None:
            return 0.0
        return max(0.0, (self._clock.now() - state.broken_since).total_seconds())

    @property
    def holder(self) -> str:
        """Who holds the Lease, as far as we have seen."""
        return self._election.holder

    @property
    def lease_trouble(self) -> str:
        """Why the latest attempt to take or to renew the Lease failed; empty after one that did not."""
        return self._election.last_error


def _ailing(state: FeedState) -> str:
    if state.broken_since is None:
        return ""
    return f"watch broken since {write_instant(state.broken_since)}: {state.trouble}"
