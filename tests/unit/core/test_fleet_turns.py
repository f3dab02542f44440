"""Whose turn it is: Audit's books hold back Audit only, and who is in nobody's care counts for nobody."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from remediator.core.fleet import decide_fleet, grant_lasts
from remediator.core.request import Shadow
from remediator.model.playbook import DrainStep, Step, SwapStep
from tests.unit.core.builders import (
    HARD,
    a_fault,
    a_fleet,
    a_node,
    a_playbook,
    a_policy,
    a_request,
    a_spec,
    at,
)

AUDIT = a_playbook(*HARD, name="audit", mode="Audit", priority=800, no_spare="WithoutSpare")
ENFORCE = a_playbook(*HARD, name="enforce", priority=600, no_spare="WithoutSpare")


def members(count):
    return [a_node(f"gpu-{number:02}") for number in range(count)]


def a_shadow(number):
    node = f"gpu-{number:02}"
    return Shadow(
        run=f"{node}-1",
        machine=node,
        node_uid=f"uid-{node}",
        fault_class="gpu.bad",
        pool="train",
        spare="",
        playbook="audit",
        until=at(3_600),
    )


def both(node):
    """The same machine has a fault for each of the two; Audit's playbook goes first."""
    return [
        a_request(node, playbook=AUDIT),
        a_request(node, playbook=ENFORCE, fault_class="gpu.worse"),
    ]


def test_playbook_in_audit_takes_no_turn_from_one_that_may_act():
    """A shadow budget is full: that is news for Audit, and no reason to leave a real fault alone."""
    nodes = members(20)
    view = a_fleet(nodes, shadows=tuple(map(a_shadow, (2, 3))))
    decision = decide_fleet(view, both(nodes[0]), [])

    assert [each.request.playbook.name for each in decision.granted] == ["enforce"]
    assert decision.refused == (), "a machine with a grant does not wait"
    assert decision.would_act == ()


def test_playbook_in_audit_that_is_recorded_has_the_machines_turn():
    """Two records of one pass would have one name; the other playbook's turn is the next pass."""
    nodes = members(20)
    decision = decide_fleet(a_fleet(nodes), both(nodes[0]), [])

    assert [each.request.playbook.name for each in decision.would_act] == ["audit"]
    assert decision.granted == ()


def test_shadow_ends_when_a_real_grant_would_be_over():
    """An XID's fault stays until a reboot: without an end, two records would be Audit's last ones."""
    steps = (Step(id="s", swap=SwapStep(timeout="10m")), Step(id="d", drain=DrainStep(deadline="30m")))
    nodes = members(20)
    (shadow,) = decide_fleet(a_fleet(nodes), [a_request(nodes[0], playbook=AUDIT)], []).shadows

    assert grant_lasts(a_spec(*steps)) == timedelta(minutes=40)
    assert shadow.until == at(grant_lasts(AUDIT.spec).total_seconds())


@pytest.mark.parametrize("others", [0, 1_000])
def test_breakers_limit_counts_the_nodes_of_pools(others):
    """A thousand CPU nodes of no pool must not make a storm among the GPUs look small."""
    nodes = members(20)
    crowd = [a_node(f"cpu-{number}", pool=None) for number in range(others)]
    policy = a_policy(breaker=replace(a_policy().breaker, count=3, percent=10))
    faults = [a_fault(node.name) for node in nodes[:8]]
    decision = decide_fleet(a_fleet([*nodes, *crowd], policy=policy), [], faults)

    assert {state.scope for state in decision.status.breakers} == {"class/gpu.bad", "fleet"}
    assert {state.limit for state in decision.status.breakers} == {3}
