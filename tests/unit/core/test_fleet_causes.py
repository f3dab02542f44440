"""The fleet pass and what faulty nodes share: harm stops where the cause is, and only there."""

from __future__ import annotations

from remediator.core.fleet import decide_fleet
from remediator.model.meta import Limit
from remediator.model.pool import TopologyLevel
from tests.unit.core.builders import a_fault, a_fleet, a_node, a_policy, a_pool, a_request

WIDE = {"max_unavailable": Limit(percent=100), "pool_max_unavailable": Limit(percent=100)}


def test_fleet_stops_new_harm_in_a_rack_that_fails_as_a_whole_and_goes_on_elsewhere():
    """Four nodes of one rack are a power supply; a fault in another rack is still one broken machine."""
    rack = "topology.example.com/rack"
    nodes = [a_node(f"gpu-{number}", labels={rack: f"r{number // 8}"}) for number in range(100)]
    pools = (a_pool(topology=(TopologyLevel(key=rack),)),)
    victims = [*nodes[:4], nodes[9]]
    decision = decide_fleet(
        a_fleet(nodes, pools, policy=a_policy(**WIDE)),
        [a_request(node, "quarantine", "drain") for node in victims],
        [a_fault(node.name) for node in victims],
    )

    assert [each.request.node.name for each in decision.granted] == ["gpu-9"]
    assert {each.blocked_by.stop for each in decision.refused} == {"BreakerOpen"}
    (opened,) = decision.status.breakers
    assert opened.scope == f"cause/gpu.bad/{rack}=r0"
    assert decision.status.recent_faults[0].causes == (f"{rack}=r0",)
