"""Events for `kubectl describe node`: one per machine and reason in 15 minutes, never in the way.

A bounded queue and one sender; a full queue drops the newest and counts it. What was told is remembered
here, and by the Events' names: a successor that tells the same is told that it exists.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

import structlog

from remediator.errors import PermanentError, TransientError
from remediator.model.action import EVENT_PERIOD_S, Attribution, PublishEvent
from remediator.ports import Clock, Outcome, Records, Refusal, Telemetry

QUEUE_MAX: Final = 512
REMEMBERED_MAX: Final = 4_096

_log = structlog.get_logger(__name__)


class Events:
    """Queues Events and sends them one after another."""

    def __init__(self, *, records: Records, clock: Clock, telemetry: Telemetry) -> None:
        self._records = records
        self._clock = clock
        self._telemetry = telemetry
        self._queue: asyncio.Queue[PublishEvent] = asyncio.Queue(QUEUE_MAX)
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()
        self.term = 0

    def tell(
        self,
        *,
        machine: str,
        node: str,
        node_uid: str,
        reason: str,
        action: str,
        note: str,
        warning: bool = False,
        run: str = "",
    ) -> None:
        """Publish unless the same was told of this machine in the last 15 minutes."""
        key = (machine, reason)
        now = self._clock.monotonic()
        told = self._told.get(key)
        if told is not None and now - told < EVENT_PERIOD_S:
            return
        event = PublishEvent(
            machine=machine,
            node=node,
            node_uid=node_uid,
            type="Warning" if warning else "Normal",
            reason=reason,
            action=action,
            note=note[:1_000],
            at=self._clock.now(),
            run=run,
        )
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._telemetry.count("remediator_events_dropped_total", {})
            return
        self._told[key] = now
        self._told.move_to_end(key)
        while len(self._told) > REMEMBERED_MAX:
            self._told.popitem(last=False)

    async def run(self) -> None:
        """Send queued Events until cancelled. An Event is news, not a record: one try each."""
        while True:
            event = await self._queue.get()
            try:
                written = await self._records.save(event, Attribution(term=self.term, run=event.run))
            except (PermanentError, TransientError) as error:
                _log.warning("event not published", node=event.node, reason=event.reason, error=str(error))
                continue
            if written.outcome is not Outcome.APPLIED and written.refusal is not Refusal.EXISTS:
                _log.info("event not published", node=event.node, reason=event.reason, error=written.message)
