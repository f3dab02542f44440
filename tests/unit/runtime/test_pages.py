"""Exporter pages of which a part can't be read: the rest counts, and somebody hears of it once."""

from __future__ import annotations

import msgspec
import pytest
from structlog.testing import capture_logs

from remediator.core.diagnose import Diagnosis
from remediator.model.meta import Condition, LabelSelector
from remediator.model.playbook import NodeSelection
from remediator.model.pool import PoolStatus
from remediator.model.signal import PageTrouble
from tests.unit.runtime.rig import Rig, with_exporter, xid_book

METRIC = "remediator_page_lines_skipped_total"


def skipped(rig: Rig) -> str:
    lines = rig.metrics.render().decode().splitlines()
    return next((line for line in lines if line.startswith(METRIC)), f"{METRIC} 0.0")


def test_skipped_lines_are_counted_and_told_once_until_the_page_is_whole():
    """An exporter that garbles its page does so every fifteen seconds, on every node of the pool."""
    rig = Rig(playbooks=[xid_book(79)], policy=with_exporter())
    with capture_logs() as logs:
        for bad_lines in (2, 2, 0, 1):
            rig.page("gpu-1", bad_lines=bad_lines)

    told = [line["lines"] for line in logs if line["event"] == "page lines skipped"]
    assert told == [2, 1]
    assert skipped(rig) == f"{METRIC} 5.0"


def test_xid_on_a_garbled_page_is_seen():
    """What can be read is not thrown away with what can't."""
    rig = Rig(playbooks=[xid_book(79)], policy=with_exporter())
    rig.page("gpu-1")
    rig.page("gpu-1", 79, bad_lines=3)

    assert [fault.node for fault in rig.diagnoses.faults()] == ["gpu-1"]


def seen_of(rig: Rig) -> Diagnosis:
    found = rig.diagnoses.of("gpu-1")
    assert found is not None
    return found


@pytest.mark.asyncio
async def test_page_is_looked_at_when_it_says_something_else():
    """A page each fifteen seconds from each of thousands of nodes, and hardly one with news."""
    rig = Rig(playbooks=[xid_book(79)], policy=with_exporter())
    rig.page("gpu-1")
    _ = rig.background(rig.diagnoses.run())
    await rig.settle()
    before = rig.diagnoses.of("gpu-1")

    rig.clock.stand_still(15)
    rig.diagnoses.page_read(rig.reading("gpu-1"))
    await rig.settle()
    assert rig.diagnoses.of("gpu-1") is before
    rig.diagnoses.page_read(rig.reading("gpu-1", 79))
    await rig.settle()
    assert [fault.node for fault in rig.diagnoses.faults()] == ["gpu-1"]


@pytest.mark.asyncio
async def test_first_page_of_a_boot_is_looked_at_whatever_it_says():
    """What it says was true of the boot before; of this one nobody has looked at anything yet."""
    rig = Rig(playbooks=[xid_book(79)], policy=with_exporter())
    rig.page("gpu-1")
    _ = rig.background(rig.diagnoses.run())
    await rig.settle()
    rig.clock.stand_still(1)
    rig.server.change("nodes", "gpu-1", {"status": {"nodeInfo": {"bootID": "boot-2"}}})
    await rig.settle()
    assert seen_of(rig).gpus.last == {}

    rig.clock.stand_still(15)
    rig.diagnoses.page_read(rig.reading("gpu-1"))
    await rig.settle()
    assert len(seen_of(rig).gpus.last) == 8


@pytest.mark.asyncio
async def test_pages_that_end_are_noticed_though_the_last_ones_said_the_same():
    """Three periods after the last of them, not after the last one that was looked at."""
    rig = Rig(playbooks=[xid_book(79)], policy=with_exporter())
    rig.page("gpu-1")
    _ = rig.background(rig.diagnoses.run())
    for _ in range(2):
        await rig.clock.advance(15)
        rig.diagnoses.page_read(rig.reading("gpu-1"))
    await rig.clock.advance(44)
    assert seen_of(rig).unknown == ()
    await rig.clock.advance(3)
    await rig.settle()
    assert "exporter page stale" in seen_of(rig).unknown[0]


REFUSED = PageTrouble("Unreachable", "http://gpu-2:9400/metrics: connection refused")


async def shown(rig: Rig, pool: str = "train") -> Condition | None:
    """The pool's condition about its pages, as the server has it after one round."""
    await rig.finish(rig.statuses.once())
    status = msgspec.convert(rig.server.get("pools", pool).get("status", {}), PoolStatus)
    return next((each for each in status.conditions if each.type == "ExporterPages"), None)


@pytest.mark.asyncio
async def test_pool_names_pages_that_are_not_read_until_they_are():
    """What is wrong stands on the pool, with the node and the fix; not while nobody has looked yet."""
    rig = Rig(playbooks=[xid_book(79)], policy=with_exporter())
    assert await shown(rig) is None, "the first round is not over"
    rig.pages.round_complete = True
    for node in sorted(rig.world.nodes):
        rig.page(node)
    rig.diagnoses.page_failed("gpu-2", REFUSED)
    first = await shown(rig)
    assert first is not None
    assert first.status == "True", "the last page is young enough"

    rig.clock.stand_still(60)
    rig.fresh()
    for node in sorted(rig.world.nodes):
        if node != "gpu-2":
            rig.page(node)
    found = await shown(rig)

    assert found is not None
    assert (found.status, found.reason) == ("False", "NotAllRead")
    assert found.message.startswith(f"1 Unreachable, gpu-2: exporter page stale: {REFUSED.text} (does")
    rig.pages.round_complete = False
    assert await shown(rig) == found, "a new leader keeps it until it has looked"
    rig.pages.round_complete = True
    rig.page("gpu-2")
    mended = await shown(rig)
    assert mended is not None
    assert (mended.status, mended.reason, mended.message) == ("True", "AllRead", "")


def test_failures_are_counted_by_reason():
    """A rack behind a new NetworkPolicy and a fleet of slow exporters are two different nights."""
    rig = Rig(playbooks=[xid_book(79)], policy=with_exporter())
    for _ in range(2):
        rig.diagnoses.page_failed("gpu-2", REFUSED)

    lines = rig.metrics.render().decode().splitlines()
    assert 'remediator_page_failures_total{reason="Unreachable"} 2.0' in lines
    assert 'remediator_page_failures_total{reason="TimedOut"} 0.0' in lines


def test_page_is_expected_of_whom_a_playbook_selects_now():
    """What is remembered follows a label that changes, and a playbook that is edited."""
    selector = NodeSelection(selector=LabelSelector(match_labels={"gpu": "yes"}))
    rig = Rig(playbooks=[xid_book(79, nodes=selector)], policy=with_exporter())
    seen = [rig.diagnoses.expects_page("gpu-1")]
    rig.change("nodes", "gpu-1", {"metadata": {"labels": {"gpu": "yes"}}})
    seen.append(rig.diagnoses.expects_page("gpu-1"))
    rig.change("playbooks", "p", {"spec": {"nodes": {"selector": {"matchLabels": {"gpu": "no"}}}}})
    seen.append(rig.diagnoses.expects_page("gpu-1"))

    assert seen == [False, True, False]
