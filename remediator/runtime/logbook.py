"""The log lines by which a person follows this process: one a pass that decided, one in five minutes.

What is the same as before is not said again; what is not said changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

from remediator.core.fleet import FleetDecision
from remediator.ports import Clock, FeedState
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.health import NO_FEED, Health
from remediator.runtime.world import World

LOOK_EVERY_S: Final = 5.0
SAY_EVERY_S: Final = 300.0
# A reset or two in a row are the network's daily life, and over by then.
BROKEN_AFTER_S: Final = 15.0
NAMED_MAX: Final = 8

_log = structlog.get_logger(__name__)


class Logbook:
    """Remembers what was said last, of fleet passes, watches and the Lease."""

    def __init__(self, *, world: World, diagnoses: Diagnoses, health: Health, clock: Clock) -> None:
        self._world = world
        self._diagnoses = diagnoses
        self._health = health
        self._clock = clock
        self._waiting: dict[str, str] = {}  # machine -> what it waits for
        self._breakers: dict[str, str] = {}
        self._feeds: dict[str, FeedState] = {}
        self._down: set[str] = set()  # kinds whose watch was said to be broken
        self._lease_failed = False
        self.leading: Callable[[], bool] = lambda: False
        self.term = 0

    # -- fleet passes

    def passed(self, decision: FleetDecision, next_s: float) -> None:
        """One line about a fleet pass that was recorded, if it decided anything or anything changed.

        Args:
            decision: of the pass.
            next_s: seconds until the next one comes by itself.
        """
        waiting = {each.request.machine: each.blocked_by.stop for each in decision.refused}
        breakers: dict[str, str] = {each.scope: each.state for each in decision.status.breakers}
        acted = decision.granted or decision.would_act or decision.orphans
        if not acted and waiting == self._waiting and breakers == self._breakers:
            return
        self._waiting, self._breakers = waiting, breakers
        harms = sum(each.request.harms for each in decision.granted)
        _log.info(
            "fleet pass",
            granted=harms,
            reported=len(decision.granted) - harms,
            would_act=len(decision.would_act),
            not_granted=len(decision.orphans),
            waiting=len(waiting),
            gates=dict(sorted(Counter(waiting.values()).items())),
            breakers=dict(sorted(breakers.items())),
            grants=len(decision.status.grants),
            term=self.term,
            next_s=next_s,
        )

    # -- everything else

    async def run(self) -> None:
        """Look every five seconds, leading or not, until cancelled."""
        said = self._clock.monotonic()
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            self.look()
            if self._clock.monotonic() - said >= SAY_EVERY_S:
                said += SAY_EVERY_S
                self.say_alive()

    def look(self) -> None:
        """One line for each thing that broke, or healed, since the last look."""
        before, now = self._feeds, dict(self._health.feeds())
        self._feeds = now
        self._tell_watches(before, now)
        for kind, state in sorted(now.items()):
            self._tell_objects(kind, before.get(kind, NO_FEED), state)
        self._tell_lease()

    def say_alive(self) -> None:
        """The one line of five minutes in which nothing happens."""
        pages = self._diagnoses.page_states()
        caches = self._world.caches
        troubles: dict[str, object] = {}
        if broken := self._health.broken():
            troubles["broken"] = broken
        if blind := self._health.blind():
            troubles["blind"] = blind
        if lease := self._health.lease_trouble:
            troubles["lease"] = lease
        _log.info(
            "watching",
            role="leader" if self.leading() else "standby",
            holder=self._health.holder,
            term=self.term,
            nodes=len(caches.nodes),
            pools=len(caches.pools),
            playbooks=len(caches.playbooks),
            pages_fresh=pages["fresh"],
            pages_stale=pages["stale"],
            pages_waiting=pages["waiting"],
            runs=len(self._world.open_runs),
            waiting=len(self._waiting),
            **troubles,
        )

    def _tell_watches(self, before: dict[str, FeedState], now: dict[str, FeedState]) -> None:
        broken_s = {kind: self._health.broken_s(state) for kind, state in now.items()}
        broke = sorted(kind for kind in now if broken_s[kind] >= BROKEN_AFTER_S and kind not in self._down)
        if broke:
            error = now[broke[0]].trouble
            _log.warning("watches broken", kinds=broke, error=error, not_ready=list(self._health.not_ready()))
        healed = sorted(kind for kind in self._down if now.get(kind, NO_FEED).broken_since is None)
        if healed:
            after_s = round(max(self._health.broken_s(before[kind]) for kind in healed))
            _log.info("watches live again", kinds=healed, after_s=after_s)
        self._down = (self._down | set(broke)) - set(healed)

    def _tell_objects(self, kind: str, before: FeedState, now: FeedState) -> None:
        if now.alarms > before.alarms:
            _log.warning("cache went back in time", kind=kind, times=now.alarms - before.alarms)
        if now.undecodable.keys() == before.undecodable.keys():
            return
        if not now.undecodable:
            _log.info("objects readable again", kind=kind)
            return
        names = sorted(now.undecodable)
        error = now.undecodable[names[0]]
        _log.warning(
            "objects not readable", kind=kind, count=len(names), names=names[:NAMED_MAX], error=error
        )

    def _tell_lease(self) -> None:
        trouble = self._health.lease_trouble
        if bool(trouble) == self._lease_failed:
            return
        self._lease_failed = bool(trouble)
        if trouble:
            _log.warning("lease attempt failed", error=trouble, holder=self._health.holder)
        else:
            _log.info("lease attempts work again", holder=self._health.holder)
