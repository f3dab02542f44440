"""Whose node it is: foreign marks are theirs, a plain cordon is nobody's."""

from __future__ import annotations

import pytest

from remediator.core.owners import ANNOTATIONS, MARKS, claimed_by_other
from remediator.core.run import decide_run
from remediator.model.remediation import RemediationStatus, StepStatus
from tests.unit.core.builders import a_node, a_pod, a_run, a_view, quarantined, text


def carrying(mark, value):
    if mark.kind == "taint":
        return a_node(taints=({"key": mark.key, "value": value, "effect": "NoSchedule"},))
    if mark.kind == "label":
        return a_node(labels={mark.key: value})
    return a_node(annotations={mark.key: value})


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: f"{mark.kind} {mark.key}")
def test_mark_of_another_claims_the_node(mark):
    """Two actors inside one node end in a fight over its cordon."""
    for value in mark.values or ("1",):
        assert mark.owner in (claimed_by_other(carrying(mark, value)) or "")


@pytest.mark.parametrize("mark", [mark for mark in MARKS if mark.values], ids=lambda mark: mark.key)
def test_mark_with_a_harmless_value_claims_nothing(mark):
    """An upgrade that is done leaves its label behind for ever."""
    assert claimed_by_other(carrying(mark, "upgrade-done")) is None


def test_taint_without_a_value_claims_too():
    """Taints often carry no value; labels and annotations that are empty mean nothing."""
    karpenter = next(mark for mark in MARKS if mark.owner == "karpenter")
    kured = next(mark for mark in MARKS if mark.owner == "kured")

    assert claimed_by_other(carrying(karpenter, "")) is not None
    assert claimed_by_other(carrying(kured, "")) is None


def test_cordon_and_our_own_quarantine_claim_nothing():
    """A plain cordon blocks nothing, and our own marks are not another's."""
    assert claimed_by_other(a_node(unschedulable=True)) is None
    assert claimed_by_other(quarantined(a_node())) is None


def test_annotations_of_the_table_are_kept_by_the_projection():
    """A node view carries only annotations that are named: these have to be among them."""
    assert set(ANNOTATIONS) == {mark.key for mark in MARKS if mark.kind == "annotation"}


@pytest.mark.parametrize("action", ["drain", "detach", "repair", "return"])
def test_run_stands_aside_while_somebody_else_works_on_its_node(action):
    """Who cordons, drains and uncordons beside us undoes us, and we undo them."""
    node = quarantined(a_node(labels={"nvidia.com/gpu-driver-upgrade-state": "pod-deletion-required"}))
    fence = StepStatus(id="fence", action="quarantine", state="Done", started_at=text(0))
    status = RemediationStatus(state="Quarantined", steps=(fence,))
    run = a_run(node=node, status=status)
    move = decide_run(a_view("quarantine", action, node=node, run=run, pods=(a_pod(),)))

    assert move.actions == ()
    assert move.save is not None
    assert (move.save.state, move.save.waits_for[:13]) == ("Blocked", "OwnedByOther:")


def test_run_goes_on_looking_at_a_node_that_somebody_else_works_on():
    """Verify writes nothing, and the soak is about the machine."""
    node = quarantined(a_node(labels={"nvidia.com/gpu-driver-upgrade-state": "validation-required"}))
    fence = StepStatus(id="fence", action="quarantine", state="Done", started_at=text(0))
    run = a_run(node=node, status=RemediationStatus(state="Quarantined", steps=(fence,)))
    move = decide_run(a_view("quarantine", "verify", node=node, run=run))

    assert "OwnedByOther" not in move.reason
