"""Housekeeping: old records go by the wall clock, and nothing urgent hangs on it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remediator.core.retention import PER_MACHINE_MAX
from remediator.ports import FeedState
from remediator.runtime.housekeeping import RETENTION_BATCH
from tests.unit.core.builders import text
from tests.unit.runtime.rig import Rig


def ended(number: int) -> dict[str, Any]:
    name = f"old-{number}"
    return {
        "apiVersion": "remediator.dev/v1alpha1",
        "kind": "Remediation",
        "metadata": {"name": name, "creationTimestamp": text(number)},
        "spec": {
            "machine": "old",
            "node": {"name": "gone", "uid": "gone"},
            "trigger": "Fault",
            "mode": "Enforce",
            "faultClass": "gpu.bad",
            "severity": "Hard",
            "playbook": {"name": "p", "text": "{}"},
        },
        "status": {"state": "Returned", "finishedAt": text(number)},
    }


def with_old_runs(count: int) -> Rig:
    rig = Rig()
    for number in range(1, count + 1):
        rig.server.put("runs", f"old-{number}", ended(number))
    rig.server.flush()
    return rig


@pytest.mark.asyncio
async def test_retention_keeps_the_newest_records_of_a_machine():
    """Twenty a machine tell its story; more only fill etcd."""
    rig = with_old_runs(PER_MACHINE_MAX + 3)

    await rig.finish(rig.housekeeping.retain())

    kept = rig.server.names("runs")
    assert len(kept) == PER_MACHINE_MAX
    assert not {"old-1", "old-2", "old-3"} & set(kept)


@pytest.mark.asyncio
async def test_retention_deletes_a_bounded_number_a_time():
    """A backlog is worked off; it never becomes a storm of deletes."""
    rig = with_old_runs(PER_MACHINE_MAX + RETENTION_BATCH + 7)

    await rig.finish(rig.housekeeping.retain())

    assert len(rig.server.names("runs")) == PER_MACHINE_MAX + 7


@pytest.mark.asyncio
async def test_ticks_stop_with_the_leadership():
    """A replica that does not lead deletes nothing."""
    rig = Rig()
    task = asyncio.ensure_future(rig.housekeeping.run())
    await rig.clock.sleep(0)
    began = rig.ticks.running
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert began
    assert not rig.ticks.running
    assert set(rig.ticks.jobs) == {"retention"}


@pytest.mark.asyncio
async def test_gauges_count_what_the_feeds_have_seen_since_the_last_round():
    """The reflectors count totals; a counter takes the difference, once."""
    rig = Rig()
    rig.feeds["nodes"] = FeedState(events=5, relists=1)
    rig.gauges.once()
    rig.feeds["nodes"] = FeedState(events=7, relists=1, alarms=2)
    rig.gauges.once()

    page = rig.metrics.render().decode()
    assert 'remediator_watch_events_total{kind="nodes"} 7.0' in page
    assert 'remediator_relists_total{kind="nodes"} 1.0' in page
    assert 'remediator_cache_alarms_total{kind="nodes"} 2.0' in page
