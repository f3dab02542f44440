"""Return: to the buffer where the place is filled, else home; done when it is seen."""

from __future__ import annotations

from remediator.core.steps.give_back import decide_return, return_target
from remediator.model.decision import Act, Done, GiveUp, Wait
from remediator.model.playbook import ReturnStep
from remediator.model.remediation import RemediationStatus, RunState, StepStatus
from tests.unit.core.builders import (
    BUFFER,
    POOL_KEY,
    REPAIR,
    TRAIN,
    a_node,
    a_run,
    a_view,
    at,
    quarantined,
    text,
)
from tests.unit.core.tiny_world import patched

SWAPPED = RemediationStatus(steps=(StepStatus(id="swap", action="swap", state="Done", started_at=text(0)),))
SKIPPED = RemediationStatus(
    steps=(StepStatus(id="swap", action="swap", state="Skipped", started_at=text(0)),)
)
BEGUN = StepStatus(id="return", action="return", state="Intent", started_at=text(0))
OUT = quarantined(a_node(pool=None))


def decide(node=OUT, status=SWAPPED, **fields):
    view = a_view(node=node, run=a_run(status=status), **fields)
    return decide_return(view, ReturnStep(probation="24h"), BEGUN)


def test_return_puts_the_machine_into_the_buffer_on_probation():
    """Its place is filled, so it becomes a spare, and the last choice for a day."""
    decision = decide()
    node = patched(OUT, decision.actions[0].patch)

    assert isinstance(decision, Act)
    assert node.labels[POOL_KEY] == "buffer"
    assert node.annotations["remediator.dev/probation-until"] == text(86_400)
    assert not node.unschedulable
    assert isinstance(decide(node), Done)


def test_return_goes_home_without_probation_when_nobody_took_the_place():
    """The place is still empty; a skipped swap filled nothing."""
    for status in (SKIPPED, RemediationStatus()):
        node = patched(OUT, decide(status=status).actions[0].patch)

        assert node.labels[POOL_KEY] == "train"
        assert node.taint("nvidia.com/gpu") is not None
        assert "remediator.dev/probation-until" not in node.annotations
        assert isinstance(decide(node, status), Done)


def test_return_takes_the_dress_of_the_repair_pool_off():
    """What the Repair pool projects has no meaning in the buffer."""
    node = quarantined(a_node(pool="repair", labels={"team": "repair"}))
    back = patched(node, decide(node, repair_pool=REPAIR).actions[0].patch)

    assert back.labels == {POOL_KEY: "buffer"}


def test_return_waits_visibly_where_there_is_no_buffer():
    """A healthy machine that nobody takes back has to be seen."""
    decision = decide(buffer=None, now=at(86_399))

    assert isinstance(decision, Wait)
    assert decision.blocked
    assert decision.until == at(86_400)


def test_return_hands_a_machine_to_people_when_nobody_makes_a_buffer():
    """No run may stay open for ever; the machine is well, and its record says so."""
    decision = decide(buffer=None, now=at(86_400))

    assert isinstance(decision, GiveUp)
    assert (decision.state, decision.reason) == (RunState.HANDED_OFF, "NoBuffer")


def test_return_target_of_a_buffer_node_is_the_buffer():
    """A spare that was repaired goes back to where spares are."""
    view = a_view(run=a_run(status=RemediationStatus()), home=BUFFER)

    assert return_target(view) is BUFFER
    assert return_target(a_view(run=a_run(status=RemediationStatus()))) is TRAIN
