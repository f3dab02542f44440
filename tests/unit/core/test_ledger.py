"""The ledger: settling is repeatable, in any order of looks, and an old run changes nothing later."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from remediator.core.ledger import number_of, overlay, settle, strikes_of
from remediator.model.ledger import HISTORY_MAX, BlockedRequest, ManagedNodeStatus, Out, Strike
from remediator.model.policy import PolicySpec
from remediator.model.remediation import RemediationStatus, StepStatus
from tests.unit.core.builders import a_run, at, text

POLICY = PolicySpec()


def ended(number=1, state="Failed", *done, note="", at_s=None, reason="VerifyFailed"):
    steps = tuple(
        StepStatus(
            id=each, action=each, state="Done", started_at=text(0), note=note if each == "repair" else ""
        )
        for each in done or ("quarantine",)
    )
    finished = text(number * 100 if at_s is None else at_s)
    return a_run(
        f"m-{number}", status=RemediationStatus(state=state, steps=steps, finished_at=finished, reason=reason)
    )


EMPTY = ManagedNodeStatus()


@pytest.mark.parametrize("state", ["Failed", "HandedOff", "NodeGone"])
def test_settle_keeps_a_touched_machine_out(state):
    """Custody of our taint: the ended run is named as the one that keeps it."""
    out = settle(EMPTY, ended(1, state), POLICY).out

    assert isinstance(out, Out)
    assert (out.run, out.pool, out.fault_class) == ("m-1", "train", "gpu.bad")


def test_settle_names_no_pool_when_the_place_was_filled():
    """A replaced machine is no hole in its pool."""
    out = settle(EMPTY, ended(1, "Failed", "quarantine", "swap"), POLICY).out

    assert isinstance(out, Out)
    assert out.pool == ""


@pytest.mark.parametrize("trigger", ["Return", "Reappeared"])
def test_settle_knows_after_another_failure_whether_the_place_is_empty(trigger):
    """Where a machine that was out happened to be is not the pool that misses it."""
    first = settle(EMPTY, ended(1, "Failed", "quarantine", "swap"), POLICY)
    again = ended(2, "Failed")
    out = settle(first, replace(again, spec=replace(again.spec, trigger=trigger)), POLICY).out

    assert isinstance(out, Out)
    assert (out.run, out.pool) == ("m-2", "")


def test_settle_keeps_an_untouched_machine_in():
    """A run that ended before any harm leaves the machine as it was."""
    assert settle(EMPTY, ended(1, "Failed", "swap"), POLICY).out is UNSET


def test_settle_puts_a_returned_machine_on_probation():
    """What was out is in again."""
    before = settle(EMPTY, ended(1, "HandedOff"), POLICY)
    after = settle(before, ended(2, "Returned"), POLICY)

    assert (after.state, after.out) == ("Probation", UNSET)


def test_settle_holds_a_vetoed_machine_for_the_hold_time():
    """People said no: not again for 24 h, counted from the run's end."""
    found = settle(EMPTY, ended(1, "Cancelled", reason="Uncordoned", at_s=0), POLICY)

    assert (found.state, found.veto_until) == ("Active", text(86_400))
    assert found.veto_by == "Uncordoned in m-1"


@pytest.mark.parametrize("state", ["WouldAct", "NotGranted", "Reported", "Draining", "Held"])
def test_settle_changes_nothing_for_a_run_without_a_story(state):
    """Audit, reports and open runs leave the machine active and healthy."""
    assert settle(EMPTY, ended(1, state), POLICY) is EMPTY
    assert settle(EMPTY, a_run(), POLICY) is EMPTY


@pytest.mark.parametrize(("note", "strikes"), [("boot-1 -> boot-2", 1), ("timed out", 0)])
def test_settle_counts_a_strike_for_a_repair_that_was_observed(note, strikes):
    """The repair memory counts reboots that happened, not such that were planned."""
    found = settle(EMPTY, ended(1, "Failed", "quarantine", "repair", note=note), POLICY)

    assert len(found.strikes) == strikes


histories = st.lists(
    st.sampled_from(["Returned", "Failed", "HandedOff", "Cancelled", "WouldAct"]), max_size=25
)


@given(histories, st.randoms())
def test_overlay_ignores_order_and_repetition(states, random):
    """A crash between a run's end and the ledger's write loses nothing and counts nothing twice."""
    runs = [
        ended(number, state, "quarantine", "repair", note="a -> b")
        for number, state in enumerate(states, start=1)
    ]
    shuffled = list(runs)
    random.shuffle(shuffled)
    once = overlay({}, runs, POLICY)

    assert overlay({}, shuffled, POLICY) == once
    assert overlay(once, shuffled, POLICY) == once


def test_overlay_never_settles_a_run_that_a_full_history_has_dropped():
    """The record of an old cancelled run may outlive its line: it must not lift today's quarantine."""
    runs = [ended(1, "Cancelled"), *(ended(number) for number in range(2, HISTORY_MAX + 2))]
    first = overlay({}, runs, POLICY)["m"]

    assert len(first.history) == HISTORY_MAX
    assert first.history[0].run == "m-2"
    assert isinstance(first.out, Out)
    assert (first.state, first.out.run) == ("Out", f"m-{HISTORY_MAX + 1}")
    assert overlay({"m": first}, runs, POLICY)["m"] == first


def test_settle_clears_the_request_that_the_run_answered():
    """A request that was answered waits for nothing."""
    waiting = ManagedNodeStatus(
        request=BlockedRequest(fault_class="gpu.bad", playbook="p", since=text(0), blocked_by="NoSpareReady")
    )

    assert settle(waiting, ended(), POLICY).request is UNSET


def test_settle_keeps_an_older_out_when_a_later_run_ends_untouched():
    """Run n+1 that failed before any harm does not free what run n keeps out."""
    before = ManagedNodeStatus(state="Out", out=Out(run="m-1", since=text(0), fault_class="gpu.bad"))

    assert settle(before, ended(2, "Failed", "collect"), POLICY).out == before.out


@pytest.mark.parametrize(
    ("name", "number"), [("m-1", 1), ("gpu-node-3-12", 12), ("m", 0), ("m-x", 0), ("m-", 0)]
)
def test_number_of_reads_the_last_part(name, number):
    """Machine names hold dashes and digits too."""
    assert number_of(name) == number


@pytest.mark.parametrize(("ago_s", "counted"), [(99, 1), (100, 1), (101, 0)])
def test_strikes_count_within_the_playbooks_memory(ago_s, counted):
    """The edge of the memory still counts; another class never does."""
    ledger = ManagedNodeStatus(
        strikes=(
            Strike(fault_class="gpu.bad", at=text(-ago_s)),
            Strike(fault_class="disk", at=text(0)),
        )
    )

    assert strikes_of(ledger, "gpu.bad", 100, at(0)) == counted
