"""Events: one for each piece of news, never in the way, never without a bound."""

from __future__ import annotations

import pytest

from remediator.errors import PermanentError, TransientError
from remediator.model.action import EVENT_PERIOD_S
from remediator.ports import Refusal
from remediator.runtime.events import QUEUE_MAX, REMEMBERED_MAX, Events
from tests.unit.runtime.fates import Fails, Fate, Lost, Refused
from tests.unit.runtime.rig import Rig


def tell(events: Events, reason: str = "Quarantined", *, machine: str = "m", run: str = "m-1") -> None:
    events.tell(
        machine=machine, node="gpu-1", node_uid="uid", reason=reason, action="Fence", note="why", run=run
    )


@pytest.mark.asyncio
async def test_events_are_told_once_in_fifteen_minutes():
    """The same news twice is noise."""
    rig = Rig(playbooks=[])
    tell(rig.events)
    tell(rig.events)
    assert rig.told() == ["Quarantined"]

    rig.clock.stand_still(EVENT_PERIOD_S - 1)
    tell(rig.events)
    assert rig.told() == ["Quarantined"]
    rig.clock.stand_still(1)
    tell(rig.events)

    assert rig.told() == ["Quarantined"] * 2


@pytest.mark.asyncio
async def test_events_of_another_machine_or_reason_are_news():
    """What differs is told; that the next run of one machine says the same again is not."""
    rig = Rig(playbooks=[])
    tell(rig.events)
    tell(rig.events, run="m-2")
    tell(rig.events, machine="other")
    tell(rig.events, "Drained")

    assert len(rig.told()) == 3


@pytest.mark.asyncio
async def test_events_queue_is_bounded_and_drops_the_newest():
    """A storm costs Events and not memory; what was dropped may be told later."""
    rig = Rig(playbooks=[])
    for number in range(QUEUE_MAX + 3):
        tell(rig.events, machine=f"m-{number}")

    assert len(rig.told()) == QUEUE_MAX
    assert rig.metrics.counts["remediator_events_dropped_total"] == 3
    loop = rig.background(rig.events.run())
    await rig.settle(8 * QUEUE_MAX)
    tell(rig.events, machine=f"m-{QUEUE_MAX}")
    await rig.settle(8)
    loop.cancel()
    assert len(rig.server.events) == QUEUE_MAX + 1


@pytest.mark.asyncio
async def test_events_memory_is_bounded():
    """What was told is forgotten, the oldest first."""
    rig = Rig(playbooks=[])
    loop = rig.background(rig.events.run())
    for number in range(REMEMBERED_MAX + 10):
        tell(rig.events, machine=f"m-{number}")
        if number % QUEUE_MAX == QUEUE_MAX - 1:
            await rig.settle(8 * QUEUE_MAX)
    loop.cancel()

    assert len(rig.events._told) == REMEMBERED_MAX


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "fate",
    [
        Refused(Refusal.OVERLOAD),
        Lost(committed=False),
        Fails(PermanentError("403", status=403)),
        Fails(TransientError("reset")),
    ],
)
async def test_events_are_tried_once(fate: Fate):
    """An Event is news and no record: the next one is not kept waiting."""
    rig = Rig(playbooks=[])
    rig.server.fate("PublishEvent", fate)
    tell(rig.events)
    tell(rig.events, "Drained")
    loop = rig.background(rig.events.run())
    await rig.settle(20)
    loop.cancel()

    assert [event.reason for event in rig.server.events] == ["Drained"]
    assert sum(sent.kind == "PublishEvent" for sent in rig.server.sent) == 2


@pytest.mark.asyncio
async def test_events_notes_fit_the_api():
    """The server refuses a note above 1,024 bytes."""
    rig = Rig(playbooks=[])
    rig.events.tell(machine="m", node="n", node_uid="u", reason="R", action="A", note="x" * 5_000)
    loop = rig.background(rig.events.run())
    await rig.settle(8)
    loop.cancel()

    assert len(rig.server.events[0].note) == 1_000
