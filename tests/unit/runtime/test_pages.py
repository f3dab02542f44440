"""Exporter pages of which a part can't be read: the rest counts, and somebody hears of it once."""

from __future__ import annotations

from structlog.testing import capture_logs

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
