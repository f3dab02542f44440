"""Limits and token buckets: the rounding is explicit and small pools are golden tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.core.budget import give_back, level, resolve, spell, take, wait_s
from remediator.model.meta import Limit, Rate
from remediator.model.policy import RateState
from tests.unit.core.builders import at, text

HOURLY = Rate(count=6, per="1h", burst=2)

# Allowed of 0, 1, 2 ... 20 nodes.
GOLDEN = {
    "5 %, at least 1": (Limit(percent=5, at_least=1), [0] + [1] * 20),
    "10 %": (Limit(percent=10), [0] * 10 + [1] * 10 + [2]),
    "34 %, at least 1": (
        Limit(percent=34, at_least=1),
        [0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6],
    ),
    "100 %": (Limit(percent=100), list(range(21))),
    "count 3": (Limit(count=3), [0, 1, 2] + [3] * 18),
    "count 0": (Limit(count=0), [0] * 21),
    "at least 2": (Limit(at_least=2), [0, 1] + [2] * 19),
    "nothing said": (Limit(), [0] * 21),
}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_resolve_gives_the_golden_number_for_every_small_pool(name):
    """Pools of a few nodes are where rounding does harm."""
    limit, expected = GOLDEN[name]

    assert [resolve(limit, size) for size in range(21)] == expected


@given(st.integers(1, 100), st.integers(0, 50), st.integers(0, 10_000))
def test_resolve_never_exceeds_the_pool_and_rounds_down(percent, floor, size):
    """A percentage never rounds up, and a floor never asks for more nodes than there are."""
    allowed = resolve(Limit(percent=percent, at_least=floor), size)

    assert 0 <= allowed <= size
    assert allowed <= max(size * percent / 100, floor)
    assert allowed >= min(size, floor)


def test_spell_shows_the_integer_and_where_it_came_from():
    """Status and why show what a percentage means today."""
    assert spell(Limit(percent=5, at_least=1), 48) == "2 (5 % of 48, at least 1)"
    assert spell(Limit(count=3), 48) == "3"


def test_level_of_an_unused_bucket_is_its_burst():
    """A fresh install must not wait for its first token."""
    assert level(HOURLY, None, at(0)) == 2.0


@pytest.mark.parametrize(("later_s", "expected"), [(599, 0), (600, 1), (601, 1), (99_999, 2)])
def test_level_refills_with_time_up_to_the_burst(later_s, expected):
    """Six an hour is one in ten minutes, and the bucket never overflows."""
    state = RateState(scope="fleet", tokens=0.0, at=text(0))

    assert int(level(HOURLY, state, at(later_s))) == expected


def test_level_counts_a_state_from_the_future_as_of_now():
    """A clock that was set back must neither refill nor drain the bucket."""
    assert level(HOURLY, RateState(scope="fleet", tokens=1.0, at=text(3_600)), at(0)) == 1.0


@given(st.lists(st.integers(0, 4_000), min_size=1, max_size=40))
def test_take_never_gives_more_than_burst_plus_refill(pauses):
    """The rate limit holds over any pattern of requests."""
    state, now, taken = None, 0, 0
    for pause in pauses:
        now += pause
        if level(HOURLY, state, at(now)) >= 1.0:
            state, taken = take("fleet", HOURLY, state, at(now)), taken + 1

    assert taken <= 2 + now / 600 + 1e-6


def test_wait_names_the_seconds_until_the_next_token():
    """A refusal says when to look again."""
    assert wait_s(HOURLY, RateState(scope="fleet", tokens=0.5, at=text(0)), at(0)) == 300
    assert wait_s(HOURLY, None, at(0)) == 0


def test_token_that_is_given_back_is_there_at_once_and_never_overflows():
    """A grant that came to nothing must not make the next fault wait, nor let more go than the burst."""
    taken = take("fleet", HOURLY, None, at(0))

    assert level(HOURLY, give_back("fleet", HOURLY, taken, at(60)), at(60)) == 2
    low = RateState(scope="fleet", tokens=0.25, at=text(0))
    assert give_back("fleet", HOURLY, low, at(0)).tokens == 1.25
