"""Limits that limit nothing, or let nobody in: refused by name, with the fix."""

from __future__ import annotations

import pytest

from remediator.core.joins.validity import faults_of_joins
from remediator.model.joins import Growth, JoinsSpec, PoolJoins
from remediator.model.meta import Rate
from tests.unit.core.builders import a_pool


def test_the_defaults_can_be_followed():
    """Of the policy and of a pool with a rate of its own."""
    pool = a_pool(joins=PoolJoins(rate=Rate(count=2, per="1m")))

    assert faults_of_joins(JoinsSpec(), {"train": pool}) == ()


@pytest.mark.parametrize(
    ("joins", "said"),
    [
        (JoinsSpec(rate=Rate(count=1, per="0s")), "spec.joins.rate.per is zero"),
        (JoinsSpec(rate=Rate(count=10_000, per="1m")), "more than 600 nodes a minute"),
        (JoinsSpec(growth=Growth(within="30s")), "spec.joins.growth.within is 30s"),
        (JoinsSpec(growth=Growth(within="2h")), "from 1m to 1h"),
        (JoinsSpec(deadline="0s"), "spec.joins.deadline is zero"),
        (JoinsSpec(gate="remediator.dev/quarantine"), "a key with another meaning"),
        (JoinsSpec(gate="node.kubernetes.io/not-ready"), "a key with another meaning"),
    ],
)
def test_what_can_not_be_followed_is_named_with_the_fix(joins, said):
    """Nobody is let in by such limits."""
    (fault,) = faults_of_joins(joins, {})

    assert said in fault
    assert "write" in fault


def test_the_rate_of_a_pool_is_judged_too():
    """And there are no more of them than the books have room for."""
    bad = a_pool(joins=PoolJoins(rate=Rate(count=1, per="0s")))
    many = {f"p{n}": a_pool(f"p{n}", joins=PoolJoins(rate=Rate(count=1, per="1m"))) for n in range(64)}

    assert "pool train: spec.joins.rate.per is zero" in faults_of_joins(JoinsSpec(), {"train": bad})[0]
    assert "write at most 63" in faults_of_joins(JoinsSpec(), many)[0]
