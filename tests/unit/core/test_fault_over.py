"""A run whose fault is known to be over: before the fence it ends, behind it nothing changes."""

from __future__ import annotations

from msgspec.structs import replace

from remediator.core.ledger import overlay
from remediator.core.run import decide_run
from remediator.model.ledger import ManagedNodeStatus
from remediator.model.remediation import NodeRef, RemediationStatus, StepStatus
from tests.unit.core.builders import HARD, SOFT, a_node, a_policy, a_run, a_view, quarantined


def test_run_whose_fault_is_over_fences_nothing():
    """Before anything was done it ends as if it had never been granted."""
    save = decide_run(a_view(*HARD, fault_over=True)).save

    assert save is not None
    assert (save.state, save.reason) == ("NotGranted", "FaultOver")


def test_run_whose_fault_is_over_after_the_hand_over_leaves_the_spare_where_it_serves():
    """Nobody said No, so nobody is kept away from the machine afterwards."""
    begun = "2026-11-22T00:00:00Z"
    steps = (
        StepStatus(id="swap", action="swap", state="Done", started_at=begun),
        StepStatus(id="fence", action="quarantine", state="Intent", started_at=begun),
    )
    status = RemediationStatus(state="HandedOver", steps=steps, spare=NodeRef(name="spare-1", uid="u"))
    run = a_run(status=status)
    save = decide_run(a_view(*SOFT, run=run, fault_over=True)).save

    assert save is not None
    assert (save.state, save.reason) == ("Cancelled", "FaultOver")
    assert "spare-1 stays in pool train" in save.message
    over = replace(run, status=save)
    assert overlay({"m": ManagedNodeStatus()}, [over], a_policy())["m"].veto_until == ""


def test_run_whose_fault_is_over_goes_on_behind_its_fence():
    """From then on the machine proves that it is well, or is repaired."""
    node = quarantined(a_node())
    move = decide_run(a_view(*HARD, node=node, fault_over=True))

    assert move.save is not None
    assert move.save.state != "NotGranted"
