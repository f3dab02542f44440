"""Collect: what a repair would destroy, bounded, and never taken for known before it was read."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from remediator.core.steps.collect import EVENTS_WITHIN, EVIDENCE_MAX, decide_collect
from remediator.model.decision import Done, Look, Wait
from remediator.model.instant import write_instant
from remediator.model.playbook import CollectStep
from remediator.model.remediation import StepStatus
from remediator.model.signal import PageReading
from remediator.model.views import EventView
from tests.unit.core.builders import T0, a_view

BEGUN = StepStatus(id="evidence", action="collect", state="Intent", started_at=write_instant(T0))
STEP = CollectStep(events_window="15m")


def test_collect_asks_for_the_events_first():
    """Unread Events are unknown, not none."""
    decision = decide_collect(a_view(), STEP, BEGUN)

    assert isinstance(decision, Wait)
    assert decision.look is Look.EVENTS


def test_collect_copies_conditions_page_and_events():
    """After the reboot the driver's last words are gone."""
    page = PageReading(node="gpu-1", at=T0, at_monotonic=0.0, gpus=(), excerpt=("DCGM_X 79",))
    decision = decide_collect(a_view(reading=page, events=(EventView(T0, "Warning Xid"),)), STEP, BEGUN)

    assert isinstance(decision, Done)
    assert (
        decision.evidence == "# conditions\nReady=True : \n# exporter page\nDCGM_X 79\n# Events\nWarning Xid"
    )


@pytest.mark.parametrize(("age_s", "copied"), [(900, True), (901, False), (-5, True), (None, True)], ids=str)
def test_collect_copies_events_of_its_window(age_s, copied):
    """Last week's Events tell nothing about this fault; one without a time may."""
    at = None if age_s is None else T0 - timedelta(seconds=age_s)
    decision = decide_collect(a_view(events=(EventView(at, "Warning Xid"),)), STEP, BEGUN)

    assert isinstance(decision, Done)
    assert decision.evidence.endswith("# Events\nWarning Xid" if copied else "# Events\nnone")


@pytest.mark.parametrize("length", [0, 100, EVIDENCE_MAX * 3])
def test_collect_fits_the_record_whatever_it_finds(length):
    """A record that is refused for its size would stop the run."""
    decision = decide_collect(a_view(events=(EventView(T0, "x" * length),)), STEP, BEGUN)

    assert isinstance(decision, Done)
    assert len(decision.evidence) <= EVIDENCE_MAX


def test_collect_says_so_where_nothing_was_found():
    """An empty part must not look like a forgotten one."""
    decision = decide_collect(a_view(node=None, events=()), STEP, BEGUN)

    assert isinstance(decision, Done)
    assert decision.evidence == "# conditions\n# exporter page\nno page\n# Events\nnone"


def test_collect_goes_on_without_events_that_stay_unreadable():
    """A broken record must not keep a faulty node in its pool."""
    late = write_instant(T0 - EVENTS_WITHIN)
    decision = decide_collect(a_view(), STEP, replace(BEGUN, started_at=late))

    assert isinstance(decision, Done)
    assert decision.evidence.endswith("# Events\ncould not be read")
