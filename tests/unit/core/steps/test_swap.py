"""Swap: the granted spare and no other, after one last look, and never twice."""

from __future__ import annotations

from typing import Any

import pytest

from remediator.core.steps.swap import decide_swap
from remediator.model.decision import Act, Done, GiveUp, Wait
from remediator.model.playbook import SwapStep
from remediator.model.remediation import RemediationStatus, RunState, StepStatus
from tests.unit.core.builders import (
    BUFFER,
    POOL_KEY,
    TRAIN,
    a_fleetwide,
    a_grant,
    a_node,
    a_run,
    a_spec,
    a_view,
    at,
    quarantined,
    text,
)
from tests.unit.core.tiny_world import a_spare, patched

INTENT = StepStatus(id="swap", action="swap", state="Intent", started_at=text(0))
FENCED = RemediationStatus(
    steps=(StepStatus(id="fence", action="quarantine", state="Done", started_at=text(0)),)
)
STEP = SwapStep(timeout="10m")


def decide(spare=None, *, now_s=0.0, **fields):
    spare = a_spare() if spare is None else spare
    own = {
        "spare": spare,
        "spare_home": BUFFER,
        "grant": a_grant(spare="spare-1"),
        "run": a_run(spare=a_spare()),
        "now": at(now_s),
    }
    return decide_swap(a_view("swap", "quarantine", **own | fields), STEP, INTENT)


def test_swap_hands_the_granted_spare_over_in_one_patch():
    """Membership and dress change together, or a pod could land in between."""
    decision = decide()
    member = patched(a_spare(), decision.actions[0].patch)

    assert isinstance(decision, Act)
    assert member.labels[POOL_KEY] == "train"
    assert {taint.key for taint in member.taints} == {"nvidia.com/gpu"}


NOT_NOW: dict[str, dict[str, Any]] = {
    "no grant": {"grant": None},
    "no spare is free": {"grant": a_grant()},
    "is gone": {"spare_home": None},
    "Cordoned": {"spare": a_spare(unschedulable=True)},
    "has a fault signal": {"fleetwide": a_fleetwide(sick={"spare-1": "xid 48"})},
}


@pytest.mark.parametrize("reason", sorted(NOT_NOW))
def test_swap_waits_when_the_last_look_finds_something(reason):
    """Checked close to use: what was fit at the grant may not be fit now."""
    decision = decide(**NOT_NOW[reason])

    assert isinstance(decision, Wait)
    assert reason in decision.reason
    assert decision.blocked


@pytest.mark.parametrize(("now_s", "kind"), [(599, Wait), (600, GiveUp), (601, GiveUp)])
def test_swap_ends_before_any_harm_from_its_time_out_on(now_s, kind):
    """A soft fault without a spare harms nobody: nothing was done to the node."""
    decision = decide(now_s=now_s, grant=a_grant())

    assert isinstance(decision, kind)
    assert getattr(decision, "state", RunState.FAILED) is RunState.FAILED


def test_swap_goes_on_without_a_spare_when_the_node_is_out_already():
    """From the quarantine on waiting only keeps a sick node sick."""
    run = a_run(spare=a_spare(), status=FENCED)
    decision = decide(now_s=600, grant=a_grant(), run=run, node=quarantined(a_node()))

    assert isinstance(decision, Done)
    assert decision.skipped


@pytest.mark.parametrize("reason", sorted(NOT_NOW))
def test_swap_of_a_run_that_a_hard_fault_has_joined_waits_for_no_spare(reason):
    """The job is dead already; each minute in the pool makes it die again."""
    raised = a_run(spare=a_spare(), status=RemediationStatus(raised_by="gpu.bus: xid 79"))
    decision = decide(**NOT_NOW[reason], run=raised)

    assert isinstance(decision, Done)
    assert decision.skipped
    assert reason in decision.reason


def test_swap_of_a_run_that_a_hard_fault_has_joined_takes_a_spare_that_is_there():
    """One patch costs no time."""
    raised = a_run(spare=a_spare(), status=RemediationStatus(raised_by="gpu.bus: xid 79"))
    slow = a_node("spare-1", ready="False")

    assert isinstance(decide(run=raised), Act)
    assert isinstance(decide(slow, spare_home=TRAIN, run=raised), Done)


def test_swap_of_a_member_is_done_once_it_serves():
    """A spare that joined and is not Ready fills no place yet; at the time-out it is told as it is."""
    joined = a_node("spare-1")

    assert decide(joined, spare_home=TRAIN) == Done(reason="spare-1 is a member", note="spare-1 uid-spare-1")
    assert isinstance(decide(a_node("spare-1", ready="False"), spare_home=TRAIN), Wait)
    late = decide(a_node("spare-1", unschedulable=True), spare_home=TRAIN, now_s=600)
    assert "cordoned" in late.reason
    assert not late.skipped


@pytest.mark.parametrize(
    "fields",
    [
        {"home": None},
        {"home": BUFFER},
        {
            "run": a_run(),
            "playbook": a_spec("quarantine", "swap", no_spare="WithoutSpare"),
            "grant": a_grant(),
        },
    ],
    ids=["no pool", "a buffer node", "declared"],
)
def test_swap_is_skipped_where_nobody_takes_the_place(fields):
    """Skipped is not done: nothing may count the place as filled."""
    decision = decide(**{"spare": a_spare("unused"), "spare_home": None} | fields)

    assert isinstance(decision, Done)
    assert decision.skipped
