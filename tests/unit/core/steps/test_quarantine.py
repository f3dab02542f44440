"""Quarantine: done when it is seen, and the state before the first of our writes is what comes back."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from remediator.core.prior import Prior, read_prior, write_prior
from remediator.core.steps.quarantine import decide_quarantine
from remediator.model.decision import Act, Done
from remediator.model.playbook import QuarantineStep
from remediator.model.signal import Evidence
from tests.unit.core.builders import a_node, a_run, a_view, quarantined
from tests.unit.core.tiny_world import patched

STEP = QuarantineStep(value="gpu")


def decide(node, step=STEP, **fields):
    return decide_quarantine(a_view(node=node, **fields), step, "fence")


def after(node, step=STEP):
    return patched(node, decide(node, step).actions[0].patch)


def test_quarantine_is_one_patch_with_taint_cordon_mark_and_prior():
    """In one write, or a crash could leave a cordon without an owner."""
    decision = decide(a_node())
    node = patched(a_node(), decision.actions[0].patch)

    assert len(decision.actions) == 1
    assert node.unschedulable
    taint = node.taint("remediator.dev/quarantine")
    assert taint is not None
    assert taint.effect == "NoSchedule"
    assert node.annotations["remediator.dev/run"] == "m-1/fence"
    assert read_prior(node) == Prior()


def test_quarantine_carries_the_version_and_uid_it_was_decided_on():
    """Another writer in between makes it a conflict, not a lost update."""
    action = decide(a_node(resource_version="77")).actions[0]

    assert (action.name, action.uid, action.resource_version) == ("gpu-1", "uid-gpu-1", "77")


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        (quarantined(a_node()), Done),
        (quarantined(a_node(), "other-1"), Act),
        (replace(quarantined(a_node()), unschedulable=False), Act),
        (a_node(unschedulable=True), Act),
    ],
    ids=["done", "another run's", "half of it", "a person's cordon"],
)
def test_quarantine_is_done_only_when_all_of_it_is_seen(node, kind):
    """What came of a write is only ever learnt by looking."""
    assert isinstance(decide(node), kind)


def test_quarantine_without_cordon_asks_for_none():
    """A taint alone lets tolerating pods stay schedulable."""
    gentle = QuarantineStep(value="gpu", cordon=False)
    node = after(a_node(), gentle)

    assert not node.unschedulable
    assert isinstance(decide(node, gentle), Done)


def test_quarantine_records_a_cordon_that_was_there():
    """Restore only what is ours."""
    assert read_prior(after(a_node(unschedulable=True))) == Prior(unschedulable=True)


def test_quarantine_of_a_machine_that_is_out_keeps_the_first_prior():
    """A second run must not take the first one's cordon for a person's."""
    first = quarantined(a_node(), "m-0")
    notes = {**first.annotations, "remediator.dev/prior": write_prior(Prior(labels={"a": "b"}))}

    assert read_prior(after(replace(first, annotations=notes))) == Prior(labels={"a": "b"})


def test_quarantine_says_why_on_the_node():
    """One line for kubectl describe, with the run to ask about."""
    evidence = (Evidence(source="exporter", key="xid", text="xid 79 on GPU-0"),)
    decision = decide(a_node(), run=a_run(evidence=evidence))
    because = patched(a_node(), decision.actions[0].patch).annotations["remediator.dev/because"]

    assert because.startswith("xid 79 on GPU-0; run m-1")
