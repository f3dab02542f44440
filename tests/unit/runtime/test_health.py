"""Is this replica fit: what probes are told, and why."""

from __future__ import annotations

import asyncio

import pytest

from remediator.ports import FeedState
from remediator.runtime.health import HANGS_S, STALE_WATCH_S
from tests.unit.runtime.fates import Held
from tests.unit.runtime.rig import Rig


def test_readiness_names_kind_moment_and_error():
    """What /readyz says is the first thing that anybody looks at."""
    rig = Rig()
    rig.again(sync=False)
    rig.feeds["nodes"] = FeedState(
        broken_since=rig.clock.now(), trouble="refused: nodes is forbidden (grant list on nodes)"
    )

    lines = dict(line.split(": ", 1) for line in rig.health.not_ready())
    assert len(lines) == 6
    assert lines["nodes"] == (
        "watch broken since 2026-01-01T00:16:40Z: refused: nodes is forbidden (grant list on nodes)"
    )
    assert lines["playbooks"] == "not read completely yet"


@pytest.mark.parametrize(
    ("silent_s", "ready"), [(1, True), (STALE_WATCH_S, True), (STALE_WATCH_S + 1, False)], ids=str
)
def test_readiness_outlives_a_watch_that_broke_a_moment_ago(silent_s, ready):
    """The cache is in step for as long as anybody would decide by it; both replicas may not flap."""
    rig = Rig()
    rig.feeds["resourcepools"] = FeedState(broken_since=rig.clock.now(), trouble="reset")
    rig.clock.stand_still(silent_s)
    for name, kind in rig.server.feeds.items():
        if name != "pools":
            kind.store.prove(0)

    assert (rig.health.not_ready() == ()) is ready


def test_readiness_does_not_ask_who_leads():
    """A standby that waits for the Lease is what the Lease is for."""
    rig = Rig()
    rig.lease.last_error = "403"
    rig.lease.holder = "somebody else"

    assert rig.controller.not_ready() == ()


@pytest.mark.asyncio
async def test_a_leader_whose_pass_hangs_is_not_alive():
    """It would renew its Lease for ever, and nobody else could do the work."""
    rig = Rig()
    gate = asyncio.Event()
    task = asyncio.ensure_future(rig.controller.run())
    try:
        await rig.clock.settle()
        rig.lease.elected.set()
        await rig.clock.advance(1)
        assert rig.controller.leading
        rig.server.fate("CreateRun", Held(gate))
        rig.break_node()
        await rig.clock.advance(HANGS_S)
        assert rig.controller.not_alive() is None
        await rig.clock.advance(2)

        assert (rig.controller.not_alive() or "").startswith("a fleet pass has hung for 30")
        gate.set()
        await rig.clock.advance(1)
        assert rig.controller.not_alive() is None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.asyncio
async def test_a_standby_without_passes_is_alive():
    """It waits, for months if need be."""
    rig = Rig()
    task = asyncio.ensure_future(rig.controller.run())
    try:
        await rig.clock.advance(HANGS_S + 1)

        assert rig.controller.not_alive() is None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_last_full_sync_is_as_old_as_the_oldest_proof():
    """A cache whose watch broke stays complete: its age is told all the same, and that we are blind."""
    rig = Rig()
    rig.gauges.once()
    assert rig.metrics.gauges["remediator_blind"] == 0
    rig.clock.stand_still(600)
    rig.server.feeds["nodes"].store.prove(0)
    rig.gauges.once()

    now = rig.clock.now().timestamp()
    assert rig.metrics.gauges["remediator_last_full_sync_timestamp_seconds"] == pytest.approx(now - 600)
    assert rig.metrics.gauges["remediator_blind"] == 1


def test_gauges_show_broken_watches_objects_and_lease():
    """What the log says once, the metrics say for as long as it lasts."""
    rig = Rig()
    rig.lease.last_error, rig.skew_s = "403", -3_600.0
    rig.feeds["nodes"] = FeedState(broken_since=rig.clock.now(), trouble="reset", undecodable={"a": "bad"})
    rig.clock.stand_still(7)
    rig.gauges.once()
    page = rig.metrics.render().decode()

    assert 'remediator_watch_broken_seconds{kind="nodes"} 7.0' in page
    assert 'remediator_objects_undecodable{kind="nodes"} 1.0' in page
    assert "remediator_lease_failing 1.0" in page
    assert "remediator_clock_skew_seconds -3600.0" in page
    assert 'remediator_watch_broken_seconds{kind="playbooks"} 0.0' in page
