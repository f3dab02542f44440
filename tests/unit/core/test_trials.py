"""The one run that a half-open breaker lets through: it is entered with its grant, and goes with it."""

from __future__ import annotations

from msgspec.structs import replace

from remediator.core.fleet import decide_fleet
from remediator.model.meta import Limit, Rate
from remediator.model.policy import BreakerState, PolicyStatus
from tests.unit.core.builders import a_fleet, a_grant, a_node, a_policy, a_request, at, text

NODES = [a_node(f"gpu-{number:02}") for number in range(20)]
WIDE = {
    "max_unavailable": Limit(percent=100),
    "pool_max_unavailable": Limit(percent=100),
    "max_concurrent": 100,
    "pool_max_concurrent": 100,
    "rate": Rate(count=1_000, per="1h", burst=1_000),
}


def test_fleet_lets_exactly_one_trial_through_a_half_open_breaker():
    """The trial is entered in the same pass, so the second request sees it."""
    half = BreakerState(scope="class/gpu.bad", state="HalfOpen", since=text(0), last_fault_at=text(-900))
    requests = [a_request(node, "quarantine", "drain") for node in NODES[:3]]
    fleet = a_fleet(NODES, policy=a_policy(**WIDE), status=PolicyStatus(breakers=(half,)))
    decision = decide_fleet(fleet, requests, ())

    assert len(decision.granted) == 1
    assert decision.status.breakers[0].trial == decision.granted[0].request.run


def test_fleet_keeps_a_breaker_half_open_while_the_trial_is_not_seen_yet():
    """A run whose creation was not answered is no trial that went well."""
    half = BreakerState(scope="fleet", state="HalfOpen", since=text(0), limit=3, trial="m-1")
    status = PolicyStatus(breakers=(half,), grants=(a_grant(),))
    decision = decide_fleet(a_fleet(NODES, status=status, now=at(5)), (), ())

    assert decision.status.breakers == (half,)


def test_fleet_takes_no_trial_that_never_began_for_one_that_went_well():
    """Its record is nowhere: the grant goes, and the breaker waits for another trial."""
    half = BreakerState(scope="fleet", state="HalfOpen", since=text(0), limit=3, trial="m-1")
    status = PolicyStatus(breakers=(half,), grants=(a_grant(),))
    decision = decide_fleet(a_fleet(NODES, status=status, now=at(90)), (), ())

    assert [each.run for each in decision.dropped] == ["m-1"]
    assert decision.status.breakers == (replace(half, trial=""),)
