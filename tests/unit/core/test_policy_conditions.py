"""What the policy says of itself in its conditions."""

from __future__ import annotations

import pytest

from remediator.core.summary import policy_conditions
from remediator.model.joins import JoinsSpec
from remediator.model.meta import ObjectMeta, Pause, Rate
from remediator.model.policy import BreakerState, PolicyStatus, RemediationPolicy
from tests.unit.core.builders import a_policy, at, text


def a_whole_policy(*, conditions=(), **spec):
    return RemediationPolicy(
        metadata=ObjectMeta(name="cluster", generation=7),
        spec=a_policy(**spec),
        status=PolicyStatus(conditions=conditions),
    )


def a_breaker(scope, state="Open"):
    return BreakerState(scope=scope, state=state, since=text(0))


@pytest.mark.parametrize(
    ("spec", "breakers", "status", "reason"),
    [
        ({}, [], "True", "MayAct"),
        ({"max_mode": "Audit"}, [], "True", "AuditOnly"),
        ({"max_mode": "Disabled"}, [], "True", "DisabledOnly"),
        ({}, [a_breaker("class/gpu.bad")], "True", "SomeBreakersOpen"),
        ({}, [a_breaker("fleet", "HalfOpen")], "True", "SomeBreakersOpen"),
        ({}, [a_breaker("class/gpu.bad"), a_breaker("fleet")], "False", "BreakerOpen"),
        ({"pause": Pause(reason="stop")}, [a_breaker("fleet")], "False", "Paused"),
        ({"pause": Pause(reason="stop", until=text(-1))}, [], "True", "MayAct"),
    ],
)
def test_policy_says_whether_it_lets_harm_through(spec, breakers, status, reason):
    """The first line that anybody looks at on a night when nothing happens."""
    (ready,) = policy_conditions(a_whole_policy(**spec), breakers, at(0), {})

    assert (ready.type, ready.status, ready.reason) == ("Ready", status, reason)
    assert ready.observed_generation == 7
    assert all(each.scope in ready.message for each in breakers) or reason == "Paused"


def test_policy_condition_keeps_its_time_until_its_status_changes():
    """A condition that is always young says nothing about since when."""
    (first,) = policy_conditions(a_whole_policy(), [], at(0), {})
    (same,) = policy_conditions(a_whole_policy(conditions=(first,)), [a_breaker("class/x")], at(60), {})
    (other,) = policy_conditions(a_whole_policy(conditions=(same,)), [a_breaker("fleet")], at(120), {})

    assert same.last_transition_time == first.last_transition_time == text(0)
    assert other.last_transition_time == text(120)


@pytest.mark.parametrize(
    ("joins", "ceiling", "status", "reason"),
    [
        (JoinsSpec(mode="Enforce"), "Enforce", "True", "Enforced"),
        (JoinsSpec(mode="Enforce"), "Audit", "True", "Audited"),
        (JoinsSpec(mode="Audit"), "Enforce", "True", "Audited"),
        (JoinsSpec(mode="Disabled"), "Enforce", "False", "Disabled"),
        (JoinsSpec(rate=Rate(count=1, per="0s")), "Enforce", "False", "InvalidSpec"),
    ],
)
def test_policy_says_whether_new_nodes_are_let_in(joins, ceiling, status, reason):
    """Who waits for nodes looks here first."""
    policy = a_whole_policy(joins=joins, max_mode=ceiling)

    (_, found) = policy_conditions(policy, [], at(0), {})

    assert (found.type, found.status, found.reason) == ("JoinsReady", status, reason)


def test_policy_without_joins_says_nothing_of_them():
    """Nobody has asked."""
    assert len(policy_conditions(a_whole_policy(), [], at(0), {})) == 1
