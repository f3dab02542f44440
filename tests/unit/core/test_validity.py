"""Which playbooks may be followed: every order that would do harm is refused, with the fix."""

from __future__ import annotations

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from remediator.core.validity import faults_of
from remediator.model.playbook import (
    CollectStep,
    DetachStep,
    Matcher,
    NodeConditionMatch,
    NodeSelection,
    Step,
)
from tests.unit.core.builders import HARD, SOFT, STEPS, a_spec

HANDOFF = ("quarantine", "swap", "drain", "detach", "handoff")


@pytest.mark.parametrize("actions", [HARD, SOFT, HANDOFF, ("report",), ("quarantine", "verify", "return")])
def test_playbook_in_a_safe_order_has_no_faults(actions):
    """What ships, and what people reasonably shorten, has to pass."""
    assert faults_of(a_spec(*actions)) == ()


WRONG = {
    ("drain",): "before quarantine",
    ("detach", "quarantine"): "before quarantine",
    ("quarantine", "detach"): "before drain",
    ("quarantine", "repair"): "before drain",
    ("quarantine", "return"): "without verify",
    ("quarantine", "drain", "drain"): "twice",
    ("quarantine", "verify", "return", "collect"): "never reached",
    ("quarantine", "report"): "alone",
    ("swap",): "without quarantine",
    ("quarantine", "drain", "detach", "swap"): "swap after detach",
    ("quarantine", "drain", "repair", "swap", "verify"): "swap after repair",
    ("quarantine", "drain", "repair", "detach", "verify"): "detach after repair",
    ("quarantine", "verify", "drain"): "drain after verify",
}


@pytest.mark.parametrize("actions", WRONG, ids=lambda actions: " ".join(actions))
def test_playbook_in_a_harmful_order_is_refused_with_the_reason(actions):
    """This is the last line for objects that an older schema let in."""
    steps = [replace(STEPS[each], id=f"s{number}") for number, each in enumerate(actions)]

    assert any(WRONG[actions] in fault for fault in faults_of(a_spec(*steps)))


BAD = {
    "exactly one action": a_spec(Step(id="none"), *HARD),
    "exactly one action ": a_spec(*HARD[:-1], Step(id="two", collect=CollectStep(), detach=DetachStep())),
    "same id": a_spec(STEPS["quarantine"], replace(STEPS["verify"], id="fence")),
    "no node selector": a_spec(nodes=NodeSelection()),
    "memory": a_spec(memory="2 weeks"),
    "is no duration": replace(
        a_spec(),
        match=replace(
            a_spec().match,
            any_of=(
                Matcher(id="x", node_condition=NodeConditionMatch(type="Ready", status="False"), for_="soon"),
            ),
        ),
    ),
}


@pytest.mark.parametrize("fault", sorted(BAD))
def test_playbook_that_cannot_be_read_is_refused(fault):
    """A playbook that fails in the middle of a run would leave a node out."""
    assert any(fault.strip() in found for found in faults_of(BAD[fault]))


def test_playbook_with_several_faults_names_them_all():
    """One edit should be enough."""
    spec = replace(a_spec("drain", "return"), nodes=NodeSelection(selector=UNSET))

    assert len(faults_of(spec)) >= 4
